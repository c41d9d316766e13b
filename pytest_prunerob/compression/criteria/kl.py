"""What hardly changes the prediction when it is masked is unimportant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_prunerob.compression import elements
from pytest_prunerob.compression.criteria.criterion import Criterion
from pytest_prunerob.compression.elements import Element
from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.datasets import Dataset


def filters(model: nn.Module, sample: Dataset | None) -> dict[str, Tensor]:
    """The divergence of the output with each filter masked alone: one forward per filter."""
    found = elements.filters(model)
    scores: dict[str, list[float]] = {}
    for element, score in zip(found, _divergences(model, found, sample), strict=True):
        scores.setdefault(f"{element.layer}.weight", []).append(score)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in scores.items()}


def blocks(model: nn.Module, blocks: Sequence[Block], sample: Dataset | None) -> Tensor:
    """The divergence of the output with each block masked alone: one forward per block."""
    found = _divergences(model, elements.whole_blocks(blocks), sample)
    return torch.tensor(found, dtype=torch.float64)


def _divergences(model: nn.Module, found: Sequence[Element], sample: Dataset | None) -> list[float]:
    """The mean of ``KL(q ‖ p)`` over the samples: ``p`` is what the network predicts, ``q`` what it does without."""
    assert sample is not None
    sums = [0.0] * len(found)
    for place, whole, masked in elements.logits_without(model, found, sample.x):
        p, q = (logits.double().log_softmax(dim=1) for logits in (whole, masked))
        sums[place] += float((q.exp() * (q - p)).sum())
    return [total / len(sample) for total in sums]


CRITERION = Criterion(
    "kl",
    filters,
    blocks,
    "Luo & Wu 2020, arXiv:1911.08114, CURL: the KL divergence of the output with the structure masked",
    samples=256,  # Luo & Wu
)
