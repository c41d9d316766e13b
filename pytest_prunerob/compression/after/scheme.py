"""What a scheme that follows pruning is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import nn

from pytest_prunerob.compression.method import CompressedModel, Trainer
from pytest_prunerob.compression.units import DIMENSIONS, removed
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError


class Finish(Protocol):
    """What is done with ``compressed``, made of ``dense``, when pruning is over; returns what is to be judged.

    ``compressed.model`` may be changed in place, ``dense`` stays. ``data`` is the training half of the dataset.
    """

    def __call__(
        self,
        compressed: CompressedModel,
        *,
        dense: nn.Module,
        data: Dataset | None,
        generator: torch.Generator,
        trainer: Trainer | None,
    ) -> CompressedModel:
        """Finish; raises ``CompressionError`` if the scheme does not apply to the network."""


@dataclass(frozen=True)
class Scheme:
    """How the parameters of a pruned network are set: what ``steps`` do after each pruning step, and the ``finish``.

    ``steps`` "fine-tuning" trains by the recipe of the dense model, shortened; "adversarial" by PGD training,
    shortened; "none" leaves the weights alone, so that the masks come from the dense model in one go. ``data`` and
    ``trains`` say whether training samples and a training are needed.
    """

    name: str
    steps: Literal["fine-tuning", "adversarial", "none"]
    source: str
    finish: Finish | None = None
    data: bool = False
    trains: bool = False


def given(trainer: Trainer | None, name: str) -> Trainer:
    """``trainer``, which the scheme ``name`` cannot do without; raises ``CompressionError`` if there is none."""
    if trainer is None:
        raise CompressionError(f"{name} trains the network: name a training, such as cells(training='standard')")
    return trainer


def measured(compressed: CompressedModel) -> CompressedModel:
    """``compressed`` with its zero weights, kernels or filters counted anew; other units are no matter of zeros."""
    for unit in DIMENSIONS:
        if unit == compressed.unit:
            names = {name if name == "weight" else f"{name}.weight" for name in compressed.layers}
            return replace(compressed, layers=removed(compressed.model, unit, names))
    return compressed
