"""VGG networks with batch normalisation for 32×32 images (Simonyan & Zisserman 2015, arXiv:1409.1556)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

WIDTHS = (64, 128, 256, 512, 512)
# Convolutions of each width, by the number of layers with weights that the paper counts.
DEPTHS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(inputs: tuple[int, int, int], classes: int, *, depth: int) -> nn.Module:
    """3×3 convolutions with biases, each with batch normalisation and ReLU, and five poolings to a single linear layer.

    ``x: (N, C, H, W) in [0, 1]``, not normalised inside → logits ``(N, classes)``. The form for CIFAR keeps the
    convolutions of the paper and replaces its three dense layers. State-dict names are those of kuangliu's
    pytorch-cifar: ``features.N``, ``classifier``.
    """
    layers: list[nn.Module] = []
    narrow = inputs[0]
    for wide, count in zip(WIDTHS, DEPTHS[depth], strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(narrow, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
            narrow = wide
        layers.append(nn.MaxPool2d(2))
    # At 32 pixels one value of each channel is left and this does nothing; it lets larger images in.
    layers.append(nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=nn.Linear(narrow, classes))
    )


vgg11 = partial(vgg, depth=11)
vgg16 = partial(vgg, depth=16)
vgg19 = partial(vgg, depth=19)
