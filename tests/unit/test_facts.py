from __future__ import annotations

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


def test_a_shared_layer_counts_once() -> None:
    layer = nn.Linear(2, 2)
    twin = nn.Linear(2, 2)
    twin.weight = layer.weight
    nn.init.zeros_(layer.weight)
    assert list(facts.prunable_weights(nn.Sequential(layer, layer, twin))) == ["0.weight"]
    assert facts.sparsity(nn.Sequential(layer, twin, nn.Linear(2, 2))) == Fraction(4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "filter"}, "unknown unit of sparsity 'filter': .* did you mean 'filters'"),
        ({"scope": "everything"}, "unknown scope of sparsity 'everything': allowed are all, prunable"),
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


def test_size_writes_tied_weights_once_per_name() -> None:
    one, two = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    untied = facts.size_bytes(nn.Sequential(one, two))
    two.weight = one.weight
    assert facts.size_bytes(nn.Sequential(one, two)) == untied
