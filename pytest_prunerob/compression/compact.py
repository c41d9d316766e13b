"""A compact network of the same size, trained from scratch: the control for everything that prunes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression.channels import Channel, coupled, without_channels
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.structure import Structure
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import parameters


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """The architecture of ``model``, uniformly narrower and trained from new random weights as ``model`` was.

    All hidden layers lose one common share of their output channels, rounded for each and down to no less than one
    channel. Of all such networks it is the one whose number of parameters is nearest to ``(1 - amount)`` of that of
    ``model``, so that what is measured differs from ``amount`` by up to half the step between two widths.

    Raises:
        CompressionError: without torch-pruning, a training or training samples, for a network that torch-pruning
            cannot follow, or if one channel in every layer is still more than asked.
    """
    if trainer is None or data is None:
        raise CompressionError(f"{METHOD.name} trains the network itself: name a dataset and a training")
    groups = coupled(model, inputs=data.inputs)
    if not groups:
        raise CompressionError(f"{METHOD.name}: {type(model).__name__} has no hidden layer that could be narrower")
    channels = _nearest(model, groups, (1 - amount) * parameters(model), data.inputs)
    narrow = without_channels(model, channels, inputs=data.inputs)
    trainer.fresh(narrow)
    trainer.train(narrow, Masks({}))
    layers = _removed(model, narrow)
    return CompressedModel(narrow, Masks({}), "parameters", amount, layers, (amount,), Structure(channels))


def _nearest(
    model: nn.Module, groups: Sequence[Sequence[Channel]], wanted: Fraction, inputs: tuple[int, int, int]
) -> Mapping[str, tuple[int, ...]]:
    """The channels that go so that nearest to ``wanted`` parameters are left; of two as near the larger network."""
    sizes = {len(group) for group in groups}
    # The widths at which a layer gains its next channel, 1/2 of a channel before it is whole.
    widths = sorted({Fraction(2 * count - 1, 2 * size) for size in sizes for count in range(1, size + 1)})

    def left(width: Fraction) -> int:
        return parameters(without_channels(model, _gone(groups, width), inputs=inputs))

    low, high = 0, len(widths) - 1
    least = left(widths[low])
    if wanted < least:
        total = parameters(model)
        raise CompressionError(
            f"{METHOD.name}: with one channel in every layer {type(model).__name__} keeps {least} of {total} "
            f"parameters, so at most {float(1 - Fraction(least, total)):.4g} can go"
        )
    counts = {low: least, high: parameters(model)}
    while high - low > 1:
        middle = (low + high) // 2
        counts[middle] = left(widths[middle])
        low, high = (middle, high) if counts[middle] <= wanted else (low, middle)
    best = high if abs(counts[high] - wanted) <= abs(counts[low] - wanted) else low
    return _gone(groups, widths[best])


def _gone(groups: Sequence[Sequence[Channel]], width: Fraction) -> dict[str, tuple[int, ...]]:
    """By layer the output channels that go at ``width``: the last ones, since all weights begin anew."""
    gone: dict[str, tuple[int, ...]] = {}
    for group in groups:
        kept = max(1, int(width * len(group) + Fraction(1, 2)))
        for channel in group[kept:]:
            for name, own in channel.items():
                gone[name] = tuple(sorted((*gone.get(name, ()), *own)))
    return gone


def _removed(dense: nn.Module, narrow: nn.Module) -> dict[str, tuple[int, int]]:
    """By module with own parameters: how many of them are gone and how many there were."""
    counts = [
        {
            name: sum(parameter.numel() for parameter in module.parameters(recurse=False))
            for name, module in model.named_modules()
        }
        for model in (dense, narrow)
    ]
    return {name: (total - counts[1][name], total) for name, total in counts[0].items() if total}


METHOD = Method(
    "compact",
    "parameters",
    "global",
    compress,
    "this package: the control that the compression review asks for (Sec. IV-B); Ye et al. 2019, arXiv:1903.12561",
    data=True,
    trains=True,
    library="torch-pruning",
)
