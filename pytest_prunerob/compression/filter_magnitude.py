"""Filter-wise global magnitude pruning: the weakest convolution filters of the whole network go."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.iterative import prune
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.schedules import halving
from pytest_prunerob.compression.units import magnitude
from pytest_prunerob.datasets import Dataset


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Prune the ``ceil(amount · F)`` weakest of the ``F`` convolution filters of the network, halving what is left.

    Merkle et al. prune convolutions only and rank globally, but name no norm. The score here is the L1 norm (Li et
    al.) divided by the number of weights of the filter. The best filter of each layer stays.

    Raises:
        CompressionError: if there is no convolution, if ``amount`` would empty a layer, or if a network with batch
            normalisation cannot be traced.
    """
    return prune(
        model,
        halving(amount),
        unit="filters",
        scope="global",
        score=lambda _, __, weight: magnitude(weight, "filters"),
        method=METHOD.name,
        trainer=trainer,
    )


METHOD = Method(
    "filter-l1",
    "filters",
    "global",
    compress,
    "Li et al. 2017, arXiv:1608.08710 (L1 norm of a filter); 'magnitude global filter' of Merkle, Samsinger & "
    "Schöttle 2021, Pruning in the Face of Adversaries, Sec. 3.3",
)
