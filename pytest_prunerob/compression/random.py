"""Random pruning, the control: weights, kernels or filters of each layer go by lot."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.iterative import prune
from pytest_prunerob.compression.magnitude import MERKLE
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.schedules import halving
from pytest_prunerob.compression.units import MaskUnit, each
from pytest_prunerob.datasets import Dataset


def by_lot(name: str, unit: MaskUnit, source: str) -> Method:
    """The method that removes units of every layer by lot, halving what is left until the target is reached.

    Each step draws among the units that are left. One unit of each layer stays. There is no global variant: over
    many units its masks would be those of the local one (Merkle et al., Sec. 3.3).
    """

    def compress(
        model: nn.Module,
        amount: Fraction,
        *,
        data: Dataset | None,
        generator: torch.Generator,
        trainer: Trainer | None = None,
    ) -> CompressedModel:
        """Prune ``ceil(amount · total)`` units of every layer, as ``generator`` draws.

        Raises:
            CompressionError: if the network has no such units, or, for filters, if a network with batch normalisation
                cannot be traced.
        """
        return prune(
            model,
            halving(amount),
            unit=unit,
            scope="local",
            # In float32 a layer of millions would hold ties, which go in order and not by lot.
            score=lambda _, __, weight: torch.rand(
                each(weight, unit).shape[:-1], dtype=torch.float64, generator=generator
            ),
            method=name,
            trainer=trainer,
        )

    return Method(name, unit, "local", compress, source)


METHODS = (
    by_lot("local-random", "weights", f"'random local unstructured' of {MERKLE}"),
    by_lot("kernel-local-random", "kernels", f"'random local kernel' of {MERKLE}"),
    by_lot("filter-local-random", "filters", f"'random local filter' of {MERKLE}"),
)
