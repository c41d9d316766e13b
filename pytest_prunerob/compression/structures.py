"""Pruning of structures: filters, layers (residual blocks) or both, by the criteria of ``CRITERIA``."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.criteria import CRITERIA, Criterion
from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer, Unit
from pytest_prunerob.compression.residual_blocks import Block, blocks, masks_without, removed_blocks
from pytest_prunerob.compression.units import kept_units, masks_of, removed, weights_of
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

Kind = Literal["filters", "layers", "both"]
UNITS: dict[Kind, Unit] = {"filters": "filters", "layers": "layers", "both": "filters and layers"}
SOURCE = "Jordao & Pedrini 2021, On the Effect of Pruning on Adversarial Robustness, Algorithm 1"


def prune(
    model: nn.Module,
    amount: Fraction,
    *,
    kind: Kind,
    criterion: Criterion,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
    iterations: int = 1,
) -> CompressedModel:
    """Score the structures, remove the lowest, fine-tune; ``iterations`` times (Algorithm 1).

    Each time the same share of what is left goes, so that after the last one ``ceil(amount · |S|)`` structures are
    gone. ``S`` are all filters of all convolutions, or all residual blocks whose shortcut is the identity (all of them
    may go: the shortcuts stay), ranked over the whole network. The best filter of each layer stays. With "both" the
    two kinds are ranked apart, since their scores do not compare: the share holds for the blocks and, together with
    them, for the filters of the convolutions that do not lie in a removed block.

    The paper leaves filters that feed a sum as they are, because its networks are rebuilt with fewer channels; a mask
    fits any filter. Its code ranks filters within each layer or over the network depending on the criterion; here
    every ranking is that of Algorithm 1, over the network.

    Raises:
        CompressionError: if the network has no convolution or, for layers, no such block, if a layer would lose all
            its filters, or if torch.fx cannot trace the network.
    """
    name = f"{kind}-{criterion.name}"
    pruned = copy.deepcopy(model).eval()
    found = removable(pruned, name, instead=f"filters-{criterion.name}") if kind != "filters" else ()
    if kind != "layers":
        weights_of(pruned, "filters", name)  # raises where there are none
    sample = drawn(data, criterion.samples, generator)
    masks, steps = Masks({}), constant_ratio(amount, iterations)
    gone: tuple[Block, ...] = ()
    for step in steps:
        count = math.ceil(step * len(found))
        scores = criterion.filters(pruned, sample) if kind != "layers" else {}
        if found:
            gone = _lowest(found, criterion.blocks(pruned, found, sample), gone, count)
            masks = masks & masks_without(pruned, gone)
        if kind != "layers":
            masks = masks & _filters_gone(pruned, scores, masks, gone, step, found, name)
        apply(pruned, masks)
        if trainer is not None:
            trainer.fine_tune(pruned, masks)
            apply(pruned, masks)
    pruned.eval()
    return CompressedModel(pruned, masks, UNITS[kind], amount, measured(pruned, kind), steps)


def removable(model: nn.Module, method: str, *, instead: str) -> tuple[Block, ...]:
    """The residual blocks of ``model`` that can go.

    Raises:
        CompressionError: if there are none; ``instead`` is the method that is allowed then.
    """
    found = blocks(model)
    if not found:
        raise CompressionError(
            f"{method} removes residual blocks whose shortcut is the identity (input and output of one shape) and "
            f"{type(model).__name__} has none; allowed are networks such as resnet56, or {instead}"
        )
    return found


def drawn(data: Dataset | None, count: int, generator: torch.Generator) -> Dataset | None:
    """``count`` samples of ``data`` without replacement, all where there are fewer; ``None`` for none."""
    if data is None or count == 0:
        return None
    return data.take(torch.randperm(len(data), generator=generator)[:count].tolist())


def constant_ratio(amount: Fraction, iterations: int) -> tuple[Fraction, ...]:
    """The shares that are gone after each of ``iterations`` steps, of which each takes the same share of what is left.

    ``1 − (1 − amount)^(k / iterations)``, to six digits; the last one is ``amount`` exactly.
    """
    left = float(1 - amount)
    early = (Fraction(round((1 - left ** (k / iterations)) * 10**6), 10**6) for k in range(1, iterations))
    return (*(min(share, amount) for share in early), amount)


def measured(model: nn.Module, kind: Kind) -> dict[str, tuple[int, int]]:
    """By residual block (of one) and by convolution outside removed ones: how many are gone, how many there were."""
    found: dict[str, tuple[int, int]] = {}
    gone: list[Block] = []
    if kind != "filters":
        silent = removed_blocks(model)
        gone = [block for block in blocks(model) if silent[block.name]]
        found = {name: (int(out), 1) for name, out in silent.items()}
    if kind != "layers":
        found |= removed(model, "filters", _outside(weights_of(model, "filters", kind), gone))
    return found


def _lowest(found: Sequence[Block], scores: Tensor, gone: Sequence[Block], count: int) -> tuple[Block, ...]:
    """The ``count`` blocks that go: those already gone, then the lowest scores; equal ones go in order."""
    ranked = sorted(range(len(found)), key=lambda index: (found[index] not in gone, float(scores[index])))
    return tuple(found[index] for index in sorted(ranked[:count]))


def _filters_gone(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    masks: Masks,
    gone: Sequence[Block],
    step: Fraction,
    found: Sequence[Block],
    method: str,
) -> Masks:
    """The masks after the filters have gone that ``step`` asks for, blocks that are gone counted in."""
    weights = _outside(weights_of(model, "filters", method), gone)
    kept = {name: kept_units(masks, name, weight, "filters") for name, weight in weights.items()}
    total, already = (sum(int(value) for value in column) for column in _counts(kept))
    if total == 0:
        return masks
    wanted = max(math.ceil(step * (len(found) + total)) - len(gone), already)
    # A convolution that is never called, such as a head for training, has no feature maps: it goes first.
    ranked = {name: scores.get(name, torch.zeros(len(weight))) for name, weight in weights.items()}
    share = Fraction(wanted, total)
    chosen = weakest(ranked, share, scope="global", kept=kept, method=method, unit="filters")
    return masks_of(model, "filters", chosen)


def _counts(kept: Mapping[str, Tensor]) -> tuple[list[int], list[int]]:
    return [keep.numel() for keep in kept.values()], [int((~keep).sum()) for keep in kept.values()]


def _outside(weights: Mapping[str, Tensor], gone: Sequence[Block]) -> dict[str, Tensor]:
    """The convolutions that lie in none of ``gone``."""
    inside = {name for block in gone for name in block.parameters}
    return {name: weight for name, weight in weights.items() if name not in inside}


METHODS = tuple(
    Method(
        f"{kind}-{criterion.name}",
        UNITS[kind],
        "global",
        partial(prune, kind=kind, criterion=criterion),
        f"{SOURCE}; {criterion.source}",
        data=criterion.samples > 0,
        iterations=True,
        library=criterion.library,
    )
    for kind in UNITS
    for criterion in CRITERIA.values()
)
