"""Probe logits in a manifest: they show that a stored result is about this very subject."""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from pytest_prunerob.store import PROBE_TOLERANCE

# Forwards whose mean the probe logits of a model that draws are. They are the same draws each time; several of them
# show parts of it that one draw may leave out (ours).
DRAWN = 8


def to_json(logits: Tensor) -> list[list[float | str]]:
    """Probe logits (≤64, K) as JSON, which has no infinity and no NaN."""
    return [[value if isfinite(value) else repr(value) for value in row] for row in logits.double().tolist()]


def same(stored: Any, logits: Tensor) -> bool:
    """Whether ``stored``, which may be anything that JSON can hold, are the probe ``logits`` (≤64, K)."""
    logits = logits.double()
    try:
        before = torch.tensor([[float(value) for value in row] for row in stored], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    if before.shape != logits.shape:
        return False
    scale = max(1.0, float(logits.abs().nan_to_num(0.0, 0.0).max()))
    return torch.allclose(before, logits, rtol=0.0, atol=PROBE_TOLERANCE * scale, equal_nan=True)
