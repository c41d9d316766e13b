"""What a compression method is, what it is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.structure import Structure
from pytest_prunerob.datasets import Dataset

Unit = Literal["weights", "kernels", "filters", "layers", "filters and layers", "activations", "parameters"]
Scope = Literal["global", "local"]
Penalty = Callable[[nn.Module], Tensor]
AfterStep = Callable[[nn.Module, float], None]


class Trainer(Protocol):
    """How the model that is compressed was trained, and how it is trained again; every call trains in place.

    What ``masks`` prune is zero after every optimizer step. ``penalty(model)`` is a scalar that is added to the loss;
    ``after_step(model, done)`` is called after every optimizer step with the share of the training that is done. The
    model is in eval mode afterwards.
    """

    def fine_tune(
        self, model: nn.Module, masks: Masks, *, penalty: Penalty | None = None, after_step: AfterStep | None = None
    ) -> None:
        """Train as the scheme says that follows each pruning step; nothing under a scheme that trains at the end."""

    def train(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        epochs: Fraction = Fraction(1),
        penalty: Penalty | None = None,
        after_step: AfterStep | None = None,
        adversarial: bool = False,
    ) -> None:
        """Train by the recipe of the dense model for ``epochs`` times its epochs.

        With ``adversarial`` the recipe is PGD training, whatever the dense model was trained by.
        """

    def fresh(self, model: nn.Module) -> None:
        """Give every layer of ``model`` new random weights by the seed of this training, in place."""

    def early(self, share: Fraction) -> Mapping[str, Tensor]:
        """The state dict of the dense model after ``share`` (0 to 1) of its training; 0 is its initialisation.

        Raises:
            CompressionError: if the dense model was not trained here.
        """


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """A compressed network in eval mode with plain parameters, and how it came about.

    ``masks`` are zero in the network; ``structure`` is what was taken out of it or put into it physically, ``None`` for
    nothing. ``requested`` is a share of ``unit``; ``layers`` is what was measured: by layer, how many units are gone
    and how many there were. ``steps`` are the shares of the schedule.
    """

    model: nn.Module
    masks: Masks
    unit: Unit
    requested: Fraction
    layers: Mapping[str, tuple[int, int]]
    steps: tuple[Fraction, ...] = ()
    structure: Structure | None = None

    @property
    def achieved(self) -> Fraction:
        """The measured share of ``unit`` that is gone."""
        total = sum(size for _, size in self.layers.values())
        return Fraction(sum(gone for gone, _ in self.layers.values()), total) if total else Fraction(0)


class Compress(Protocol):
    """How a method compresses a copy of ``model`` by ``amount`` of its units (0 < amount < 1); ``model`` stays.

    ``data`` is the training half of the dataset, ``None`` where there is none; ``generator`` (on the CPU) decides what
    is drawn. ``trainer`` is ``None`` where nothing is to be trained. Methods of ``Method.iterations`` also take
    ``iterations``.
    """

    def __call__(
        self,
        model: nn.Module,
        amount: Fraction,
        *,
        data: Dataset | None,
        generator: torch.Generator,
        trainer: Trainer | None = None,
    ) -> CompressedModel:
        """Compress; raises ``CompressionError`` if the method does not apply to the network or lacks what it needs."""


@dataclass(frozen=True)
class Method:
    """A compression method: what one unit of its amount is, how it compresses, and where it comes from.

    ``scope`` says whether the amount holds for the whole network or in each layer. ``data``: it scores by training
    samples; ``trains``: it trains the network itself, so that a dense model by reference needs a training.
    ``iterations``: the number of pruning steps can be given. ``library`` is the PyPI name of an optional library.
    """

    name: str
    unit: Unit
    scope: Scope
    compress: Compress
    source: str
    data: bool = False
    trains: bool = False
    iterations: bool = False
    library: str | None = None
