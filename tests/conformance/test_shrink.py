"""What is zero is taken out, and nothing else: the same logits, the same outcomes of attacks, fewer parameters."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import prune

from pytest_prunerob import Model, pgd, shrink
from pytest_prunerob.compression import apply, compress, rebuild
from pytest_prunerob.compression import shrink as module
from pytest_prunerob.compression.channels import elements
from pytest_prunerob.compression.residual_blocks import blocks, masks_without
from pytest_prunerob.compression.shrink import shrunk
from pytest_prunerob.compression.structure import Structure
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import convolutions, empty_filters, parameters
from pytest_prunerob.networks import build
from pytest_prunerob.subjects import prepare
from tests.conformance.quick import INPUTS, Residual

# Plain, pre-activation with projections, and fully connected layers behind a flattening; the larger ones take seconds.
SMALL = {"cnn": (1, 8, 8), "preact-resnet8": (1, 8, 8), "cnn5": (3, 12, 12), "lenet-5": (1, 16, 16)}


def lively(model: nn.Module) -> nn.Module:
    """``model`` with batch normalisation as after a training: a channel of zeros comes out as another constant."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_mean.normal_(0, 0.5, generator=generator)  # type: ignore[union-attr, operator]
            norm.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr, operator]
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.5, generator=generator)
    return model


def same_logits(one: nn.Module, two: nn.Module, inputs: tuple[int, ...]) -> None:
    x = torch.rand(6, *inputs, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, others = one(x), two(x)
    assert float((logits - others).abs().max()) <= 1e-5 * float(logits.abs().max())
    assert len(logits.unique(dim=0)) == 6, "the logits depend on the inputs"


def zero(model: nn.Module, gone: Mapping[str, list[int]]) -> None:
    """Set filters to zero, with their biases."""
    for name, filters in gone.items():
        layer = model.get_submodule(name)
        for parameter in layer.parameters():
            parameter.data[filters] = 0


@pytest.mark.parametrize("name", SMALL)
def test_pruned_filters_go_and_the_logits_stay(name: str) -> None:
    inputs = SMALL[name]
    dense = lively(build(name, inputs=inputs, classes=10, seed=0))
    masked = compress(dense, method="filter-l1", amount="0.50").model
    before = {key: value.clone() for key, value in masked.state_dict().items()}
    narrow, structure = shrunk(masked, torch.rand(1, *inputs))
    same_logits(masked, narrow, inputs)
    assert parameters(narrow) < parameters(masked)
    alone = [group[0] for group in elements(narrow, inputs=inputs) if len(group[0].writes) == 1]
    left = {name: int(empty_filters(layer.weight).sum()) for name, layer in convolutions(narrow).items()}
    assert alone
    assert not any(left.get(layer) for element in alone for layer in element.writes)
    assert all(torch.equal(value, before[key]) for key, value in masked.state_dict().items())
    again = rebuild(dense, Structure.from_json(structure.as_json()), inputs=inputs)
    again.load_state_dict(narrow.state_dict())
    same_logits(narrow, again, inputs)
    assert prepare(narrow, role="pruned", device="cpu").digest != prepare(masked, role="pruned", device="cpu").digest


class Branched(nn.Module):
    """A sum, a concatenation and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.added = nn.Conv2d(6, 6, 3, padding=1)
        self.one = nn.Conv2d(6, 4, 1)
        self.two = nn.Conv2d(6, 4, 1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.linear = nn.Linear(8 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.added(x))
        x = self.norm(torch.cat([self.one(x), self.two(x)], dim=1))
        logits: Tensor = self.linear(torch.relu(self.depthwise(x)).flatten(1))
        return logits


def test_coupled_channels_go_only_where_they_are_zero_everywhere() -> None:
    """Of the sum only channel 2; behind the concatenation those whose constant the normalisation or filter ends."""
    torch.manual_seed(0)
    model = lively(Branched()).eval()
    zero(model, {"stem": [1, 2], "added": [2, 3], "one": [0, 1], "two": [3], "depthwise": [0, 5]})
    model.norm.weight.data[[1, 7]] = 0
    model.norm.bias.data[1] = 0  # its channel ends here if the filter behind it adds nothing
    model.depthwise.bias.data[1] = 0
    model.norm.bias.data[7] = 0.25  # a constant, which goes on
    model.depthwise.bias.data[7] = 5.0
    narrow, structure = shrunk(model, torch.rand(2, 1, 8, 8))
    assert structure.channels == {"stem": (2,), "added": (2,), "one": (0, 1), "two": (1,), "depthwise": (0, 1, 5)}
    same_logits(model, narrow, (1, 8, 8))
    assert tuple(narrow.linear.weight.shape) == (10, 5 * 36)


def test_a_constant_that_is_not_zero_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
                          nn.Linear(4 * 36, 10)).eval()  # fmt: skip
    zero(model, {"0": [0], "2": [0, 1]})
    model[2].bias.data[1] = 0.5
    _, structure = shrunk(model, torch.rand(1, 1, 8, 8))
    assert structure.channels == {"2": (0,)}  # a sigmoid makes a half of zero


def test_a_channel_that_is_zero_on_the_samples_alone_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    model[0].bias.data[2] = -100.0  # no image in [0, 1] gets through here
    zero(model, {"0": [1]})
    assert shrunk(model, torch.rand(1, 1, 8, 8))[1].channels == {"0": (1,)}


def test_what_no_weight_reads_goes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 10)).eval()
    model[2].weight.data[:, 3] = 0
    narrow, structure = shrunk(model, torch.rand(1, 1, 8, 8))
    assert structure.channels == {"0": (3,)}
    same_logits(model, narrow, (1, 8, 8))


def test_a_channel_that_the_normalisation_ends_goes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    model[1].weight.data[[0, 2]] = 0
    model[1].bias.data[2] = 1  # a constant that goes on
    narrow, structure = shrunk(model, torch.rand(1, 1, 8, 8))
    assert structure.channels == {"0": (0,)}
    same_logits(model, narrow, (1, 8, 8))


def test_one_channel_of_a_layer_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    zero(model, {"0": [0, 1, 2, 3]})
    narrow = shrink(model, torch.rand(1, 1, 8, 8))
    assert tuple(narrow[0].weight.shape) == (1, 1, 3, 3)  # type: ignore[index]


@pytest.mark.parametrize("wrapped", [False, True])
def test_residual_blocks_of_zeros_become_the_identity(wrapped: bool) -> None:
    torch.manual_seed(0)
    inner = lively(Residual()).eval()
    gone = [block for block in blocks(inner) if block.name in ("blocks.1", "blocks.4")]
    apply(inner, masks_without(inner, gone))
    model = Model(inner, mean=0.2, std=0.5) if wrapped else inner
    narrow, structure = shrunk(model, torch.rand(1, *INPUTS))
    prefix = "module." if wrapped else ""
    assert structure.blocks == (f"{prefix}blocks.1", f"{prefix}blocks.4")
    assert isinstance(narrow.get_submodule(f"{prefix}blocks.1"), nn.Identity)
    same_logits(model, narrow, INPUTS)
    again = rebuild(model, structure, inputs=INPUTS)
    again.load_state_dict(narrow.state_dict())
    same_logits(model, again, INPUTS)


def test_a_block_that_still_does_something_stays() -> None:
    """Behind its addition a ReLU cuts what the convolution before it gives."""
    torch.manual_seed(0)
    model = lively(Residual()).eval()
    model.relu = nn.Tanh()  # type: ignore[assignment]
    apply(model, masks_without(model, blocks(model)[:2]))
    assert shrunk(model, torch.rand(1, *INPUTS))[1].blocks == ("blocks.1",)


def test_an_attack_finds_the_same_on_both() -> None:
    inputs = (1, 8, 8)
    dense = lively(build("preact-resnet8", inputs=inputs, classes=10, seed=0))
    masked = compress(dense, method="filter-l1", amount="0.50").model
    x = torch.rand(30, *inputs, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        masked.linear.bias -= masked(x).mean(0)  # so that not all samples are of one class
        y = masked(x).argmax(1)
    narrow = shrink(masked, x[:1])
    plan = pgd(norm="linf", eps="0.05", steps=4, step_size="0.02", random_start=False)
    one, two = (Engine("cpu", 30, 0).run("decide", model, plan, 0, x, y, 10) for model in (masked, narrow))
    assert one.broken.keys() == two.broken.keys()
    assert 0 < len(one.broken) < 30
    assert one.errors == two.errors == {}


def test_other_logits_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    monkeypatch.setattr(module, "_removable", lambda *_: {"0": (1,)})
    with pytest.raises(
        CompressionError, match=r"Sequential without what is zero in it has other logits, off by 0\.\d+"
    ):
        shrink(model, torch.rand(1, 1, 8, 8))


def test_reparametrised_weights_and_no_samples_are_one_sentence() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    with pytest.raises(
        CompressionError, match=r"shrink needs example inputs \(N, C, H, W\), received the shape \(0, 1"
    ):
        shrink(model, torch.rand(0, 1, 8, 8))
    prune.l1_unstructured(model[0], "weight", 4)
    with pytest.raises(
        CompressionError, match="Sequential computes the weight of '0' from other tensors: make it plain"
    ):
        shrink(model, torch.rand(1, 1, 8, 8))


class Gated(nn.Module):
    """A convolution that adds to the output on bright inputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rare = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.rare(x).mean((2, 3))
        bright = x.mean((1, 2, 3))[:, None] > 0.9
        gated: Tensor = self.linear(self.conv(x).mean((2, 3)) + torch.where(bright, pooled, torch.zeros_like(pooled)))
        return gated


def test_networks_that_decide_by_their_numbers_are_refused() -> None:
    """What is zero on all probes need not be zero behind a comparison."""
    with pytest.raises(
        CompressionError, match=r"Gated decides by its numbers \((gt|where)\); allowed are networks without"
    ):
        shrink(Gated().eval(), torch.rand(2, 1, 8, 8))
