"""A measurement so small that it can be interrupted at every step: 8 samples, 2 micro-batches, 2 stages.

The model is linear and its margins are 0.01 … 0.08, so that every outcome is known without an attack. ``Scripted`` is
an engine that knows them; it uses no autograd, so that a forked process can run it.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob import Dataset
from pytest_prunerob.engine import Engine, Result
from pytest_prunerob.ledger import Cost
from pytest_prunerob.measurement import Bench, Measurement, Prepared
from pytest_prunerob.plans import Plan, fmn, pgd
from pytest_prunerob.store import Mode, Store

STEP = pgd(norm="linf", eps="0.045", steps=1, step_size="0.02", random_start=False, micro_batch=4)
STRONG = pgd(norm="linf", eps="0.045", steps=2, step_size="0.045", random_start=False, micro_batch=4)
PLAN = replace(STEP, name="two stages of pgd", stages=(*STEP.stages, *STRONG.stages))
NEAREST = fmn(steps=30, micro_batch=4)
# What every run has to find: the margins are 0.01 … 0.08, so four samples of eight have theirs within 0.045.
OUTCOMES = {"broken": [0, 1, 2, 3], "survived": [4, 5, 6, 7], "errors": [], "correct": list(range(8))}


def network(boundary: float = 0.5) -> nn.Module:
    """Class 0 where a 1x4x4 image is on average above ``boundary``, else class 1; two more are never."""
    layer = nn.Linear(16, 4)
    layer.weight.data = torch.tensor([10 / 16, -10 / 16, 0.0, 0.0])[:, None].repeat(1, 16)
    layer.bias.data = torch.tensor([-10 * boundary, 10 * boundary, -10.0, -10.0])
    return nn.Sequential(nn.BatchNorm2d(1, affine=False, eps=0.0), nn.LeakyReLU(0.1), nn.Flatten(), layer).eval()


def data() -> Dataset:
    """8 samples at the distances 0.01 … 0.08 from the decision boundary of ``network()``."""
    sign = torch.tensor([1.0, -1.0]).repeat(4)
    x = 0.5 + (sign * torch.arange(1, 9) * 0.01)[:, None, None, None].expand(8, 1, 4, 4)
    return Dataset("tiny", x, (sign < 0).long(), classes=4)


@dataclass
class Scripted(Engine):
    """An engine that knows the margins; ``blind`` are the samples (by distance in percent) that it overlooks."""

    blind: tuple[int, ...] = ()
    units: int = 0

    def clean(self, module: nn.Module, x: Tensor) -> tuple[Tensor, Cost]:
        with torch.no_grad():
            return module(x), Cost(len(x))

    def run(
        self,
        kind: str,
        module: nn.Module,
        plan: Plan,
        stage: int,
        x: Tensor,
        y: Tensor,
        classes: int,
        clean: Tensor | None = None,
        **_: object,
    ) -> Result:
        self.units += 1
        margins = [round(abs(float(image[0, 0, 0]) - 0.5), 6) for image in x]
        reach = 1.0 if kind == "minimise" else (0.02, 0.045)[stage]
        broken = {i: m for i, m in enumerate(margins) if m <= reach and round(100 * m) not in self.blind}
        witness = np.stack([1 - x[i].numpy() for i in broken]) if broken else None
        values = dict(broken) if kind == "minimise" else {}
        return Result(Cost(len(x), len(x)), broken, {}, values, witness)


def bench(root: Path, mode: Mode = "rw", engine: Engine | None = None) -> Bench:
    """A bench on the store ``root``; the real engine if none is given."""
    return Bench(Store(root, mode), engine or Engine("cpu", 250, 0), lambda _: None)


def measured(used: Bench, module: nn.Module | None = None, samples: Dataset | None = None, plan: Plan = PLAN) -> Any:
    """The complete measurement of ``module`` under ``plan``."""
    prepared = prepare(used, module, samples)
    found = prepared.measurement("minimise" if plan.kind == "minimum" else "decide", plan)
    found.finish()
    return found


def prepare(used: Bench, module: nn.Module | None = None, samples: Dataset | None = None) -> Prepared:
    """The subject on the samples."""
    return used.prepare(module or network(), samples or data(), "pruned")


def outcomes(found: Measurement) -> dict[str, list[int]]:
    """Everything that a verdict can rest on."""
    return {
        "broken": sorted(found.ledger.broken),
        "survived": sorted(found.ledger.survived),
        "errors": sorted(found.ledger.errors),
        "correct": found.prepared.correct(),
    }


def files(root: Path) -> dict[str, bytes]:
    """All files of a store but locks, with their content."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


CALLS = ("open", "write", "fsync", "replace", "link", "unlink", "mkdir")
WRITING = os.O_WRONLY | os.O_RDWR


def hooked(before: Callable[[str, tuple[Any, ...]], None]) -> dict[str, Callable[..., Any]]:
    """The calls of ``os`` with which a store changes a disk, each preceded by ``before(name, arguments)``.

    Nothing waits for the disk: a process that is killed leaves what it has written to the system.
    """

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            if name != "open" or given[1] & WRITING:
                before(name, given)
            return None if name == "fsync" else real(*given, **named)

        return call

    return {name: wrap(name) for name in CALLS}


def forked(work: Callable[[], None]) -> int:
    """Start ``work`` in a forked process and return its id; the process ends with 0, or 1 after an exception."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside other threads; the child uses none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)  # the threads of a pool are not forked with it
        work()
        status = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a process: its exit code, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    """What ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)
