"""Optimizers, learning rates, and what the validation loss decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pytest_prunerob.training.recipes import Recipe

# By how much the loss has to fall for the learning rate to stay, as in Keras's ReduceLROnPlateau.
LEAST_FALL = 1e-4


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of ``recipe`` over all parameters."""
    given, decay = model.parameters(), recipe.weight_decay
    if recipe.optimizer == "sgd":
        momentum, nesterov = recipe.momentum, recipe.nesterov
        return torch.optim.SGD(given, lr=recipe.lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(given, lr=recipe.lr, weight_decay=decay)


def rate(recipe: Recipe, done: float, epoch: int, watch: Watch) -> float:
    """The learning rate after ``done`` (0 to 1) of the training, in ``epoch`` (from 0)."""
    if recipe.schedule == "cosine":
        return recipe.lr * cosine(done, recipe.warmup)
    decay = 1.0 if recipe.decay is None else recipe.decay
    if recipe.schedule == "multistep":
        return recipe.lr * decay ** sum(milestone <= epoch for milestone in recipe.milestones)
    return recipe.lr * decay**watch.drops  # stays 0 under a constant rate


def cosine(done: float, warmup: float) -> float:
    """The share of the peak learning rate after ``done`` of the training: up linearly, down along a cosine."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


@dataclass(frozen=True)
class Watch:
    """What the validation losses so far have led to; plain values, ``None`` before the first.

    ``best`` is the least loss and ``waited`` the epochs since then; ``level`` and ``stayed`` are the same for the
    learning rate, which has been lowered ``drops`` times.
    """

    best: float | None = None
    waited: int = 0
    level: float | None = None
    stayed: int = 0
    drops: int = 0

    def after(self, loss: float, recipe: Recipe) -> Watch:
        """The same after an epoch with the validation loss ``loss``.

        Counted as Keras does it, which Merkle et al. 2021 used: the rate falls once ``patience`` epochs in a row have
        not brought the loss down by ``LEAST_FALL`` (torch's own ReduceLROnPlateau waits for one more).
        """
        fell = self.best is None or loss < self.best
        watched = replace(self, best=loss if fell else self.best, waited=0 if fell else self.waited + 1)
        if recipe.schedule != "plateau" or recipe.patience is None:
            return watched
        if self.level is None or loss < self.level - LEAST_FALL:
            return replace(watched, level=loss, stayed=0)
        if self.stayed + 1 >= recipe.patience:
            return replace(watched, stayed=0, drops=self.drops + 1)
        return replace(watched, stayed=self.stayed + 1)

    def over(self, recipe: Recipe) -> bool:
        """Whether training ends here; the weights stay those of the last epoch, as is Keras's default."""
        return recipe.stop_patience is not None and self.waited >= recipe.stop_patience

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Watch:
        """Read back what ``dataclasses.asdict`` gave."""
        return cls(**values)
