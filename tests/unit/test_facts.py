from __future__ import annotations

import zlib
from fractions import Fraction

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pytest_prunerob import facts
from pytest_prunerob.errors import ModelError


@pytest.fixture
def model() -> nn.Sequential:
    """10 prunable weights of which 5 are zero; 17 parameters of which 7 are zero; one of 4 filters empty."""
    conv, linear = nn.Conv2d(1, 4, 1), nn.Linear(6, 1, bias=False)
    norm = nn.BatchNorm2d(1, affine=False)
    extra = nn.LayerNorm(3, bias=False)
    for parameter in (*conv.parameters(), *linear.parameters(), *extra.parameters()):
        nn.init.ones_(parameter)
    with torch.no_grad():
        conv.weight[2] = 0
        linear.weight[0, :4] = 0
        assert conv.bias is not None
        conv.bias[:2] = -0.0
    return nn.Sequential(conv, norm, linear, extra)


def test_sparsity_counts_exact_zeros_in_its_unit_and_scope(model: nn.Sequential) -> None:
    assert facts.sparsity(model) == Fraction(5, 10)
    assert facts.sparsity(model, unit="weights", scope="all") == Fraction(7, 17)
    assert facts.sparsity(model, unit="filters") == Fraction(1, 4)
    with torch.no_grad():
        model[2].weight[0, 0] = 1e-30
    assert facts.sparsity(model) == Fraction(4, 10)


def test_sparsity_in_parts_of_convolutions() -> None:
    """Of (2, 3) kernels four are empty, and so are input channel 1 and filter 1; zeros elsewhere are no empty part."""
    conv = nn.Conv2d(3, 2, 2, bias=False)
    nn.init.ones_(conv.weight)
    with torch.no_grad():
        conv.weight[1] = 0
        conv.weight[0, 1] = 0
        conv.weight[0, 2, 0, 0] = 0
    model = nn.Sequential(conv, nn.Linear(2, 2))
    assert facts.sparsity(model, unit="kernels") == Fraction(4, 6)
    assert facts.sparsity(model, unit="channels") == Fraction(1, 3)
    assert facts.sparsity(model, unit="filters") == Fraction(1, 2)
    assert facts.sparsity(model, unit="weights") == Fraction(17, 28)
    for unit in ("kernels", "filters", "channels"):
        assert facts.sparsity(model, unit=unit, scope="all") == facts.sparsity(model, unit=unit)


def test_a_channel_of_a_grouped_convolution_is_read_by_its_group_alone() -> None:
    conv, depthwise = nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(3, 6, 1, groups=3)
    nn.init.ones_(conv.weight)
    nn.init.ones_(depthwise.weight)
    with torch.no_grad():
        conv.weight[:3, 1] = 0  # what the first group, filters 0 to 2, reads of channel 1
        conv.weight[3:5, 0] = 0  # channel 2, which filter 5 still reads
        depthwise.weight[2] = 0  # one of the two filters that read channel 1
    assert facts.empty_channels(conv).tolist() == [False, True, False, False]
    assert facts.sparsity(nn.Sequential(conv), unit="channels") == Fraction(1, 4)
    assert facts.sparsity(nn.Sequential(conv), unit="kernels") == Fraction(5, 12)
    assert not facts.empty_channels(depthwise).any()
    with torch.no_grad():
        depthwise.weight[3] = 0
    assert facts.empty_channels(depthwise).tolist() == [False, True, False]
    assert facts.sparsity(nn.Sequential(depthwise), unit="kernels") == Fraction(2, 6)


def test_nonzeros_are_those_of_all_parameters(model: nn.Sequential) -> None:
    assert facts.nonzeros(model) == 10
    with torch.no_grad():
        model[2].weight[0, 5] = torch.nan
    assert facts.nonzeros(model) == 10


def test_a_shared_layer_counts_once() -> None:
    layer = nn.Linear(2, 2)
    twin = nn.Linear(2, 2)
    twin.weight = layer.weight
    nn.init.zeros_(layer.weight)
    assert list(facts.prunable_weights(nn.Sequential(layer, layer, twin))) == ["0.weight"]
    assert facts.sparsity(nn.Sequential(layer, twin, nn.Linear(2, 2))) == Fraction(4, 8)
    one, two = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    two.weight = one.weight
    nn.init.zeros_(one.weight)
    assert facts.sparsity(nn.Sequential(one, two, nn.Conv2d(1, 2, 1)), unit="filters") == Fraction(1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "filter"}, "unknown unit of sparsity 'filter': .* did you mean 'filters'"),
        ({"scope": "everything"}, "unknown scope of sparsity 'everything': allowed are all, prunable"),
        ({"unit": "channel"}, "unknown unit of sparsity 'channel': .* did you mean 'channels'"),
        ({"unit": "filters"}, "sparsity of ReLU in filters .* no convolutions to count"),
        ({}, "no convolution or linear weights to count"),
        ({"scope": "all"}, "no parameters to count"),
    ],
)
def test_sparsity_of_nothing_is_an_error_and_no_number(options: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        facts.sparsity(nn.ReLU(), **options)  # type: ignore[arg-type]


def test_parameters_leave_buffers_out() -> None:
    assert facts.parameters(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))) == 12


def test_size_is_that_of_the_safetensors_file(tmp_path: object) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    save_file(dict(model.state_dict()), f"{tmp_path}/model.safetensors")
    with open(f"{tmp_path}/model.safetensors", "rb") as file:
        assert facts.size_bytes(model) == len(file.read())


def test_compressed_size_is_that_of_the_compressed_file(tmp_path: object) -> None:
    model = nn.Sequential(nn.Conv2d(8, 64, 3))
    save_file(dict(model.state_dict()), f"{tmp_path}/model.safetensors")
    with open(f"{tmp_path}/model.safetensors", "rb") as file:
        assert facts.size_bytes(model, form="compressed") == len(zlib.compress(file.read()))
    nn.init.zeros_(model[0].weight)
    assert facts.size_bytes(model, form="compressed") < 1000 < 18_000 < facts.size_bytes(model)
    with pytest.raises(ModelError, match="unknown form of size_bytes 'zip': allowed are compressed, dense"):
        facts.size_bytes(model, form="zip")  # type: ignore[arg-type]


def test_size_writes_tied_weights_once_per_name() -> None:
    one, two = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    untied = facts.size_bytes(nn.Sequential(one, two))
    two.weight = one.weight
    assert facts.size_bytes(nn.Sequential(one, two)) == untied


def test_weights_that_are_computed_from_others_are_not_counted() -> None:
    """A pruned convolution under a hook would vanish from the count, and the rest look sparse."""
    pruned = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    torch.nn.utils.prune.identity(pruned[0], "weight")
    normalised = nn.Sequential(nn.Flatten(), torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    for model, name in ((pruned, "'0'"), (normalised, "'1'")):
        for fact in (facts.sparsity, facts.nonzeros):
            with pytest.raises(ModelError, match=f"the weight of {name} is computed from other tensors; make it plain"):
                fact(model)
