"""The global random states that libraries and models draw from: seed them all, put them all back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept() -> Iterator[None]:
    """Put the random states of Python, NumPy and torch (all devices) back at the end."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state that libraries use
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_all(seed: int) -> None:
    """Seed torch on all devices, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state that libraries draw from
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context all draws follow ``seed``; what was drawn from before goes on afterwards."""
    with kept():
        seed_all(seed)
        yield
