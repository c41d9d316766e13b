"""ResNets for 32×32 colour images (He et al. 2016, arXiv:1512.03385, with a 3×3 stem and no first pooling)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = (2, 2, 2, 2)  # ResNet-18
WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    """Two 3×3 convolutions with batch normalisation, added to the input or its 1×1 projection."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.shortcut = nn.Sequential()
        if stride != 1 or narrow != wide:
            projection = nn.Conv2d(narrow, wide, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet18(nn.Module):
    """The CIFAR ResNet-18: ``x: (N, C, H, W) in [0, 1]``, not normalised inside → logits ``(N, classes)``.

    The state-dict names are those of the checkpoint that pyautoattack ships (``examples/model_test.pt``), which loads
    strictly with 3 channels and 10 classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks=BLOCKS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks=BLOCKS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks=BLOCKS[2], stride=2)
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], blocks=BLOCKS[3], stride=2)
        self.linear = nn.Linear(WIDTHS[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, classes)`` of ``x: (N, C, H, W)``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def resnet18(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """The CIFAR ResNet-18 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return ResNet18(inputs[0], classes)


def _stage(narrow: int, wide: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(narrow, wide, stride)
    return nn.Sequential(first, *(_Block(wide, wide, 1) for _ in range(blocks - 1)))
