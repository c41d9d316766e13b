"""ResNet-18, -34 and -50 for small images: He et al. 2016, arXiv:1512.03385, with a 3×3 stem and no first pooling.

Inputs are in [0, 1] and not normalised inside. The state-dict names are those of pytorch-cifar; the ResNet-18
checkpoint that pyautoattack ships (``examples/model_test.pt``) loads strictly with 3 channels and 10 classes.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


class _Basic(nn.Module):
    """Two 3×3 convolutions with batch normalisation, added to the input or its 1×1 projection."""

    expansion = 1

    def __init__(self, narrow: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(narrow, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        summed: Tensor = self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))
        return summed


class _Bottleneck(nn.Module):
    """Convolutions of 1×1, 3×3 and 1×1, the last four times as wide, added to the input or its 1×1 projection."""

    expansion = 4

    def __init__(self, narrow: int, width: int, stride: int) -> None:
        super().__init__()
        wide = self.expansion * width
        self.conv1 = nn.Conv2d(narrow, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.shortcut = _shortcut(narrow, wide, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        inner = self.relu2(self.bn2(self.conv2(inner)))
        summed: Tensor = self.relu3(self.bn3(self.conv3(inner)) + self.shortcut(x))
        return summed


def resnet18(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-18 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet(_Basic, (2, 2, 2, 2), channels=inputs[0], classes=classes)


def resnet34(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-34 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet(_Basic, (3, 4, 6, 3), channels=inputs[0], classes=classes)


def resnet50(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-50 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet(_Bottleneck, (3, 4, 6, 3), channels=inputs[0], classes=classes)


def _resnet(
    block: type[_Basic | _Bottleneck], blocks: tuple[int, int, int, int], *, channels: int, classes: int
) -> nn.Module:
    """``blocks`` are the numbers of blocks of the four stages; all but the first stage halve the sides."""
    times = block.expansion
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(WIDTHS[0]),
            relu=nn.ReLU(),
            layer1=_stage(block, WIDTHS[0], WIDTHS[0], blocks=blocks[0], stride=1),
            layer2=_stage(block, times * WIDTHS[0], WIDTHS[1], blocks=blocks[1], stride=2),
            layer3=_stage(block, times * WIDTHS[1], WIDTHS[2], blocks=blocks[2], stride=2),
            layer4=_stage(block, times * WIDTHS[2], WIDTHS[3], blocks=blocks[3], stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(times * WIDTHS[3], classes),
        )
    )


def _stage(block: type[_Basic | _Bottleneck], narrow: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = block(narrow, width, stride)
    return nn.Sequential(first, *(block(block.expansion * width, width, 1) for _ in range(blocks - 1)))


def _shortcut(narrow: int, wide: int, stride: int) -> nn.Sequential:
    """Nothing where input and output have the same shape, else a 1×1 projection."""
    if stride == 1 and narrow == wide:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(narrow, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide))
