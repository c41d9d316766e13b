"""What holds for every compression method of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.compression import METHODS, CompressedModel, apply, compress, rebuild
from pytest_prunerob.datasets import Dataset, load
from pytest_prunerob.fingerprint import fingerprint
from tests.conformance.quick import INPUTS, QuickTrainer, trained

Build = Callable[..., CompressedModel]
NAMES = sorted(METHODS)
AMOUNT = Fraction("0.60")


@pytest.fixture(scope="module")
def data() -> Dataset:
    """96 training digits."""
    train = load("digits").train
    assert train is not None
    return train.first(96)


@pytest.fixture(scope="module")
def dense(data: Dataset) -> nn.Module:
    return trained(data)


@pytest.fixture(scope="module")
def build(dense: nn.Module, data: Dataset) -> Build:
    """The dense network compressed by a method; one model for each method and seed is kept."""
    kept: dict[tuple[str, int], CompressedModel] = {}

    def make(name: str, *, seed: int = 0, again: bool = False) -> CompressedModel:
        if again or (name, seed) not in kept:
            trainer = QuickTrainer(data)
            # Every step of a method that trains is a whole training: two are enough here.
            steps = 2 if METHODS[name].trains and METHODS[name].iterations else None
            made = compress(dense, method=name, amount=AMOUNT, data=data, seed=seed, trainer=trainer, iterations=steps)
            if again:
                return made
            kept[name, seed] = made
        return kept[name, seed]

    return make


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_is_what_is_measured(name: str, build: Build) -> None:
    found = build(name)
    assert found.requested == AMOUNT
    assert found.unit == METHODS[name].unit
    if METHODS[name].scope == "local":
        for layer, (gone, total) in found.layers.items():
            # A layer that would lose all keeps one.
            assert gone == min(math.ceil(AMOUNT * total), total - 1), layer
    else:
        gone, total = (sum(column) for column in zip(*found.layers.values(), strict=True))
        # Parameters go by whole channels: 3 % is the step between two widths of this network.
        assert abs(gone - AMOUNT * total) <= (Fraction(3, 100) * total if found.unit == "parameters" else 1)
        assert found.achieved == Fraction(gone, total)
    assert all(gone < total or total == 1 for gone, total in found.layers.values())


@pytest.mark.parametrize("name", NAMES)
def test_it_follows_from_the_seed_and_leaves_the_dense_network(name: str, build: Build, dense: nn.Module) -> None:
    before, generator = fingerprint(dense), torch.random.get_rng_state()
    first, second = build(name), build(name, again=True)
    assert same(state(first.model), state(second.model))
    assert fingerprint(dense) == before
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert ("random" in name) <= (not same(state(first.model), state(build(name, seed=1).model)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pruned_is_zero_after_fine_tuning_and_stays_so(name: str, build: Build, data: Dataset) -> None:
    found = build(name)
    for parameter, kept in found.masks.on(found.model):
        assert bool((parameter[~kept] == 0).all())
    model = rebuilt(found)
    QuickTrainer(data).fine_tune(model, found.masks)
    for parameter, kept in found.masks.on(model):
        assert bool((parameter[~kept] == 0).all())
    assert all(mask.device.type == "meta" for _, mask in found.masks.on(model.to("meta")))


@pytest.mark.parametrize("name", NAMES)
def test_amount_zero_is_an_equal_network(name: str, dense: nn.Module) -> None:
    found = compress(dense, method=name, amount="0")
    assert same(state(found.model), state(dense))
    assert (found.achieved, found.steps, found.structure) == (0, (), None)
    assert found.model is not dense


def rebuilt(found: CompressedModel) -> nn.Module:
    """The compressed network from its structure and its state dict, as the store gives it back."""
    from tests.conformance.quick import residual

    model = residual() if found.structure is None else rebuild(residual(), found.structure, inputs=INPUTS)
    model.load_state_dict(found.model.state_dict(), strict=True)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_the_state_dict_round_trips(name: str, build: Build, data: Dataset) -> None:
    found = build(name)
    with torch.no_grad():
        assert torch.equal(rebuilt(found)(data.x), found.model(data.x))
    assert fingerprint(rebuilt(found)) == fingerprint(found.model)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_method_is_left_in_the_network(name: str, build: Build, data: Dataset) -> None:
    """Hooks, parametrisations or masks on gradients would make an attack weaker than it is."""
    model = build(name).model
    for module in model.modules():
        assert not module.training
        assert (*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks) == ()
        assert not torch.nn.utils.parametrize.is_parametrized(module)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not any(parameter._backward_hooks for parameter in model.parameters())
    x = data.x[:8].clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(x), data.y[:8], reduction="sum")
    (slope,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert bool((slope.flatten(1).abs().amax(dim=1) > 0).all())
    # The gradient of a pruned weight tells how the loss would change: nothing hides it.
    single = [(p, kept) for p, kept in build(name).masks.on(model) if p.dim() == 4 and not bool(kept.flatten(1).all())]
    if METHODS[name].unit == "weights" and single:
        slopes = torch.autograd.grad(loss, [p for p, _ in single], allow_unused=True)
        assert any(bool((g[~kept] != 0).any()) for g, (_, kept) in zip(slopes, single, strict=True) if g is not None)


@pytest.mark.parametrize("name", NAMES)
def test_masks_can_be_applied_again(name: str, build: Build) -> None:
    found = build(name)
    before = state(found.model)
    apply(found.model, found.masks)
    assert same(state(found.model), before)
