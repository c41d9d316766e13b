"""Which units go: those with the lowest scores, of the whole network or of each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from pytest_prunerob.compression.method import Scope
from pytest_prunerob.errors import CompressionError


def weakest(
    scores: Mapping[str, Tensor],
    amount: Fraction,
    *,
    scope: Scope,
    kept: Mapping[str, Tensor],
    method: str,
    unit: str,
    spare: bool = True,
) -> dict[str, Tensor]:
    """What stays when the units with the lowest scores go: layer → bool tensor in the shape of its scores.

    Scope "global" prunes ``ceil(amount · total)`` of all units, "local" that share of every layer. Units that ``kept``
    says are gone already go first and count; equal scores go in order. With ``spare`` the best unit of each layer
    stays, so that a layer loses one unit less than asked where it would lose all.

    Raises:
        CompressionError: if globally more are to go than may (each layer keeps one), or none would stay.
    """
    ranked = {name: score.detach().cpu().masked_fill(~kept[name], -math.inf) for name, score in scores.items()}
    if scope == "local":
        found = {}
        for name, score in ranked.items():
            count = min(math.ceil(amount * score.numel()), score.numel() - 1)
            found[name] = _strongest(score.flatten(), count).reshape(score.shape)
        return found
    total, least = sum(score.numel() for score in ranked.values()), len(ranked) if spare else 1
    count = math.ceil(amount * total)
    if count > total - least:
        each = f"each of the {least} layers keeps at least one" if spare else "at least one must stay"
        raise CompressionError(
            f"{method}: sparsity {float(amount):.4g} means {count} of {total} {unit}, but {each}, so at most "
            f"{total - least} can go"
        )
    if spare:
        for score in ranked.values():
            flat = score.view(-1)
            flat[flat.argmax()] = math.inf
    kept_flat = _strongest(torch.cat([score.flatten() for score in ranked.values()]), count)
    parts = torch.split(kept_flat, [score.numel() for score in ranked.values()])
    return {name: part.reshape(score.shape).clone() for (name, score), part in zip(ranked.items(), parts, strict=True)}


def _strongest(scores: Tensor, count: int) -> Tensor:
    """All of ``scores: (M,)`` but the ``count`` smallest, as a bool tensor; of equal ones the first go first."""
    if count == 0:
        return torch.ones(len(scores), dtype=torch.bool)
    # One selection instead of a sort: eleven million weights take a second instead of ten.
    threshold = scores.kthvalue(count).values
    kept = ~(scores < threshold)
    ties = (scores == threshold).nonzero().flatten()
    kept[ties[: count - int((~kept).sum())]] = False
    return kept
