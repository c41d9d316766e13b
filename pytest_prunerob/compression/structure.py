"""What was physically taken out of a network or put into it, as plain values that can be stored and done again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from pytest_prunerob.compression.activations import with_largest
from pytest_prunerob.compression.channels import without_channels
from pytest_prunerob.compression.identities import without_blocks


@dataclass(frozen=True)
class Structure:
    """Changes of a network's layers.

    ``channels`` maps a layer to the output channels that were taken out of it (with what depends on them), ``blocks``
    are modules that were replaced by the identity, ``activations`` is the share of the outputs of each ReLU that is set
    to zero, as a rational in a string.
    """

    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    activations: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Structure:
        """The structure that ``as_json`` wrote."""
        channels = {name: tuple(indices) for name, indices in content["channels"].items()}
        return cls(channels, tuple(content["blocks"]), content["activations"])


def rebuild(model: nn.Module, structure: Structure, *, inputs: tuple[int, int, int]) -> nn.Module:
    """A copy of ``model`` with the layers that ``structure`` says, for weights that are loaded into it afterwards.

    ``inputs`` is the shape (C, H, W) of one sample.

    Raises:
        CompressionError: if the structure does not fit the network.
    """
    built = copy.deepcopy(model)
    if structure.blocks:
        built = without_blocks(built, structure.blocks)
    if structure.channels:
        built = without_channels(built, structure.channels, inputs=inputs)
    if structure.activations is not None:
        built = with_largest(built, structure.activations)
    return built
