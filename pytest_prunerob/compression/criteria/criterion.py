"""What a criterion is: how it scores the filters and the residual blocks of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.datasets import Dataset


@dataclass(frozen=True)
class Criterion:
    """How unimportant structures are told: the lowest scores go, ranked over the whole network.

    ``filters(model, sample)`` gives (filters,) by weight name of each convolution, ``blocks(model, blocks, sample)``
    gives (blocks,). The model is in eval mode. ``samples`` is how many training samples it is given, drawn without
    replacement; 0: it looks at the weights only and is given ``None``. ``library`` is what does the work.
    """

    name: str
    filters: Callable[[nn.Module, Dataset | None], Mapping[str, Tensor]]
    blocks: Callable[[nn.Module, Sequence[Block], Dataset | None], Tensor]
    source: str
    samples: int = 0
    library: str | None = None
