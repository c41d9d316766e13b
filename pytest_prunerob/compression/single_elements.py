"""Removing one filter or one residual block alone, without any adjustment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.compression import elements
from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.elements import Element
from pytest_prunerob.compression.masks import apply
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.residual_blocks import masks_without
from pytest_prunerob.compression.structures import drawn, measured, removable
from pytest_prunerob.compression.units import masks_of, weights_of
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

Structures = Literal["filters", "layers"]
Accuracy = Callable[[nn.Module], Fraction | float]
LOSSES = (0, 1, 2, 3, 4, 5)  # points of clean accuracy: Algorithm 2
EPS = 8 / 255  # Jordao & Pedrini, Sec. 4: FGSM
SAMPLES = 128  # ours: one of them is less than a point


@dataclass(frozen=True)
class Single:
    """What the network reaches without one element: its clean and its robust accuracy, 0 to 1."""

    element: Element
    clean: Fraction
    robust: Fraction


@dataclass(frozen=True)
class SingleElements:
    """The accuracies of the whole network and without each element in turn."""

    clean: Fraction
    robust: Fraction
    singles: tuple[Single, ...]
    losses: tuple[int, ...]

    def within(self, loss: int) -> tuple[Element, ...]:
        """``L_i``: what makes the network more robust and costs less than ``loss`` points; both strictly.

        With a loss of 0 the clean accuracy has to rise, as Algorithm 2 is printed.
        """
        least = self.clean - Fraction(loss, 100)
        return tuple(one.element for one in self.singles if one.robust > self.robust and one.clean > least)

    def shares(self) -> dict[int, Fraction]:
        """``|L_i| / |S|`` by loss in points."""
        return {loss: Fraction(len(self.within(loss)), len(self.singles)) for loss in self.losses}

    def ranked(self) -> tuple[Element, ...]:
        """All elements: by the smallest loss that they are within, then the most robust, then the most accurate."""
        levels: dict[Element, int] = {}
        for loss in sorted(self.losses, reverse=True):
            levels |= dict.fromkeys(self.within(loss), loss)
        worst = max(self.losses, default=0) + 1
        singles = sorted(self.singles, key=lambda one: (levels.get(one.element, worst), -one.robust, -one.clean))
        return tuple(one.element for one in singles)


def single_elements(
    model: nn.Module,
    *,
    structures: Structures = "filters",
    clean: Accuracy,
    robust: Accuracy,
    losses: Sequence[int] = LOSSES,
) -> SingleElements:
    """Which filters or layers make ``model`` more robust when they are removed alone (Jordao & Pedrini, Algorithm 2).

    ``clean(network)`` and ``robust(network)`` give accuracies from 0 to 1; they are called with a copy of ``model`` in
    eval mode that lacks one element at a time, ``model`` itself is not touched. Floats count as they print. Elements
    are all filters of all convolutions, or all residual blocks whose shortcut is the identity.

    Raises:
        CompressionError: for other structures, if there are none, or for an accuracy outside of 0 to 1.
    """
    tried = copy.deepcopy(model).eval()
    found = _elements(tried, structures, "removing single elements")

    def both(network: nn.Module) -> tuple[Fraction, Fraction]:
        return _accuracy(clean(network), "clean"), _accuracy(robust(network), "robust")

    return _each(tried, found, both, tuple(losses))


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    structures: Structures,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Remove the ``ceil(amount · |S|)`` elements that Algorithm 2 puts first; a tiny amount removes a single one.

    First those of the smallest loss ``i`` with the element in ``L_i``, among these the most robust network, then the
    highest clean accuracy; equal ones go in order. Each was measured alone, by FGSM at 8/255 on at most 128 training
    samples: the test set decides nothing. As in the paper nothing is adjusted, so ``trainer`` is not used. The best
    filter of each layer stays.

    Raises:
        CompressionError: if there are no such elements or a layer would lose all its filters.
    """
    pruned = copy.deepcopy(model).eval()
    name = NAMES[structures]
    found = _elements(pruned, structures, name)
    sample = drawn(data, SAMPLES, generator)
    assert sample is not None  # Method.data
    tried = _each(pruned, found, partial(_fgsm_accuracies, sample=sample), LOSSES)
    order = {one: place for place, one in enumerate(tried.ranked())}
    if structures == "layers":
        whole = removable(pruned, name, instead=NAMES["filters"])
        count = -(-amount.numerator * len(whole) // amount.denominator)
        first = {element.layer for element, place in order.items() if place < count}
        masks = masks_without(pruned, [block for block in whole if block.name in first])
    else:
        scores: dict[str, list[float]] = {}
        for element in found:
            scores.setdefault(f"{element.layer}.weight", []).append(float(order[element]))
        ranked = {layer: torch.tensor(values) for layer, values in scores.items()}
        kept = {layer: torch.ones(len(values), dtype=torch.bool) for layer, values in scores.items()}
        masks = masks_of(
            pruned, "filters", weakest(ranked, amount, scope="global", kept=kept, method=name, unit="filters")
        )
    apply(pruned, masks)
    return CompressedModel(pruned, masks, structures, amount, measured(pruned, structures), (amount,))


def _elements(model: nn.Module, structures: str, what: str) -> list[Element]:
    if structures == "layers":
        return elements.whole_blocks(removable(model, what, instead=NAMES["filters"]))
    if structures != "filters":
        raise CompressionError(f"structures={structures!r}: allowed are 'filters' and 'layers'")
    weights_of(model, "filters", what)
    return elements.filters(model)


def _each(
    model: nn.Module,
    found: Sequence[Element],
    both: Callable[[nn.Module], tuple[Fraction, Fraction]],
    losses: tuple[int, ...],
) -> SingleElements:
    """``both`` of ``model`` as it is and without each of ``found`` in turn."""
    clean, robust = both(model)
    singles = []
    for element in found:
        with elements.without(model, element):
            singles.append(Single(element, *both(model)))
    return SingleElements(clean, robust, tuple(singles), losses)


def _fgsm_accuracies(model: nn.Module, *, sample: Dataset) -> tuple[Fraction, Fraction]:
    """The clean accuracy of ``model`` on ``sample`` and the one under FGSM (Goodfellow et al. 2015) on itself."""
    device = next(model.parameters()).device
    y = sample.y.to(device)
    x = sample.x.to(device).requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        (slope,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), x)
    with torch.no_grad():
        attacked = model((x + EPS * slope.sign()).clamp(0, 1))
    return _correct(logits, y), _correct(attacked, y)


def _correct(logits: Tensor, y: Tensor) -> Fraction:
    return Fraction(int((logits.argmax(dim=1) == y).sum()), len(y))


def _accuracy(value: Fraction | float, which: str) -> Fraction:
    try:
        exact = value if isinstance(value, Fraction) else Fraction(repr(float(value)))
    except ValueError:
        exact = Fraction(-1)
    if not 0 <= exact <= 1:
        raise CompressionError(f"the {which} accuracy of single elements: allowed is 0 to 1, found {value}")
    return exact


NAMES: Mapping[str, str] = {"filters": "single-filter", "layers": "single-layer"}
METHODS = tuple(
    Method(
        NAMES[structures],
        structures,
        "global",
        partial(compress, structures=structures),
        "Jordao & Pedrini 2021, On the Effect of Pruning on Adversarial Robustness, Algorithm 2",
        data=True,
    )
    for structures in ("filters", "layers")
)
