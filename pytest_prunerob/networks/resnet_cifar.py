"""The narrow ResNets of 6n + 2 layers for CIFAR: He et al. 2016, arXiv:1512.03385, Sec. 4.2, with projections.

Where the shape changes, He et al. pad the shortcut with zeros (option A: 464,154 parameters for ResNet-32, 853,018 for
ResNet-56). Here it is a 1×1 projection with batch normalisation (option B), as in the ResNet-38 of RDI-Nets (Hu et al.
2020) and in the checkpoints of pytorch-cifar-models; the ResNet-56 of Jordao & Pedrini (2021) has projections too. Of a
padded shortcut torch-pruning cannot take channels out.

Inputs are in [0, 1] and not normalised inside. The state-dict names are those of RDI-Nets and pytorch-cifar-models. The
checkpoints of the latter for CIFAR-10 expect normalised inputs: give them to ``Model`` with
``mean=(0.4914, 0.4822, 0.4465)`` and ``std=(0.2023, 0.1994, 0.2010)``.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

WIDTHS = (16, 32, 64)


class _Block(nn.Module):
    """Two 3×3 convolutions with batch normalisation, added to the input or its 1×1 projection."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.downsample = nn.Sequential()
        if stride != 1 or narrow != wide:
            projection = nn.Conv2d(narrow, wide, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(wide))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        summed: Tensor = self.relu2(self.bn2(self.conv2(inner)) + self.downsample(x))
        return summed


def resnet32(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-32 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet(5, channels=inputs[0], classes=classes)


def resnet38(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-38 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet(6, channels=inputs[0], classes=classes)


def resnet56(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-56 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet(9, channels=inputs[0], classes=classes)


def _resnet(blocks: int, *, channels: int, classes: int) -> nn.Module:
    """Three stages of ``blocks`` blocks; the second and third halve the sides."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(WIDTHS[0]),
            relu=nn.ReLU(),
            layer1=_stage(WIDTHS[0], WIDTHS[0], blocks=blocks, stride=1),
            layer2=_stage(WIDTHS[0], WIDTHS[1], blocks=blocks, stride=2),
            layer3=_stage(WIDTHS[1], WIDTHS[2], blocks=blocks, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(WIDTHS[2], classes),
        )
    )


def _stage(narrow: int, wide: int, *, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(narrow, wide, stride), *(_Block(wide, wide, 1) for _ in range(blocks - 1)))
