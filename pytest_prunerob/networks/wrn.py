"""Wide residual networks: Zagoruyko & Komodakis 2016, arXiv:1605.07146, without dropout.

Inputs are in [0, 1] and not normalised inside. The state-dict names are those of TRADES, HYDRA and RobustBench; some of
their checkpoints also hold a ``sub_block1`` that no forward calls, which has to be left out for a strict load.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

STEM = 16
WIDTHS = (16, 32, 64)  # times the widening factor


class _Block(nn.Module):
    """The pre-activation block of :mod:`pytest_prunerob.networks.preact` under the names of these checkpoints."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.convShortcut: nn.Conv2d | None = None
        if narrow != wide:
            self.convShortcut = nn.Conv2d(narrow, wide, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        inner: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return inner + (x if self.convShortcut is None else self.convShortcut(active))


def wrn_16_4(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """WRN-16-4 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _wrn(16, 4, channels=inputs[0], classes=classes)


def wrn_28_4(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """WRN-28-4 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _wrn(28, 4, channels=inputs[0], classes=classes)


def wrn_28_10(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """WRN-28-10 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _wrn(28, 10, channels=inputs[0], classes=classes)


def _wrn(depth: int, factor: int, *, channels: int, classes: int) -> nn.Module:
    """Of the 6n + 4 layers of ``depth``, n are the blocks of a stage; all but the first stage halve the sides."""
    blocks = (depth - 4) // 6
    first, second, third = (factor * width for width in WIDTHS)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, STEM, 3, padding=1, bias=False),
            block1=_stage(STEM, first, blocks=blocks, stride=1),
            block2=_stage(first, second, blocks=blocks, stride=2),
            block3=_stage(second, third, blocks=blocks, stride=2),
            bn1=nn.BatchNorm2d(third),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(third, classes),
        )
    )


def _stage(narrow: int, wide: int, *, blocks: int, stride: int) -> nn.Sequential:
    layer = nn.Sequential(_Block(narrow, wide, stride), *(_Block(wide, wide, 1) for _ in range(blocks - 1)))
    return nn.Sequential(OrderedDict(layer=layer))
