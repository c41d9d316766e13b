"""ResNets with pre-activation blocks: He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027.

The sum of the last block is normalised and activated, as the paper says (appendix). ResNet-18 is the CIFAR form with a
3×3 stem. ResNet-8 has the three stages of the 6n + 2 layers of He et al. 2016 (arXiv:1512.03385, Sec. 4.2) with n = 1.

Merkle et al. 2021 (arXiv:2108.08560) name both by their depth and their blocks. The code that they publish
(FlorianMerkle/network-pruning-and-robustness) differs from these: a ReLU follows every convolution, nothing skips a
block that changes the shape, and ResNet-8 has a stem of 32 filters and three such blocks of 64, 128 and 256, all of
stride 2, so that it has no block with an identity shortcut.

Inputs are in [0, 1] and not normalised inside. The state-dict names are those of RobustBench's pre-activation ResNets
with ``bn_before_fc``, whose checkpoints expect normalised inputs: give them to ``Model`` with their ``mean`` and
``std``.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class _Block(nn.Module):
    """Twice batch normalisation, ReLU and a 3×3 convolution, added to the input.

    Where the shape changes, a 1×1 projection of the first activation is added instead.
    """

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or narrow != wide:
            self.shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        inner: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return inner + (x if self.shortcut is None else self.shortcut(active))


def preact_resnet8(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """The pre-activation ResNet-8 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet((16, 32, 64), blocks=1, channels=inputs[0], classes=classes)


def preact_resnet18(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """The pre-activation ResNet-18 for ``inputs = (C, H, W)``: ``x: (N, C, H, W)`` → logits ``(N, classes)``."""
    return _resnet((64, 128, 256, 512), blocks=2, channels=inputs[0], classes=classes)


def _resnet(widths: tuple[int, ...], *, blocks: int, channels: int, classes: int) -> nn.Module:
    """A stage of ``blocks`` blocks for each of ``widths``; all but the first halve the sides."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
    for number, (narrow, wide) in enumerate(zip((widths[0], *widths), widths, strict=False), start=1):
        first = _Block(narrow, wide, 1 if number == 1 else 2)
        layers[f"layer{number}"] = nn.Sequential(first, *(_Block(wide, wide, 1) for _ in range(blocks - 1)))
    layers["bn"] = nn.BatchNorm2d(widths[-1])
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers)
