"""NNCF's filter pruning: importances, layers that belong together, layers that are exempt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.compression import compress
from pytest_prunerob.compression.clusters import clusters
from pytest_prunerob.compression.nncf import geometric_median, l1, l2, prunable
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.networks import build
from tests.conformance.quick import residual


class Stage(nn.Module):
    """A stem and two blocks of which the first has a projection of stride 1, as the first stage of a ResNet-50."""

    def __init__(self, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)
        self.inner1, self.outer1 = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1)
        self.projection = nn.Conv2d(3, 4, 1, stride=stride)
        self.norm = nn.BatchNorm2d(4)
        self.inner2, self.outer2 = nn.Conv2d(4, 5, 1, stride=stride), nn.Conv2d(5, 4, 1)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = functional.relu(self.outer1(self.inner1(x).relu()) + self.norm(self.projection(x)))
        x = torch.add(x, self.outer2(self.inner2(x).relu()))
        logits: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class Kinds(nn.Module):
    """Depthwise and grouped convolutions, a concatenation, a gate, and a last convolution that gives the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.wide = nn.Conv2d(4, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
        self.both = nn.Conv2d(8, 4, 1)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.gated, self.gate = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.logits = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.wide(self.stem(x / 2 - 1)).relu())
        x = self.grouped(self.both(torch.cat([self.left(x), self.right(x)], dim=1)))
        x = self.gated(x) * self.gate(x).sigmoid()
        return self.logits(x).mean((2, 3))


def test_convolutions_belong_together_where_their_outputs_meet() -> None:
    found = clusters(Stage(), "why")
    assert found.joined == (("stem",), ("inner1",), ("outer1", "projection", "outer2"), ("inner2",))
    assert (found.first, found.last, found.split) == ({"stem"}, set(), set())
    found = clusters(Kinds(), "why")
    assert found.joined == (
        *(("stem",), ("wide", "depthwise"), ("left",), ("right",), ("both",), ("grouped",), ("gated", "gate")),
        ("logits",),
    )
    assert (found.first, found.last, found.split) == ({"stem"}, {"logits"}, {"both"})
    blocks = [f"blocks.{number}.conv2" for number in range(5)]
    found = clusters(residual(), "why")
    assert found.joined == (("conv", *blocks), *((f"blocks.{number}.conv1",) for number in range(5)))


def test_layers_are_exempt_with_all_they_are_joined_with() -> None:
    assert prunable(Stage(), "m") == [("inner1",), ("outer1", "projection", "outer2"), ("inner2",)]
    # A stride in the projection exempts the stream that it joins, one in the block that block's own layer.
    assert prunable(Stage(stride=(1, 2)), "m") == [("inner1",)]
    assert prunable(Kinds(), "m") == [("wide", "depthwise"), ("left",), ("right",), ("gated", "gate")]
    resnet = build("resnet18", inputs=(3, 32, 32), classes=10, seed=0)
    names = [name for group in prunable(resnet, "m") for name in group]
    assert names == ["layer1.0.conv1", *(f"layer{stage}.1.conv1" for stage in (1, 2, 3, 4))]
    with pytest.raises(
        CompressionError, match=r"^nncf-l2 exempts convolutions that .* and Sequential has no others; allowed "
    ):
        compress(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2)), method="nncf-l2", amount="1/2")
    with pytest.raises(CompressionError, match=r"filters of convolutions and Sequential has none"):
        compress(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), method="nncf-l2", amount="1/2")


def test_joined_layers_lose_the_filters_of_the_smallest_sums_and_what_reads_them() -> None:
    model = Stage()
    # The sums of L1 norms are 10, 9, 8, 7; no layer alone has that order.
    norms = {"outer1": [1.0, 6.0, 2.0, 3.0], "projection": [8.0, 1.0, 1.0, 2.0], "outer2": [1.0, 2.0, 5.0, 2.0]}
    with torch.no_grad():
        for name, sizes in norms.items():
            weight = model.get_parameter(f"{name}.weight")
            weight.copy_((torch.tensor(sizes) / weight[0].numel()).reshape(4, 1, 1, 1).expand_as(weight))
    found = compress(model, method="nncf-l1", amount="1/2", iterations=3)
    assert found.layers == {
        "inner1": (3, 5),
        "outer1": (2, 4),
        "projection": (2, 4),
        "inner2": (3, 5),
        "outer2": (2, 4),
    }
    assert [float(step) for step in found.steps] == [0.1, 0.32918, 0.5]
    for name in ("outer1.bias", "outer2.bias", "projection.bias", "norm.weight", "norm.bias"):
        assert found.masks.kept[name].tolist() == [True, True, False, False]
    assert not {"stem.weight", "linear.weight"} & found.masks.kept.keys()
    assert compress(model, method="nncf-l1", amount="0.9").layers["outer1"] == (3, 4)
    # What the paper prunes by 10 % takes one step.
    assert compress(model, method="nncf-l1", amount="0.1").steps == (found.steps[0],)


def test_the_importances_are_those_of_the_papers() -> None:
    filters = torch.tensor([[3.0, -4.0], [0.0, 4.5], [3.0, 4.0]], dtype=torch.float64)
    assert l1(filters).tolist() == [7, 4.5, 7]
    assert l2(filters).tolist() == [5, 4.5, 5]
    sides = [(9 + 8.5**2) ** 0.5, 8.0, (9 + 0.5**2) ** 0.5]
    expected = torch.tensor([sides[0] + sides[1], sides[0] + sides[2], sides[1] + sides[2]], dtype=torch.float64)
    assert torch.allclose(geometric_median(filters), expected)
    # A filter that is gone is no neighbour.
    gone = torch.cat([filters, torch.zeros(1, 2, dtype=torch.float64)])
    assert torch.allclose(geometric_median(gone)[:3], expected)
