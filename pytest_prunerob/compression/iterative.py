"""Iterative pruning: score the units, remove the weakest, fine-tune, repeat."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.method import CompressedModel, Scope, Trainer
from pytest_prunerob.compression.units import MaskUnit, each, kept_units, masks_of, removed, weights_of

Score = Callable[[nn.Module, str, Tensor], Tensor]
Tune = Callable[[nn.Module, Masks], None]


def prune(
    model: nn.Module,
    steps: Sequence[Fraction],
    *,
    unit: MaskUnit,
    scope: Scope,
    score: Score,
    method: str,
    trainer: Trainer | None,
    tune: Tune | None = None,
    spare: bool = True,
    only: Collection[str] | None = None,
) -> CompressedModel:
    """Prune a copy of ``model`` to each share of ``steps`` in turn, with fine-tuning after each.

    ``score(copy, name, weight)`` gives the scores of the units of the layer whose parameter is ``name``, in the
    shape of the units: ``weight`` itself for weights, (O, I) for kernels, (O,) for filters. ``tune``
    replaces the trainer's fine-tuning. What is pruned is zero again afterwards whatever training does. ``only`` are the
    parameters that are pruned and counted, ``None`` for all that hold units.

    Raises:
        CompressionError: if the method does not apply to the network or a layer would be left empty.
    """
    pruned = copy.deepcopy(model).eval()
    masks = Masks({})
    if tune is None and trainer is not None:
        tune = trainer.fine_tune
    if steps:  # what cannot be reached in the end is refused before anything is trained
        held = _chosen(weights_of(pruned, unit, method), only)
        alike = {name: torch.zeros(each(weight, unit).shape[:-1]) for name, weight in held.items()}
        whole = {name: torch.ones(one.shape, dtype=torch.bool) for name, one in alike.items()}
        weakest(alike, steps[-1], scope=scope, kept=whole, method=method, unit=unit, spare=spare)
    for step in steps:
        weights = _chosen(weights_of(pruned, unit, method), only)
        kept = {name: kept_units(masks, name, weight, unit) for name, weight in weights.items()}
        scores: Mapping[str, Tensor] = {name: score(pruned, name, weight) for name, weight in weights.items()}
        chosen = weakest(scores, step, scope=scope, kept=kept, method=method, unit=unit, spare=spare)
        masks = masks & masks_of(pruned, unit, chosen)
        apply(pruned, masks)
        if tune is not None:
            tune(pruned, masks)
            apply(pruned, masks)
    pruned.eval()
    names = _chosen(weights_of(pruned, unit, method), only)
    requested = steps[-1] if steps else Fraction(0)
    return CompressedModel(pruned, masks, unit, requested, removed(pruned, unit, names), tuple(steps))


def settle(model: nn.Module, masks: Masks, trainer: Trainer) -> None:
    """Prune ``model`` by ``masks`` in place and fine-tune what is left; what is pruned is zero afterwards."""
    apply(model, masks)
    trainer.fine_tune(model, masks)
    apply(model, masks)
    model.eval()


def _chosen(weights: Mapping[str, Tensor], only: Collection[str] | None) -> dict[str, Tensor]:
    return {name: weight for name, weight in weights.items() if only is None or name in only}
