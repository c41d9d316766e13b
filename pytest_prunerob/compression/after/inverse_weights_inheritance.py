"""Inverse weights inheritance: the large network begins where the small, sparse one ended."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.after.scheme import Scheme, given, measured
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Trainer
from pytest_prunerob.compression.units import DIMENSIONS
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError


def finish(
    compressed: CompressedModel,
    *,
    dense: nn.Module,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None,
) -> CompressedModel:
    """Train the network without masks, by PGD and for as many epochs as the dense model, from the sparse weights.

    The sparse network was trained by PGD after each pruning step. The large one inherits all its weights, zeros
    included, and may change every one of them: the result is a dense network, and what is measured on it is next to no
    sparsity. A filter that is zero throughout would get no gradient behind a ReLU; it begins at random, ours, with the
    bias and the normalisation that went with it.

    Raises:
        CompressionError: without a training, or for a network that was not pruned by masks of weights, kernels or
            filters.
    """
    trainer = given(trainer, SCHEME.name)
    if compressed.structure is not None or compressed.unit not in DIMENSIONS:
        raise CompressionError(
            f"{SCHEME.name} inherits the weights of a masked network; allowed are methods that prune "
            f"{', '.join(DIMENSIONS)}, found {compressed.unit}"
        )
    model = compressed.model
    begun = copy.deepcopy(dense)
    trainer.fresh(begun)
    random = dict(begun.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if name in compressed.masks.kept:
                empty = _empty_rows(compressed.masks.kept[name]).to(parameter.device)
                parameter[empty] = random[name][empty]
    trainer.train(model, Masks({}), adversarial=True)
    return measured(replace(compressed, masks=Masks({})))


def _empty_rows(kept: Tensor) -> Tensor:
    """Which entries along the first axis of the mask ``kept: (O, ...)`` are pruned throughout, ``(O,)``."""
    return ~kept.reshape(len(kept), -1).any(dim=1)


SCHEME = Scheme(
    "inverse-weights-inheritance",
    "adversarial",
    "Liao et al. 2022, Achieving adversarial robustness via sparsity, arXiv:2009.05423 (by its abstract)",
    finish,
    data=True,
    trains=True,
)
