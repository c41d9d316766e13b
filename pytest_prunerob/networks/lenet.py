"""LeNet-300-100 and LeNet-5 (LeCun et al. 1998) in the forms that the literature on pruning uses."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def lenet_300_100(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Three dense layers: ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``.

    ReLU as in Han et al. 2015 (arXiv:1506.02626) and since; LeCun's had other activations.
    """
    channels, height, width = inputs
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            ip1=nn.Linear(channels * height * width, 300),
            relu1=nn.ReLU(),
            ip2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            ip3=nn.Linear(100, classes),
        )
    )


def lenet_5(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Two 5×5 convolutions and two dense layers: ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``.

    This is Caffe's LeNet (``examples/mnist/lenet.prototxt``) with its names, the one that Han et al. 2015 prune: 431
    thousand parameters, max-poolings, no activation but one ReLU. LeCun's LeNet-5 has 60 thousand.
    """
    channels, height, width = inputs
    sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            ip1=nn.Linear(50 * sides[0] * sides[1], 500),
            relu1=nn.ReLU(),
            ip2=nn.Linear(500, classes),
        )
    )
