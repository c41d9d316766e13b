from __future__ import annotations

import sys
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.compression import METHODS, Structure, compress, rebuild
from pytest_prunerob.compression.channels import coupled, without_channels
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import parameters
from pytest_prunerob.networks import build

INPUTS = (1, 8, 8)


class Mixed(nn.Module):
    """Dense concatenations, a depthwise convolution, an addition, and a flattened image before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.c0 = nn.Conv2d(1, 6, 3, padding=1)
        self.b1, self.c1 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1)
        self.b2, self.c2 = nn.BatchNorm2d(10), nn.Conv2d(10, 4, 3, padding=1)
        self.b3, self.t = nn.BatchNorm2d(14), nn.Conv2d(14, 7, 1)
        self.dw, self.b4 = nn.Conv2d(7, 7, 3, groups=7, padding=1), nn.BatchNorm2d(7)
        self.pw, self.side = nn.Conv2d(7, 8, 1), nn.Conv2d(7, 8, 1, bias=False)
        self.linear = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c0((x - 0.5) / 0.2)
        x = torch.cat([x, self.c1(self.b1(x).relu())], 1)
        x = torch.cat([x, self.c2(self.b2(x).relu())], 1)
        x = self.t(self.b3(x).relu())
        x = (self.pw(self.b4(self.dw(x)).relu()) + self.side(x)).relu()
        logits: Tensor = self.linear(functional.avg_pool2d(x, 2).flatten(1))
        return logits


@pytest.fixture
def mixed() -> nn.Module:
    torch.manual_seed(0)
    model = Mixed()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    model.c0.weight.requires_grad_(False)
    return model.train()


def test_channels_that_go_together_are_found(mixed: nn.Module) -> None:
    groups = coupled(mixed, inputs=INPUTS)
    assert [(len(group), group[-1]) for group in groups] == [
        (6, {"c0": (5,)}),
        (4, {"c1": (3,)}),
        (4, {"c2": (3,)}),
        (7, {"t": (6,), "dw": (6,)}),
        (8, {"pw": (7,), "side": (7,)}),
    ]


def test_channels_whose_readers_ignore_them_go_without_a_trace(mixed: nn.Module) -> None:
    gone = {"c0": (0, 3, 5), "c1": (2,), "c2": (0, 1), "t": (6, 2), "side": (1, 4, 7)}
    read = {"c1": [0, 3, 5], "c2": [0, 3, 5, 8], "t": [0, 3, 5, 8, 10, 11], "pw": [2, 6], "side": [2, 6]}
    with torch.no_grad():
        for name, inputs in read.items():
            mixed.get_submodule(name).weight[:, inputs] = 0  # type: ignore[index]
        mixed.linear.weight.unflatten(1, (8, 16))[:, [1, 4, 7]] = 0  # type: ignore[operator, union-attr]
    before = {name: tensor.clone() for name, tensor in mixed.state_dict().items()}
    narrow = without_channels(mixed, gone, inputs=INPUTS)
    x = torch.rand(5, *INPUTS, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(narrow(x), mixed.eval()(x), rtol=1e-5, atol=1e-5)
    widths = {name: len(p) for name, p in narrow.named_parameters() if name.endswith("weight")}
    assert widths == {
        "c0.weight": 3, "b1.weight": 3, "c1.weight": 3, "b2.weight": 6, "c2.weight": 2, "b3.weight": 8,
        "t.weight": 5, "dw.weight": 5, "b4.weight": 5, "pw.weight": 5, "side.weight": 5, "linear.weight": 10,
    }  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in mixed.state_dict().items())
    assert {name for name, p in narrow.named_parameters() if not p.requires_grad} == {"c0.weight"}
    assert not any(module.training for module in narrow.modules())
    # What is stored is the structure: a copy of the dense network takes the weights of the narrow one.
    again = rebuild(mixed, Structure.from_json(Structure(gone).as_json()), inputs=INPUTS)
    again.load_state_dict(narrow.state_dict(), strict=True)
    assert torch.equal(again(x), narrow(x))


@pytest.mark.parametrize(
    ("channels", "sentence"),
    [
        ({"c9": [0]}, "unknown layer with channels 'c9': allowed are c0, .* did you mean 'c2'"),
        ({"c0": [6]}, r"c0 has the output channels 0 to 5, asked to go are \[6\]"),
        ({"t": [0], "dw": [1]}, r"t would lose the output channels \[1\] too, which go with those of other layers"),
        ({"c0": range(6)}, "c0 would lose all of its 6 output channels: at least one must stay"),
        (
            {"linear": [0]},
            r"torch-pruning cannot take channels out of Mixed \(its output would have the shape \(1, 9\)",
        ),
    ],
)
def test_channels_that_cannot_go(channels: dict[str, list[int]], sentence: str, mixed: nn.Module) -> None:
    with pytest.raises(CompressionError, match=f"^{sentence}"):
        without_channels(mixed, channels, inputs=INPUTS)


def test_what_torch_pruning_would_get_wrong_is_refused() -> None:
    grouped = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(512, 10))
    with pytest.raises(CompressionError, match="it has grouped convolutions that are not depthwise"):
        without_channels(grouped, {"0": [0]}, inputs=INPUTS)


def test_torch_pruning_is_an_extra(monkeypatch: pytest.MonkeyPatch, mixed: nn.Module) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(CompressionError, match=r"needs torch-pruning: pip install 'pytest-prunerob\[structured\]'$"):
        without_channels(mixed, {"c0": [0]}, inputs=INPUTS)


class Untrained:
    """A trainer that draws new weights and leaves them."""

    def fresh(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.01)

    def train(self, model: nn.Module, masks: object) -> None:
        model.eval()


@pytest.fixture
def sample() -> Dataset:
    return Dataset("one", torch.zeros(1, *INPUTS), torch.zeros(1, dtype=torch.int64), classes=10)


@pytest.mark.parametrize("amount", [Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)])
def test_compact_is_the_nearest_of_the_uniformly_narrower_networks(amount: Fraction, sample: Dataset) -> None:
    dense = build("cnn", inputs=INPUTS, classes=10, seed=0)
    found = compress(dense, method="compact", amount=amount, data=sample, trainer=Untrained())  # type: ignore[arg-type]
    # Every width that exists, by the formula of this network: 16, 32 and 64 channels, 16 places before the last layer.
    sizes = {}
    for step in range(1, 257):
        a, b, c = (max(1, int(Fraction(step, 256) * width + Fraction(1, 2))) for width in (16, 32, 64))
        sizes[a, b, c] = 10 * a + (9 * a + 1) * b + (9 * b + 1) * c + (16 * c + 1) * 10
    assert sizes[16, 32, 64] == parameters(dense) == 33546
    nearest = min(sizes.values(), key=lambda size: abs(size - (1 - amount) * 33546))
    assert parameters(found.model) == nearest
    assert found.achieved == Fraction(33546 - nearest, 33546)
    assert abs(found.achieved - amount) < Fraction(1, 100)
    assert found.layers["conv1"][1] == 160
    assert (found.unit, found.masks.kept, METHODS["compact"].library) == ("parameters", {}, "torch-pruning")
    assert all(bool((parameter == 0.01).all()) for parameter in found.model.parameters())
    assert found.structure is not None
    shapes = {name: tensor.shape for name, tensor in found.model.state_dict().items()}
    again = rebuild(dense, found.structure, inputs=INPUTS)
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes


def test_compact_says_what_it_cannot_do(sample: Dataset) -> None:
    dense = build("cnn", inputs=INPUTS, classes=10, seed=0)
    show = {"method": "compact", "data": sample, "trainer": Untrained()}
    with pytest.raises(CompressionError, match=r"Sequential keeps 200 of 33546 parameters, so at most 0.994 can go"):
        compress(dense, amount="0.999", **show)  # type: ignore[arg-type]
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(CompressionError, match="Sequential has no hidden layer that could be narrower"):
        compress(single, amount="0.5", **show)  # type: ignore[arg-type]
