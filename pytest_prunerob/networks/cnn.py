"""A small convolutional network for small grey images such as the 8×8 digits."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

WIDTHS = (16, 32, 64)


def cnn(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Three 3×3 convolutions, the last of stride 2, and a linear layer: ``x: (N, C, H, W)`` → logits ``(N, classes)``.

    There is no normalisation layer, so that a sample's logits depend on nothing but the sample in any mode. On the
    digits it has 33,546 parameters.
    """
    channels, height, width = inputs
    # A convolution of stride 2 and padding 1 rounds half the side up.
    features = WIDTHS[2] * ((height + 1) // 2) * ((width + 1) // 2)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, WIDTHS[0], 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(WIDTHS[0], WIDTHS[1], 3, padding=1),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(WIDTHS[1], WIDTHS[2], 3, stride=2, padding=1),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            linear=nn.Linear(features, classes),
        )
    )
