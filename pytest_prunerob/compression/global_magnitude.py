"""Unstructured global magnitude pruning: the smallest weights of the whole network go."""

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
    """Prune the ``ceil(amount · total)`` smallest ``|w|`` over all convolution and linear weights, half by half.

    One threshold holds for the whole network; equal magnitudes go in the order of the parameters.

    Raises:
        CompressionError: if the network has no such weights or none would be left.
    """
    return prune(
        model,
        halving(amount),
        unit="weights",
        scope="global",
        score=lambda _, __, weight: magnitude(weight, "weights"),
        method=METHOD.name,
        trainer=trainer,
        spare=False,
    )


METHOD = Method(
    "global-magnitude",
    "weights",
    "global",
    compress,
    "Han et al. 2015, arXiv:1506.02626; 'magnitude global unstructured' of Merkle, Samsinger & Schöttle 2021, "
    "Pruning in the Face of Adversaries, Sec. 3.3",
)
