"""The reference networks: one file per architecture family, one line in ``NETWORKS`` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pytest_prunerob.errors import ModelError, unknown
from pytest_prunerob.networks.cnn import cnn
from pytest_prunerob.networks.resnet import resnet18

__all__ = ["NETWORKS", "Network", "build"]


@dataclass(frozen=True)
class Network:
    """An architecture: how to build it from ``(C, H, W)`` and the number of classes, and where it comes from.

    ``inputs`` is the one input shape it is meant for, ``None`` if it takes others.
    """

    name: str
    build: Callable[[tuple[int, int, int], int], nn.Module]
    inputs: tuple[int, int, int] | None
    source: str


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("cnn", cnn, None, "this package: a small network for the digits"),
        Network("resnet18", resnet18, (3, 32, 32), "He et al. 2016, arXiv:1512.03385, in its CIFAR form"),
    )
}


def build(name: str, *, inputs: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """A freshly initialised network in eval mode, float32, on the CPU; ``inputs`` is ``(C, H, W)``.

    The weights follow from ``seed``; the global random state is left alone.

    Raises:
        ModelError: for an unknown name, an input shape the network does not take, or fewer than two classes.
    """
    if name not in NETWORKS:
        raise ModelError(unknown("network", name, NETWORKS))
    network = NETWORKS[name]
    if len(inputs) != 3 or min(inputs) < 1:
        raise ModelError(f"network {name!r}: inputs must be (channels, height, width), found {inputs}")
    if network.inputs is not None and inputs != network.inputs:
        raise ModelError(f"network {name!r}: inputs of shape {network.inputs} are allowed, found {inputs}")
    if classes < 2:
        raise ModelError(f"network {name!r}: at least 2 classes are needed, found {classes}")
    with torch.random.fork_rng(devices=[]):
        # The CPU's generator only: torch.manual_seed would also reseed every CUDA device.
        torch.default_generator.manual_seed(seed)
        return network.build(inputs, classes).float().eval()
