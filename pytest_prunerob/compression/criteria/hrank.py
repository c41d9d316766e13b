"""Feature maps of low rank carry little information."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.criteria.criterion import Criterion
from pytest_prunerob.compression.feature_maps import activations, block_outputs, relative_rank
from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.datasets import Dataset


def filters(model: nn.Module, sample: Dataset | None) -> dict[str, Tensor]:
    """The mean rank of each filter's map after batch normalisation and activation, over the largest it can have.

    Lin et al. rank within a layer. Divided by the side of the map, layers of any resolution compare; within a layer
    the order is theirs.
    """
    assert sample is not None
    return {name: found.mean(dim=0) for name, found in activations(model, sample.x, relative_rank).items()}


def blocks(model: nn.Module, blocks: Sequence[Block], sample: Dataset | None) -> Tensor:
    """The mean relative rank of the ReLU of each block's sum, over channels and samples."""
    assert sample is not None
    found = block_outputs(model, blocks, sample.x, relative_rank, rectified=True)
    return torch.stack([found[block.name].mean() for block in blocks])


CRITERION = Criterion(
    "hrank",
    filters,
    blocks,
    "Lin et al. 2020, arXiv:2002.10179, HRank: the mean rank of the feature maps",
    samples=500,  # Lin et al.
)
