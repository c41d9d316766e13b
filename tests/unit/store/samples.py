"""A store made by hand: two measurements, one of them unfinished, and a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pytest_prunerob.ledger import Ledger, Segment
from pytest_prunerob.store import Mode, Policy, Store

DONE, STARTED, MODEL = "ab" + "0" * 62, "cd" + "0" * 62, "ef" + "0" * 62
WITNESSES = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2) / 8


def content(key: str, **changes: Any) -> dict[str, Any]:
    """The manifest of a measurement of four samples in two micro-batches under one stage."""
    shape = Ledger(key, "decide", 4, 3, ("pgd",), frozenset(range(4))).shape()
    provenance = {"role": "pruned", "plan": "pgd 2 steps, linf, ε=0.1", "data": "toy", "device": "cpu", "chunk": 250}
    made = {"kind": "decide", "subject": "5" * 64, "probes": [[0.5, -1.25]], "shape": shape, "provenance": provenance}
    return {**made, **changes}


def filled(root: Path, mode: Mode = "rw", policy: Policy = "keep") -> Store:
    """The store in ``root``."""
    store = Store(root, policy=policy)
    for key in (DONE, STARTED):
        store.create(key, content(key))
        found = (store.add_witnesses(key, [0, 2], [0.1, 0.2], WITNESSES),)
        store.add(Segment(key, 0, 0, (0, 1, 2), {0: 0.1, 2: 0.2}, witnesses=found))
    store.add(Segment(DONE, 0, 1, (3,)))
    material = {"kind": "model", "network": "cnn", "training": {"name": "pgd"}, "seed": 3}
    store.add_model(MODEL, {"w": torch.ones(3)}, material)
    return Store(root, mode, policy=policy)


def files(root: Path) -> dict[str, bytes]:
    """All files with their content."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def one(root: Path, key: str, pattern: str) -> Path:
    """The first file of ``key`` that matches."""
    return min((root / "v1" / key[:2] / key).glob(pattern))
