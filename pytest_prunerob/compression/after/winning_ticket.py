"""The winning ticket: what is left goes back to the weights of an early epoch and is trained from there."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.after.scheme import Scheme, given, measured
from pytest_prunerob.compression.method import CompressedModel, Trainer
from pytest_prunerob.compression.rewinding import rewind
from pytest_prunerob.datasets import Dataset

SHARE = Fraction(1, 4)  # epoch 50 of 200: Jordao & Pedrini, Effect of Pruning, Sec. 4


def finish(
    compressed: CompressedModel,
    *,
    dense: nn.Module,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None,
) -> CompressedModel:
    """Rewind what is left to the dense model after a quarter of its training and train for the other three quarters.

    The masks are those of the dense model, pruned in one go. The schedule of learning rates begins anew and spans the
    epochs that are left.

    Raises:
        CompressionError: without a training, for a dense model that was not trained here, or a network whose layers
            have lost their shape.
    """
    trainer = given(trainer, SCHEME.name)
    rewind(compressed.model, trainer.early(SHARE), compressed.masks)
    trainer.train(compressed.model, compressed.masks, epochs=1 - SHARE)
    return measured(compressed)


SCHEME = Scheme(
    "winning-ticket",
    "none",
    "Frankle et al. 2020, arXiv:1912.05671 (rewinding); Jordao & Pedrini 2021, On the Effect of Pruning on Adversarial "
    "Robustness, Sec. 4 (W-ticket)",
    finish,
    data=True,
    trains=True,
)
