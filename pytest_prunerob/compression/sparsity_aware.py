"""Sparsity-aware adversarial training: adversarial training and global weight pruning take turns."""

from __future__ import annotations

import copy
from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.iterative import prune
from pytest_prunerob.compression.masks import Masks
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
    """PGD training, then by halves the smallest ``|w|`` of the whole network go and PGD training goes on.

    Of the pruning methods that Liao et al. train adversarially this is the global unstructured one. They start from an
    adversarially trained network and train on after pruning; the abstract and the review leave the schedule open: here
    one whole PGD training comes first and another one is shared by the steps. The steps are adversarial whatever
    scheme follows and however the dense model was trained. The inverse weights inheritance of the same paper is a
    method of its own.

    Raises:
        CompressionError: if the network has no convolution or linear weights or none would be left.
    """
    assert trainer is not None  # METHOD.trains
    steps, teacher = halving(amount), trainer
    robust = copy.deepcopy(model)
    teacher.train(robust, Masks({}), adversarial=True)

    def tune(pruned: nn.Module, masks: Masks) -> None:
        teacher.train(pruned, masks, epochs=Fraction(1, len(steps)), adversarial=True)

    return prune(
        robust,
        steps,
        unit="weights",
        scope="global",
        score=lambda _, __, weight: magnitude(weight, "weights"),
        method=METHOD.name,
        trainer=trainer,
        tune=tune,
        spare=False,
    )


METHOD = Method(
    "sparsity-aware-adversarial-training",
    "weights",
    "global",
    compress,
    "Liao, Wang, Xiang, Ye, Shao & Chu 2022, Achieving adversarial robustness via sparsity, Machine Learning 111, "
    "arXiv:2009.05423",
    trains=True,
)
