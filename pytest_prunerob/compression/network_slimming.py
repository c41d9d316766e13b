"""Network slimming: the scales of batch normalisation are trained towards zero, and the smallest channels go."""

from __future__ import annotations

import copy
from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.iterative import settle
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.units import following_norms, masks_of, removed
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

# Weight λ of the L1 norm of the scales in the loss (Liu et al. 2017, Sec. 4.3, and the default of their code).
PENALTY = 1e-4


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Train once more with λ·Σ|γ| in the loss, remove the ``ceil(amount · C)`` channels of smallest ``|γ|``, fine-tune.

    γ are the scales of the batch normalisations that read a convolution; one threshold holds for the whole network and
    the best channel of each layer stays. Convolutions that no normalisation reads keep their filters and do not count.
    Liu et al. train with the penalty from the beginning; here that training goes on from the dense model.

    Raises:
        CompressionError: if no batch normalisation follows a convolution, or ``amount`` would empty a layer.
    """
    assert trainer is not None  # METHOD.trains
    norms = following_norms(model)
    if not norms:
        raise CompressionError(
            f"{METHOD.name} ranks channels by the scales of batch normalisations that follow convolutions, and "
            f"{type(model).__name__} has none; allowed are networks with batch normalisation, such as resnet18"
        )
    slim = copy.deepcopy(model)

    def scales(of: nn.Module, layer: str) -> list[Tensor]:
        found = [of.get_submodule(norm).weight for norm in norms[layer]]
        return [scale for scale in found if isinstance(scale, Tensor)]

    def penalty(of: nn.Module) -> Tensor:
        return PENALTY * torch.stack([scale.abs().sum() for layer in norms for scale in scales(of, layer)]).sum()

    trainer.train(slim, Masks({}), penalty=penalty)
    # A channel that several normalisations read is worth what the one that uses it most makes of it.
    scores = {
        f"{layer}.weight": torch.stack([scale.detach().abs() for scale in scales(slim, layer)]).amax(0)
        for layer in norms
    }
    whole = {name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()}
    kept = weakest(scores, amount, scope="global", kept=whole, method=METHOD.name, unit="filters")
    masks = masks_of(slim, "filters", kept)
    settle(slim, masks, trainer)
    return CompressedModel(slim, masks, "filters", amount, removed(slim, "filters", scores), (amount,))


METHOD = Method(
    "network-slimming",
    "filters",
    "global",
    compress,
    "Liu, Li, Shen, Huang, Yan & Zhang 2017, arXiv:1708.06519",
    trains=True,
)
