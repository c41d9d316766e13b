"""Lottery tickets: prune the trained network, put what is left back to where it began, train again, repeat."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import torch
from torch import nn

from pytest_prunerob.compression.iterative import prune
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.rewinding import rewind
from pytest_prunerob.compression.schedules import exponential, shrinking
from pytest_prunerob.compression.units import magnitude
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

LEFT = Fraction(4, 5)  # of the weights after each round: Frankle & Carbin 2019, Sec. 2
EARLY = Fraction(7, 100)  # Frankle et al. 2019, arXiv:1903.01611: tickets are found 0.1 % to 7 % through training


def compress(
    name: str,
    early: Fraction,
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
    iterations: int | None = None,
) -> CompressedModel:
    """Prune the smallest ``|w|`` of the whole trained network, rewind the others, train for the rest; round by round.

    Every round takes a fifth of the weights that are left, the last one lands on ``amount``; ``iterations`` rounds of
    equal shares instead where it is given. What is left goes back to the dense model after ``early`` of its training
    (0 for its initialisation) and trains for the remaining share by the same recipe, whose schedule begins anew. All
    convolution and linear weights are ranked together; Frankle & Carbin spare none of them in deep networks.

    Raises:
        CompressionError: without a training, if the dense model was not trained here, or nothing would be left.
    """
    if trainer is None:
        raise CompressionError(f"{name} trains the network itself: name a training, such as cells(training='standard')")
    start = trainer.early(early)

    def again(pruned: nn.Module, masks: Masks) -> None:
        rewind(pruned, start, masks)
        trainer.train(pruned, masks, epochs=1 - early)

    return prune(
        model,
        shrinking(amount, LEFT) if iterations is None else exponential(Fraction(0), amount, iterations + 1)[1:],
        unit="weights",
        scope="global",
        score=lambda _, __, weight: magnitude(weight, "weights"),
        method=name,
        trainer=trainer,
        tune=again,
        spare=False,
    )


METHODS = tuple(
    Method(name, "weights", "global", partial(compress, name, early), source, trains=True, iterations=True)
    for name, early, source in (
        ("lottery-ticket", Fraction(0), "Frankle & Carbin 2019, arXiv:1803.03635"),
        ("lottery-ticket-rewinding", EARLY, "Frankle et al. 2020, arXiv:1912.05671; the share from arXiv:1903.01611"),
    )
)
