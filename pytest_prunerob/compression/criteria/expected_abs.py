"""What is hardly ever active is unimportant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.criteria.criterion import Criterion
from pytest_prunerob.compression.feature_maps import activations, block_outputs, mean_absolute
from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.datasets import Dataset


def filters(model: nn.Module, sample: Dataset | None) -> dict[str, Tensor]:
    """The mean ``|a|`` of each filter after its batch normalisation and activation, over positions and samples."""
    assert sample is not None
    return {name: found.mean(dim=0) for name, found in activations(model, sample.x, mean_absolute).items()}


def blocks(model: nn.Module, blocks: Sequence[Block], sample: Dataset | None) -> Tensor:
    """The mean of the ReLU of each block's sum, over channels, positions and samples."""
    assert sample is not None
    found = block_outputs(model, blocks, sample.x, mean_absolute, rectified=True)
    return torch.stack([found[block.name].mean() for block in blocks])


CRITERION = Criterion(
    "expected-abs",
    filters,
    blocks,
    "Tan & Motani 2020 (ICML), DropNet: the mean absolute activation",
    samples=1000,  # ours: DropNet takes the whole training set
)
