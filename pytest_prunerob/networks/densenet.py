"""DenseNets for 32×32 images (Huang et al. 2017, arXiv:1608.06993): bottleneck layers and halving transitions."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class _Layer(nn.Module):
    """``growth`` new channels from all channels so far, by a 1×1 and a 3×3 convolution; both go on."""

    def __init__(self, narrow: int, growth: int, *, new_first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(narrow, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.new_first = new_first

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(self.relu2(self.bn2(self.conv1(self.relu1(self.bn1(x))))))
        return torch.cat((new, x) if self.new_first else (x, new), dim=1)


def densenet121(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """DenseNet-121, growth 32, without the first pooling: ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``.

    Not normalised inside. State-dict names and the order of the channels are those of kuangliu's pytorch-cifar.
    """
    names = {"norm": "bn", "convolution": "conv", "head": "linear"}
    return _densenet(inputs[0], classes, blocks=(6, 12, 24, 16), growth=32, new_first=True, names=names)


def densenet_bc(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """DenseNet-BC with 100 layers and growth 12: ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``.

    Not normalised inside. State-dict names and the order of the channels are those of bearpaw's
    pytorch-classification, which publishes trained weights.
    """
    names = {"norm": "bn1", "convolution": "conv1", "head": "fc"}
    return _densenet(inputs[0], classes, blocks=(16, 16, 16), growth=12, new_first=False, names=names)


def _densenet(
    channels: int, classes: int, *, blocks: tuple[int, ...], growth: int, new_first: bool, names: dict[str, str]
) -> nn.Module:
    """Dense blocks of ``blocks`` layers with transitions between them; ``names`` are those of some modules."""
    width = 2 * growth
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False))
    for number, count in enumerate(blocks, start=1):
        layers = [_Layer(width + k * growth, growth, new_first=new_first) for k in range(count)]
        parts[f"dense{number}"] = nn.Sequential(*layers)
        width += count * growth
        if number < len(blocks):
            parts[f"trans{number}"] = _transition(width, names)
            width //= 2
    parts["bn"] = nn.BatchNorm2d(width)
    parts["relu"] = nn.ReLU()
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts[names["head"]] = nn.Linear(width, classes)
    return nn.Sequential(parts)


def _transition(width: int, names: dict[str, str]) -> nn.Sequential:
    """Half the channels, half the side."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts[names["norm"]] = nn.BatchNorm2d(width)
    parts["relu"] = nn.ReLU()
    parts[names["convolution"]] = nn.Conv2d(width, width // 2, 1, bias=False)
    parts["pool"] = nn.AvgPool2d(2)
    return nn.Sequential(parts)
