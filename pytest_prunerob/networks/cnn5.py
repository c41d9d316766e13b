"""CNN5, the network for MNIST of Merkle, Samsinger & Schöttle 2021 (arXiv:2108.08560, Sec. 3.4)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

CONVOLUTIONS = (6, 16)
DENSE = (120, 84)


def cnn5(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Two 5×5 convolutions and three dense layers: ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``.

    The paper gives the kinds of layers only; widths (those of LeCun's LeNet-5), paddings, max-poolings and
    activations (ReLU after convolutions, tanh after dense layers) are those of the code that the authors publish
    (FlorianMerkle/network-pruning-and-robustness). For MNIST and 10 classes it has 61,706 parameters.
    """
    channels, height, width = inputs
    sides = [(side // 2 - 4) // 2 for side in (height, width)]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, CONVOLUTIONS[0], 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(*CONVOLUTIONS, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dense1=nn.Linear(CONVOLUTIONS[1] * sides[0] * sides[1], DENSE[0]),
            tanh1=nn.Tanh(),
            dense2=nn.Linear(*DENSE),
            tanh2=nn.Tanh(),
            dense3=nn.Linear(DENSE[1], classes),
        )
    )
