"""A multilayer perceptron with one hidden layer of 100 neurons (Gorsline, Smith & Merkel 2021, arXiv:2105.00227)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

HIDDEN = 100


def mlp_100(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Two dense layers with a ReLU (ours): ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``."""
    channels, height, width = inputs
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden=nn.Linear(channels * height * width, HIDDEN),
            relu=nn.ReLU(),
            linear=nn.Linear(HIDDEN, classes),
        )
    )
