"""Small weights are unimportant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.criteria.criterion import Criterion
from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.compression.units import magnitude
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.facts import convolutions, prunable_weights


def filters(model: nn.Module, sample: Dataset | None) -> dict[str, Tensor]:
    """The L1 norm of each filter over the number of its weights, so that layers of any fan-in compare."""
    return {
        f"{name}.weight": magnitude(layer.weight.detach(), "filters") for name, layer in convolutions(model).items()
    }


def blocks(model: nn.Module, blocks: Sequence[Block], sample: Dataset | None) -> Tensor:
    """The mean ``|w|`` over the convolution and linear weights of each branch; ours, the source has filters only."""
    weights = prunable_weights(model)
    own = [[weights[name].detach().flatten() for name in block.parameters if name in weights] for block in blocks]
    return torch.stack([torch.cat(parts).abs().mean(dtype=torch.float64) for parts in own])


CRITERION = Criterion("l1", filters, blocks, "Li et al. 2017, arXiv:1608.08710: the L1 norm of the weights")
