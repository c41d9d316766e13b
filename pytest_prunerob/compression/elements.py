"""Single structures of a network, filters and residual blocks, and taking one out for a moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.compression.units import following_norms
from pytest_prunerob.facts import convolutions


@dataclass(frozen=True)
class Element:
    """A filter, the ``index``-th of the convolution ``layer``, or the residual block ``layer`` (``index`` ``None``).

    ``parameters`` are the names of the parameters that are zero without it: entry ``index`` of each, or the whole.
    """

    layer: str
    index: int | None
    parameters: tuple[str, ...]


def filters(model: nn.Module) -> list[Element]:
    """Every filter of every convolution with its bias and the batch normalisation that reads it.

    Raises:
        CompressionError: if a network with batch normalisation cannot be traced.
    """
    norms = following_norms(model)
    found = []
    for name, layer in convolutions(model).items():
        owners = [name, *norms.get(name, [])]
        parameters = [f"{owner}.{kind}" for owner in owners for kind in ("weight", "bias")]
        if layer.bias is None:
            parameters.remove(f"{name}.bias")
        found += [Element(name, index, tuple(parameters)) for index in range(layer.out_channels)]
    return found


def whole_blocks(blocks: Sequence[Block]) -> list[Element]:
    """The blocks as elements."""
    return [Element(block.name, None, block.parameters) for block in blocks]


@contextmanager
def without(model: nn.Module, element: Element) -> Iterator[None]:
    """``model`` with the parameters of ``element`` at zero; afterwards they are what they were, bit for bit."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    where = slice(None) if element.index is None else slice(element.index, element.index + 1)
    entries = [parameters[name].detach()[where] for name in element.parameters]
    saved = [entry.clone() for entry in entries]
    try:
        for entry in entries:
            entry.zero_()
        yield
    finally:
        with torch.no_grad():
            for entry, before in zip(entries, saved, strict=True):
                entry.copy_(before)
