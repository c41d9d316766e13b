"""pytest-xdist: one device for each worker, and what the controller learns of its workers.

The controller never imports torch: a worker finds its device through ``CUDA_VISIBLE_DEVICES``, which indexes into the
mask that the controller itself was started with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_prunerob.errors import OptionError
from pytest_prunerob.plugin.stash import OPTIONS, STARTED

MASK = "CUDA_VISIBLE_DEVICES"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Give each worker its device before it starts; a restarted worker keeps the specification and so the device."""
    devices = _cuda_indices(config.stash[OPTIONS].device)
    for number, spec in enumerate(specs):
        if devices and spec.popen:
            mask = masked(devices[number % len(devices)], os.environ)
            spec.env = {**(spec.env or {}), MASK: mask}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """``-n auto`` means a worker for each device where devices are named."""
    return len(_cuda_indices(config.stash[OPTIONS].device)) or None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the worker when the run started, so that store-mode=refresh sets only older results aside."""
    node.workerinput["prunerob_started"] = node.config.stash[STARTED]


def masked(index: int, environment: Mapping[str, str]) -> str:
    """The mask that shows only device ``index`` of those in ``environment``; entries may be UUIDs or MIG names.

    Raises:
        OptionError: where the mask has fewer devices.
    """
    mask = environment.get(MASK)
    if mask is None:
        return str(index)
    entries = [entry.strip() for entry in mask.split(",") if entry.strip()]
    if index >= len(entries):
        raise OptionError(f"--prunerob-device names cuda:{index}, and {MASK}={mask!r} has {len(entries)} devices")
    return entries[index]


def _cuda_indices(device: str) -> list[int]:
    names = device.split(",")
    if not all(name.startswith("cuda:") for name in names):
        return []
    return [int(name.partition(":")[2]) for name in names]
