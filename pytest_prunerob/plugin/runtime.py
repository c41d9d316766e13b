"""What the claim tests of one process share: store, engine, model builder, heartbeat. Made when first needed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

import pytest
import torch

from pytest_prunerob.budget import Budget
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import OptionError
from pytest_prunerob.measurement import Bench
from pytest_prunerob.models import Builder
from pytest_prunerob.plugin.options import Options, flag
from pytest_prunerob.plugin.stash import OPTIONS, RUNTIME, STARTED, STDERR
from pytest_prunerob.store import Mode, Policy, Store
from pytest_prunerob.threads import threads_per_worker

HEARTBEAT_SECONDS = 60.0  # silent CI jobs are killed after a few minutes


@dataclass
class Heartbeat:
    """Writes a line a minute to the terminal's stderr where no terminal shows progress."""

    descriptor: int
    seconds: float
    status: str = ""
    cell: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def report(self, status: str) -> None:
        """Say what is being done."""
        self.status = status

    def start(self) -> None:
        """Start the thread; it ends with ``stop`` or the process."""
        threading.Thread(target=self._beat, name="prunerob-heartbeat", daemon=True).start()

    def stop(self) -> None:
        """End the thread: its descriptor is about to be closed, and its number may be given to another file."""
        self.ended.set()

    def _beat(self) -> None:
        began = time.monotonic()
        while not self.ended.wait(self.seconds):
            line = f"prunerob: {time.monotonic() - began:.0f} s: {self.cell}: {self.status}\n"
            try:
                os.write(self.descriptor, line.encode())
            except OSError:
                return


@dataclass
class Runtime:
    """The shared machinery of one process."""

    bench: Bench
    builder: Builder
    heartbeat: Heartbeat
    config: pytest.Config

    @contextmanager
    def visible(self) -> Iterator[None]:
        """Let progress bars through to the terminal."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if not self.builder.progress or capture is None:
            yield
            return
        with capture.global_and_fixture_disabled():
            yield


def runtime(config: pytest.Config) -> Runtime:
    """The runtime of this process.

    Raises:
        OptionError: where the device is not there.
        StoreError: where the store cannot be written.
    """
    if RUNTIME not in config.stash:
        options = config.stash[OPTIONS]
        descriptor = config.stash[STDERR]
        terminal = os.isatty(descriptor) and not hasattr(config, "workerinput")
        beat = Heartbeat(descriptor, HEARTBEAT_SECONDS)
        store = Store(
            options.store, cast(Mode, options.store_mode), config.stash[STARTED], cast(Policy, options.witness)
        )
        store.check_writable()
        device = torch_device(options, worker=hasattr(config, "workerinput"))
        torch.set_num_threads(threads_per_worker())
        engine = Engine(device, options.batch_size, options.seed)
        budget = Budget(options.time_budget, config.stash[STARTED])
        builder = Builder(store, device, terminal, beat.report, options.root, budget)
        config.stash[RUNTIME] = Runtime(
            Bench(store, engine, beat.report, budget=budget, adequacy=cast(Literal["basic", "full"], options.adequacy)),
            builder,
            beat,
            config,
        )
        if not terminal:
            beat.start()
    shared: Runtime = config.stash[RUNTIME]
    return shared


def torch_device(options: Options, *, worker: bool) -> str:
    """The torch device of this process; an xdist worker sees only its own device (see ``plugin.devices``)."""
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    first = options.device.split(",")[0]
    if not first.startswith("cuda"):
        return first
    count = torch.cuda.device_count()
    device = "cuda:0" if worker else first
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise OptionError(f"{flag('device')}={options.device!r}: torch sees {count} CUDA devices")
    return device
