"""Residual blocks are found in the graph, and a silent branch is a skipped block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pytest_prunerob.compression import apply
from pytest_prunerob.compression.residual_blocks import blocks, masks_without, removed_blocks
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.networks import NETWORKS
from tests.conformance.quick import residual

# Blocks whose shortcut is the identity: all but the first of each stage that changes the shape.
COUNTS = {
    "resnet18": 5, "resnet34": 13, "resnet50": 12, "resnet32": 13, "resnet38": 16, "resnet56": 25, "preact-resnet8": 1,
    "preact-resnet18": 5, "wrn-16-4": 3, "wrn-28-4": 9, "wrn-28-10": 9, "mobilenet-v2": 10, "mobilenet-v1": 0, "cnn": 0,
    "densenet-bc": 0, "cnn-small": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_every_identity_block_of_a_network_is_found(name: str) -> None:
    with torch.device("meta"):
        found = blocks(NETWORKS[name].build((1, 8, 8), 10))
    assert len(found) == len({block.name for block in found}) == COUNTS[name]


@pytest.mark.parametrize(("name", "count"), [("resnet50", 12), ("mobilenet_v2", 10), ("mobilenet_v3_small", 6)])
def test_they_are_found_in_networks_of_torchvision(name: str, count: int) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    modules = dict(model.named_modules())
    found = blocks(model)
    assert len(found) == count
    for block in found:
        inside = {f"{block.name}.{key}" for key, _ in modules[block.name].named_parameters()}
        assert set(block.parameters) == inside


def test_a_silent_branch_is_a_skipped_block() -> None:
    model, skipped = residual(), residual()
    stem = model.get_submodule("blocks.1.bn2")
    assert isinstance(stem, nn.BatchNorm2d)
    assert stem.running_mean is not None
    stem.running_mean.fill_(0.7)  # else a branch of zero weights would be silent without a mask on the normalisation
    found = {block.name: block for block in blocks(model)}
    apply(model, masks_without(model, [found["blocks.1"], found["blocks.3"]]))
    skipped.blocks = nn.Sequential(*(skipped.get_submodule(f"blocks.{index}") for index in (0, 2, 4)))
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x), skipped(x))
    silent = removed_blocks(model)
    assert {name for name, gone in silent.items() if gone} == {"blocks.1", "blocks.3"}


def test_a_branch_is_gone_only_when_nothing_comes_out_of_it() -> None:
    model = residual()
    norm = model.get_submodule("blocks.0.bn2")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
        norm.bias[3] = 1e-30
    assert not removed_blocks(model)["blocks.0"]
    with torch.no_grad():
        norm.bias.zero_()
    assert removed_blocks(model)["blocks.0"]


class Around(nn.Module):
    """``x + branch(x)``, or whatever ``join`` makes of both."""

    def __init__(self, branch: nn.Module, join: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.branch, self.join, self.same = branch, join, nn.Identity()
        self.other = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, x)


def conv() -> nn.Module:
    return nn.Conv2d(2, 2, 3, padding=1)


def around(*branch: nn.Module, join: Callable[[Around, Tensor], Tensor] = lambda m, x: x + m.branch(x)) -> nn.Module:
    return Around(nn.Sequential(*branch), join)  # type: ignore[arg-type]


def through_twice(model: Around, x: Tensor) -> Tensor:
    inner = model.branch(x)
    return x + inner + model.other(inner)


def tied() -> nn.Module:
    model = around(conv())
    model.other = model.get_submodule("branch.0")
    return nn.Sequential(model, model.other)


def tied_by_a_parameter() -> nn.Module:
    model = around(conv(), join=lambda m, x: m.other(x + m.branch(x)))
    model.other = conv()
    model.other.weight = model.get_parameter("branch.0.weight")
    return model


BLOCKS = {
    "plain": lambda: around(conv()),
    "branch first": lambda: around(conv(), join=lambda m, x: torch.add(m.branch(x), x)),
    "in place": lambda: around(conv(), join=lambda m, x: m.branch(x).add_(x)),
    "identity module": lambda: around(conv(), join=lambda m, x: m.same(x) + m.branch(x)),
    "gated": lambda: around(conv(), join=lambda m, x: x + m.branch(x) * m.other(x).sigmoid()),
}
NONE = {
    "projected": lambda: around(conv(), join=lambda m, x: m.other(x) + m.branch(x)),
    "read elsewhere": lambda: around(conv(), join=through_twice),
    "weights used elsewhere": tied,
    "a parameter used elsewhere": tied_by_a_parameter,
    "not zero for zero": lambda: around(conv(), nn.Sigmoid()),
    "normalised without a scale": lambda: around(conv(), nn.BatchNorm2d(2, affine=False)),
    "no parameters": lambda: around(nn.ReLU()),
    "a product": lambda: around(conv(), join=lambda m, x: x * m.branch(x)),
    "scaled": lambda: around(conv(), join=lambda m, x: torch.add(x, m.branch(x), alpha=2)),
}


@pytest.mark.parametrize("name", [*BLOCKS, *NONE])
def test_what_is_a_block(name: str) -> None:
    model = (BLOCKS | NONE)[name]()
    assert len(blocks(model)) == (name in BLOCKS)
    if name in BLOCKS:
        apply(model, masks_without(model, blocks(model)))
        x = torch.rand(2, 2, 4, 4)
        assert torch.equal(model(x), x)


def test_of_nested_blocks_the_inner_ones_count() -> None:
    (found,) = blocks(around(around(conv()), conv()))
    assert found.parameters == ("branch.0.branch.0.weight", "branch.0.branch.0.bias")


def test_two_sums_of_one_module_have_names_of_their_own() -> None:
    model = around(conv(), join=lambda m, x: (y := x + m.branch(x)) + m.other(y))
    assert [block.name for block in blocks(model)] == ["add", "add_1"]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_without_a_graph_is_an_error() -> None:
    with pytest.raises(CompressionError, match="finding residual blocks needs the graph"):
        blocks(Branching())
