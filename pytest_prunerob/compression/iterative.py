"""Iterative pruning: remove half of what is left, fine-tune, repeat."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.methods import METHODS
from pytest_prunerob.errors import CompressionError, unknown
from pytest_prunerob.facts import Unit
from pytest_prunerob.facts import sparsity as measured_sparsity

FineTune = Callable[[nn.Module, Masks], None]


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """A pruned network in eval mode with plain parameters, zero where pruned, and how it came about.

    ``requested`` and ``achieved`` are sparsities in ``unit`` ("weights" or "filters"), the second measured on the
    network; ``steps`` are the sparsities of the schedule.
    """

    model: nn.Module
    masks: Masks
    unit: Unit
    requested: Fraction
    achieved: Fraction
    steps: tuple[Fraction, ...]


def parse_sparsity(value: object) -> Fraction:
    """The exact sparsity that ``value`` (a string, number or ``Fraction``) names, 0 ≤ sparsity < 1.

    Floats count as they print (0.9 is 9/10). Raises ``CompressionError`` for everything else.
    """
    parsed = _fraction(value)
    if parsed is not None and 0 <= parsed < 1:
        return parsed
    hint = _nearest(value, parsed)
    raise CompressionError(
        f"sparsity {value!r}: allowed is the share that is pruned, from 0 up to but not including 1"
        + (f"; did you mean {hint}?" if hint else "")
    )


def schedule(sparsity: Fraction) -> tuple[Fraction, ...]:
    """The sparsities 1/2, 3/4, 7/8, … below ``sparsity`` and then ``sparsity`` itself; empty for 0.

    Each step halves what is left and the last lands on the target (Merkle, Samsinger & Schöttle 2021, Sec. 3.3).
    """
    steps = []
    left = Fraction(1, 2)
    while 1 - left < sparsity:
        steps.append(1 - left)
        left /= 2
    return (*steps, sparsity) if sparsity else ()


def compress(model: nn.Module, *, method: str, sparsity: Fraction | str, fine_tune: FineTune | None) -> CompressedModel:
    """Prune a copy of ``model`` step by step to ``sparsity``, calling ``fine_tune(copy, masks)`` after each step.

    The measured sparsity is the requested one, rounded up to the next whole weight or filter. ``fine_tune`` trains in
    place; what is pruned is zero again afterwards whatever it does. Sparsity 0 gives an equal network.

    Raises:
        CompressionError: for an unknown method, an impossible sparsity, or a network the method does not apply to.
    """
    if method not in METHODS:
        raise CompressionError(unknown("compression method", method, METHODS))
    requested = parse_sparsity(sparsity)
    chosen = METHODS[method]
    steps = schedule(requested)
    pruned = copy.deepcopy(model).eval()
    masks = chosen.select(pruned, Fraction(0))
    for step in steps:
        masks = masks & chosen.select(pruned, step, previous=masks)
        apply(pruned, masks)
        if fine_tune is not None:
            fine_tune(pruned, masks)
            apply(pruned, masks)
    pruned.eval()
    achieved = measured_sparsity(pruned, unit=chosen.unit)
    return CompressedModel(pruned, masks, chosen.unit, requested, achieved, steps)


def _fraction(value: object) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Fraction):
        return None
    try:
        return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError):
        return None


def _nearest(value: object, parsed: Fraction | None) -> str | None:
    """What was probably meant by a percentage, a decimal comma or a stray minus sign."""
    if parsed is None and isinstance(value, str):
        text = value.strip().replace(",", ".")
        parsed = _fraction(text.removesuffix("%").strip())
        if parsed is not None and text.endswith("%"):
            parsed /= 100
    if parsed is None:
        return None
    size = abs(parsed)
    if 1 < size < 100:
        size /= 100
    if not 0 < size < 1:
        return None
    digits = f"{float(size):.4f}".rstrip("0")
    return digits.ljust(4, "0")
