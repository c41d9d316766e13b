"""Dynamic network surgery: weights are pruned and spliced back while the network under the masks trains on."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.iterative import settle
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.units import masks_of, removed, weights_of
from pytest_prunerob.datasets import Dataset

# The band of the two thresholds around that of a layer, and the probability (1 + γ·iteration)^-1 that a layer is looked
# at in an iteration: constants of the authors' code (github.com/yiwenguo/Dynamic-Network-Surgery).
LOW, HIGH = 0.9, 1.1
GAMMA = 1e-4
# The share of the training after which the masks stay (14,000 of the 16,000 iterations of their LeNet-5).
STOP = 0.875
# How often the thresholds follow the weights, in shares of the training (ours: estimating them looks at all weights).
FOLLOW = 0.01


class Masked(nn.Module):
    """The parametrisation W ⊙ T: what is pruned is zero in the forward, and every weight gets its gradient (Eq. 3)."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """``weight`` where it is kept; the gradient is that of the product, passed on to the whole weight."""
        return weight + (weight.masked_fill(~self.mask, 0.0) - weight).detach()


@dataclass
class Surgery:
    """The pruning and splicing of ``layers`` (parameter name → module) to the share ``amount`` of each.

    Called after every optimizer step. ``generator`` draws whether a layer is looked at.
    """

    layers: Mapping[str, nn.Module]
    amount: Fraction
    generator: torch.Generator
    iteration: int = 0
    followed: float = -1.0
    thresholds: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False

    def __call__(self, model: nn.Module, done: float) -> None:
        """Prune below the lower threshold and splice above the upper one; after ``STOP`` of the training no more."""
        if self.finished:
            return
        if done >= STOP:
            self.finish()
            return
        if done - self.followed >= FOLLOW:
            self.followed = done
            self.thresholds = {name: self._threshold(dense(layer)) for name, layer in self.layers.items()}
        for name, layer in self.layers.items():
            draw = float(torch.rand((), generator=self.generator))
            if draw < 1 / (1 + GAMMA * self.iteration):
                size, mask = dense(layer).abs(), parametrisation(layer).mask
                limit = self.thresholds[name]
                mask &= size > LOW * limit
                mask |= size > HIGH * limit
        self.iteration += 1

    def finish(self) -> None:
        """Land on the amount in every layer: of the weights between the thresholds, pruned ones stay pruned."""
        self.finished = True
        for name, layer in self.layers.items():
            mask = parametrisation(layer).mask
            score = dense(layer).abs() * torch.where(mask, HIGH / LOW, 1.0)
            whole = {name: torch.ones(mask.shape, dtype=torch.bool)}
            kept = weakest({name: score}, self.amount, scope="local", kept=whole, method=METHOD.name, unit="weights")
            mask.copy_(kept[name])

    def _threshold(self, weight: Tensor) -> Tensor:
        count = min(math.ceil(self.amount * weight.numel()), weight.numel() - 1)
        return weight.abs().flatten().kthvalue(max(count, 1)).values


def parametrisation(layer: nn.Module) -> Masked:
    """The mask under which the weight of ``layer`` trains."""
    found = layer.parametrizations.weight[0]  # type: ignore[index, union-attr]
    assert isinstance(found, Masked)
    return found


def dense(layer: nn.Module) -> Tensor:
    """The weight of ``layer`` with what is under the mask, detached."""
    weight = layer.parametrizations.weight.original  # type: ignore[union-attr]
    assert isinstance(weight, Tensor)
    return weight.detach()


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Train once more while each layer's weights below 0.9·t are pruned and those above 1.1·t spliced back.

    Pruned weights keep their values and gradients under the mask, so that one may grow back. Guo et al. set each
    layer's t = μ + c·σ of its ``|w|`` by hand; here t is the magnitude below which ``amount`` of the layer lies, so
    that c follows from it. It follows the weights during training. After 7/8 of the training ``ceil(amount · n)`` of
    the n weights of each layer are gone and stay so. Biases are kept.

    Raises:
        CompressionError: if the network has no convolution or linear weights.
    """
    assert trainer is not None  # METHOD.trains
    operated = copy.deepcopy(model)
    names = weights_of(operated, "weights", METHOD.name)
    layers = {name: operated.get_submodule(name.rpartition(".")[0]) for name in names}
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", Masked(layer.weight))  # type: ignore[arg-type]
    surgery = Surgery(layers, amount, generator)
    trainer.train(operated, Masks({}), after_step=surgery)
    if not surgery.finished:
        surgery.finish()
    kept = {name: parametrisation(layer).mask.cpu() for name, layer in layers.items()}
    for layer in layers.values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    masks = masks_of(operated, "weights", kept)
    settle(operated, masks, trainer)
    return CompressedModel(operated, masks, "weights", amount, removed(operated, "weights", names), (amount,))


METHOD = Method(
    "dynamic-network-surgery",
    "weights",
    "local",
    compress,
    "Guo, Yao & Chen 2016, arXiv:1608.04493",
    trains=True,
)
