"""Robustness claims about pruned networks as pytest cases: judged, gated, reported.

Names that need torch are loaded when they are first used, so that ``import pytest_prunerob`` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pytest_prunerob.cells import Cell, cells
from pytest_prunerob.claims import within
from pytest_prunerob.curves import critical_strength
from pytest_prunerob.flips import flips
from pytest_prunerob.latency import latency_ratio
from pytest_prunerob.plans import (
    apgd,
    autoattack,
    bim,
    brendel_bethge,
    corruption,
    cw,
    deepfool,
    fab,
    fgsm,
    fmn,
    jsma,
    momentum,
    multi_exit_pgd,
    occlusion,
    pgd,
    presets,
    r_fgsm,
    substitute,
    universal,
    worst_case,
    wrm,
    zoo,
)
from pytest_prunerob.reported import axis, table
from pytest_prunerob.transfer import transfer

if TYPE_CHECKING:
    from pytest_prunerob.checkpoints import load_reference, load_state
    from pytest_prunerob.compression.shrink import shrink
    from pytest_prunerob.datasets import Dataset
    from pytest_prunerob.subjects import Model

__all__ = [
    "Cell",
    "Dataset",
    "Model",
    "apgd",
    "autoattack",
    "axis",
    "bim",
    "brendel_bethge",
    "cells",
    "corruption",
    "critical_strength",
    "cw",
    "deepfool",
    "fab",
    "fgsm",
    "flips",
    "fmn",
    "jsma",
    "latency_ratio",
    "load_reference",
    "load_state",
    "momentum",
    "multi_exit_pgd",
    "occlusion",
    "pgd",
    "presets",
    "r_fgsm",
    "shrink",
    "substitute",
    "table",
    "transfer",
    "universal",
    "within",
    "worst_case",
    "wrm",
    "zoo",
]
_LAZY = {
    "Dataset": "datasets",
    "Model": "subjects",
    "load_reference": "checkpoints",
    "load_state": "checkpoints",
    "shrink": "compression.shrink",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'pytest_prunerob' has no attribute {name!r}")
    return getattr(import_module(f"pytest_prunerob.{_LAZY[name]}"), name)
