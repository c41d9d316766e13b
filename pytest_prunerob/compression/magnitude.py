"""Magnitude pruning: the smallest weights, kernels or filters go, ranked over the whole network or in each layer."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.iterative import prune
from pytest_prunerob.compression.method import CompressedModel, Method, Scope, Trainer
from pytest_prunerob.compression.schedules import halving
from pytest_prunerob.compression.units import MaskUnit, magnitude
from pytest_prunerob.datasets import Dataset

MERKLE = "Merkle, Samsinger & Schöttle 2021, Pruning in the Face of Adversaries, Sec. 3.3"


def by_magnitude(name: str, unit: MaskUnit, scope: Scope, source: str, *, spare: bool = True) -> Method:
    """The method that removes the units of the smallest mean ``|w|``, halving what is left until the target is reached.

    Scope "global" prunes ``ceil(amount · total)`` units of the network by one threshold, "local" that share of every
    layer. Weights are those of convolutions and linear layers, kernels ``W[o, i]`` and filters ``W[o]`` those of
    convolutions. Equal magnitudes go in order. Merkle et al. name no norm: the score is the L1 norm (Li et al.) over
    the number of weights of the unit, which within a layer is the order of the L1 norm. With ``spare`` the best
    unit of each layer stays, and with a kernel its filter; the share that was reached is in the report.
    """

    def compress(
        model: nn.Module,
        amount: Fraction,
        *,
        data: Dataset | None,
        generator: torch.Generator,
        trainer: Trainer | None = None,
    ) -> CompressedModel:
        """Prune by the method's unit and scope.

        Raises:
            CompressionError: if the network has no such units, if globally more are to go than may, or, for filters, if
                a network with batch normalisation cannot be traced.
        """
        return prune(
            model,
            halving(amount),
            unit=unit,
            scope=scope,
            score=lambda _, __, weight: magnitude(weight, unit),
            method=name,
            trainer=trainer,
            spare=spare,
        )

    return Method(name, unit, scope, compress, source)


LI = "Li et al. 2017, arXiv:1608.08710 (L1 norm of a filter)"
METHODS = (
    # One threshold for all single weights may empty a layer, as in Han et al.
    by_magnitude(
        "global-magnitude",
        "weights",
        "global",
        f"Han et al. 2015, arXiv:1506.02626; 'magnitude global unstructured' of {MERKLE}",
        spare=False,
    ),
    by_magnitude("local-magnitude", "weights", "local", f"'magnitude local unstructured' of {MERKLE}"),
    by_magnitude("kernel-global-magnitude", "kernels", "global", f"'magnitude global kernel' of {MERKLE}"),
    by_magnitude("kernel-local-magnitude", "kernels", "local", f"'magnitude local kernel' of {MERKLE}"),
    by_magnitude("filter-l1", "filters", "global", f"{LI}; 'magnitude global filter' of {MERKLE}"),
    by_magnitude("filter-local-magnitude", "filters", "local", f"{LI}; 'magnitude local filter' of {MERKLE}"),
)
