"""The catalogue of compression methods: a new one is a file beside this one and a line here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from torch import nn

from pytest_prunerob.compression import filter_magnitude, global_magnitude
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.facts import Unit


class Select(Protocol):
    """How a method chooses: the masks that bring ``model`` to the total sparsity ``amount`` (0 ≤ amount < 1).

    ``model`` is not changed. ``previous`` is what is pruned already: it stays pruned and counts towards ``amount``.
    """

    def __call__(self, model: nn.Module, amount: Fraction, *, previous: Masks | None = None) -> Masks:
        """Choose; raises ``CompressionError`` if the method does not apply to the network."""


@dataclass(frozen=True)
class Method:
    """A compression method: what one unit of its sparsity is, how it chooses, and where it comes from."""

    name: str
    unit: Unit
    select: Select
    source: str


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("global-magnitude", "weights", global_magnitude.select, global_magnitude.SOURCE),
        Method("filter-l1", "filters", filter_magnitude.select, filter_magnitude.SOURCE),
    )
}
