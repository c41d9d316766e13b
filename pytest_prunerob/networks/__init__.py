"""The reference networks: one file per architecture family, one line in ``NETWORKS`` each.

Layers start from PyTorch's own random weights, so that ``training.fresh`` draws from the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pytest_prunerob.errors import ModelError, unknown
from pytest_prunerob.networks import imagenet
from pytest_prunerob.networks.cnn import cnn
from pytest_prunerob.networks.cnn5 import cnn5
from pytest_prunerob.networks.densenet import densenet121, densenet_bc
from pytest_prunerob.networks.hydra import cnn_large, cnn_small
from pytest_prunerob.networks.lenet import lenet_5, lenet_300_100
from pytest_prunerob.networks.mlp import mlp_100
from pytest_prunerob.networks.mobilenet import mobilenet_v1
from pytest_prunerob.networks.mobilenet_v2 import mobilenet_v2
from pytest_prunerob.networks.preact import preact_resnet8, preact_resnet18
from pytest_prunerob.networks.resnet import resnet18, resnet34, resnet50
from pytest_prunerob.networks.resnet_cifar import resnet32, resnet38, resnet56
from pytest_prunerob.networks.vgg import vgg11, vgg16, vgg19
from pytest_prunerob.networks.wrn import wrn_16_4, wrn_28_4, wrn_28_10

__all__ = ["NETWORKS", "Network", "build"]


@dataclass(frozen=True)
class Network:
    """An architecture: how to build it from ``(C, H, W)`` and the number of classes, and where it comes from.

    It takes images with sides of at least ``least`` pixels and with ``channels`` channels (``None``: any number), or
    nothing but ``exact`` = (C, H, W) where that is given.
    """

    name: str
    build: Callable[[tuple[int, int, int], int], nn.Module]
    source: str
    least: int = 1
    channels: int | None = None
    exact: tuple[int, int, int] | None = None

    def takes(self, inputs: tuple[int, int, int]) -> bool:
        """Whether images of shape ``inputs`` = (C, H, W) can go in."""
        if self.exact is not None:
            return inputs == self.exact
        return min(inputs[1:]) >= self.least and self.channels in (None, inputs[0])

    @property
    def allowed(self) -> str:
        """The inputs it takes, in words."""
        if self.exact is not None:
            return f"inputs of shape {self.exact}"
        channels = f"{self.channels} channels" if self.channels is not None else "any number of channels"
        return f"inputs with {channels} and sides of at least {self.least}"


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("cnn", cnn, "this package: a small network for the digits"),
        Network("resnet18", resnet18, "He et al. 2016, arXiv:1512.03385, in its CIFAR form"),
        Network("resnet34", resnet34, "He et al. 2016, arXiv:1512.03385, in its CIFAR form"),
        Network("resnet50", resnet50, "He et al. 2016, arXiv:1512.03385, in its CIFAR form"),
        Network("resnet32", resnet32, "He et al. 2016, arXiv:1512.03385, Sec. 4.2, with projections (option B)"),
        Network("resnet38", resnet38, "Hu et al. 2020, arXiv:2002.10025: 6n + 2 layers, with projections (option B)"),
        Network("resnet56", resnet56, "He et al. 2016, arXiv:1512.03385, Sec. 4.2, with projections (option B)"),
        Network("preact-resnet8", preact_resnet8, "He et al. 2016, arXiv:1603.05027; the depth of Merkle et al. 2021"),
        Network("preact-resnet18", preact_resnet18, "He et al. 2016, arXiv:1603.05027, in its CIFAR form"),
        Network("wrn-16-4", wrn_16_4, "Zagoruyko & Komodakis 2016, arXiv:1605.07146"),
        Network("wrn-28-4", wrn_28_4, "Zagoruyko & Komodakis 2016, arXiv:1605.07146"),
        Network("wrn-28-10", wrn_28_10, "Zagoruyko & Komodakis 2016, arXiv:1605.07146"),
        Network("vgg11", vgg11, "Simonyan & Zisserman 2015, arXiv:1409.1556, in its CIFAR form, with BN", least=32),
        Network("vgg16", vgg16, "Simonyan & Zisserman 2015, arXiv:1409.1556, in its CIFAR form, with BN", least=32),
        Network("vgg19", vgg19, "Simonyan & Zisserman 2015, arXiv:1409.1556, in its CIFAR form, with BN", least=32),
        Network("mobilenet-v1", mobilenet_v1, "Howard et al. 2017, arXiv:1704.04861, in its CIFAR form"),
        Network("mobilenet-v2", mobilenet_v2, "Sandler et al. 2018, arXiv:1801.04381, in its CIFAR form"),
        Network("densenet121", densenet121, "Huang et al. 2017, arXiv:1608.06993, in its CIFAR form", least=8),
        Network("densenet-bc", densenet_bc, "Huang et al. 2017, arXiv:1608.06993: L = 100, k = 12", least=4),
        Network("cnn5", cnn5, "Merkle et al. 2021, arXiv:2108.08560, and their code", least=12),
        Network("lenet-300-100", lenet_300_100, "LeCun et al. 1998; with ReLU as in Han et al. 2015, arXiv:1506.02626"),
        Network("lenet-5", lenet_5, "LeCun et al. 1998; in Caffe's form, as in Han et al. 2015", least=16),
        Network(
            "cnn-small", cnn_small, "Sehwag et al. 2020 (HYDRA), after Wong et al. 2018, arXiv:1805.12514", least=4
        ),
        Network(
            "cnn-large", cnn_large, "Sehwag et al. 2020 (HYDRA), after Wong et al. 2018, arXiv:1805.12514", least=4
        ),
        Network("mlp-100", mlp_100, "Gorsline et al. 2021, arXiv:2105.00227; the activation is ours"),
        Network("imagenet-alexnet", imagenet.alexnet, "torchvision: alexnet", least=63, channels=3),
        Network("imagenet-vgg16-bn", imagenet.vgg16_bn, "torchvision: vgg16_bn", least=32, channels=3),
        Network("imagenet-resnet18", imagenet.resnet18, "torchvision: resnet18", channels=3),
        Network("imagenet-resnet50", imagenet.resnet50, "torchvision: resnet50", channels=3),
        Network("imagenet-mobilenet-v2", imagenet.mobilenet_v2, "torchvision: mobilenet_v2", channels=3),
        Network("imagenet-densenet121", imagenet.densenet121, "torchvision: densenet121", least=29, channels=3),
        Network("imagenet-inception-v3", imagenet.inception_v3, "torchvision: inception_v3", least=75, channels=3),
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
    if not network.takes(inputs):
        raise ModelError(f"network {name!r}: {network.allowed} are allowed, found {inputs}")
    if classes < 2:
        raise ModelError(f"network {name!r}: at least 2 classes are needed, found {classes}")
    with torch.random.fork_rng(devices=[]):
        # The CPU's generator only: torch.manual_seed would also reseed every CUDA device.
        torch.default_generator.manual_seed(seed)
        return network.build(inputs, classes).float().eval()
