"""Progressive pruning: during one training the share of pruned weights grows along a cubic schedule."""

from __future__ import annotations

import copy
from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.iterative import settle
from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.units import kept_units, magnitude, masks_of, removed, weights_of
from pytest_prunerob.datasets import Dataset

# How often weights are pruned, and when the target is reached, in shares of the training. Ours: Zhu & Gupta prune every
# 100 to 1,000 steps and leave the end of the training to recover.
EVERY = 0.01
END = 0.75


def cubic(amount: Fraction, done: float) -> Fraction:
    """The share that is pruned after ``done`` (0 to 1) of the training (Zhu & Gupta 2017, Eq. 1, from sparsity 0)."""
    if done >= END:
        return amount
    return amount * (1 - (1 - Fraction(done) / Fraction(END)) ** 3)


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Train once more while the smallest ``|w|`` of every layer go, ``amount · (1 − (1 − t)³)`` of it by time t.

    t runs from 0 to 1 in the first three quarters of the training; what is pruned stays so. The review names the
    strategy of Guo et al. 2018 "progressive pruning" and says no more; the schedule is that of Zhu & Gupta.

    Raises:
        CompressionError: if the network has no convolution or linear weights.
    """
    assert trainer is not None  # METHOD.trains
    pruned = copy.deepcopy(model)
    names = weights_of(pruned, "weights", METHOD.name)
    masks, last = Masks({}), 0.0

    def choose(share: Fraction) -> None:
        nonlocal masks
        weights = weights_of(pruned, "weights", METHOD.name)
        kept = {name: kept_units(masks, name, weight, "weights") for name, weight in weights.items()}
        scores = {name: magnitude(weight, "weights") for name, weight in weights.items()}
        chosen = weakest(scores, share, scope="local", kept=kept, method=METHOD.name, unit="weights")
        masks = masks & masks_of(pruned, "weights", chosen)

    def after_step(trained: nn.Module, done: float) -> None:
        nonlocal last
        if last < END and (done - last >= EVERY or done >= END):
            last = done
            choose(cubic(amount, done))
        apply(trained, masks)

    trainer.train(pruned, Masks({}), after_step=after_step)
    choose(amount)
    settle(pruned, masks, trainer)
    return CompressedModel(pruned, masks, "weights", amount, removed(pruned, "weights", names), (amount,))


METHOD = Method(
    "progressive-pruning",
    "weights",
    "local",
    compress,
    "Guo, Zhang, Zhang & Chen 2018, arXiv:1810.09619 (the strategy); Zhu & Gupta 2017, arXiv:1710.01878 (the schedule)",
    trains=True,
)
