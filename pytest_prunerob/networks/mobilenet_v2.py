"""MobileNetV2 for 32×32 images (Sandler et al. 2018, arXiv:1801.04381, with two strides of 2 less)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

STEM, HEAD = 32, 1280
# Expansion, width, number and first stride of the blocks (Table 2 of the paper; 24 channels have stride 1 here).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class _Inverted(nn.Module):
    """Expand by 1×1, filter each channel by 3×3, project by 1×1 without activation; with stride 1 add the input."""

    def __init__(self, narrow: int, wide: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * narrow
        self.conv1 = nn.Conv2d(narrow, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.residual = stride == 1
        self.shortcut = nn.Sequential()
        if self.residual and narrow != wide:
            self.shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        out: Tensor = self.bn3(self.conv3(inner))
        return out + self.shortcut(x) if self.residual else out


def mobilenet_v2(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Seventeen inverted residual blocks and a linear layer; their strides add up to 8.

    ``x: (N, C, H, W) in [0, 1]``, not normalised inside → logits ``(N, classes)``. State-dict names are those of
    kuangliu's pytorch-cifar, and as there the activation is ReLU (the paper's is ReLU6) and a block of stride 1 that
    changes its width adds a 1×1 projection.
    """
    blocks, narrow = [], STEM
    for expansion, wide, count, first in STAGES:
        for number in range(count):
            blocks.append(_Inverted(narrow, wide, expansion, first if number == 0 else 1))
            narrow = wide
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(inputs[0], STEM, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(STEM),
            relu1=nn.ReLU(),
            layers=nn.Sequential(*blocks),
            conv2=nn.Conv2d(narrow, HEAD, 1, bias=False),
            bn2=nn.BatchNorm2d(HEAD),
            relu2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(HEAD, classes),
        )
    )
