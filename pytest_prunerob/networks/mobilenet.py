"""MobileNetV1 for 32×32 images (Howard et al. 2017, arXiv:1704.04861, with a stem of stride 1)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

STEM = 32
# Width and stride of every depthwise-separable convolution (Table 1 of the paper).
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_v1(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Thirteen depthwise-separable convolutions and a linear layer; their strides add up to 16.

    ``x: (N, C, H, W) in [0, 1]``, not normalised inside → logits ``(N, classes)``. State-dict names are those of
    kuangliu's pytorch-cifar.
    """
    layers, narrow = [], STEM
    for wide, stride in LAYERS:
        layers.append(_separable(narrow, wide, stride))
        narrow = wide
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(inputs[0], STEM, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(STEM),
            relu1=nn.ReLU(),
            layers=nn.Sequential(*layers),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(narrow, classes),
        )
    )


def _separable(narrow: int, wide: int, stride: int) -> nn.Sequential:
    """A 3×3 convolution of each channel alone, then a 1×1 convolution across the channels."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(narrow, narrow, 3, stride=stride, padding=1, groups=narrow, bias=False),
            bn1=nn.BatchNorm2d(narrow),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(narrow, wide, 1, bias=False),
            bn2=nn.BatchNorm2d(wide),
            relu2=nn.ReLU(),
        )
    )
