from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import facts
from pytest_prunerob.compression import METHODS, Masks, apply, compress, exponential, halving, parse_amount
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.networks import build
from tests.conformance.quick import residual


def network(name: str) -> nn.Module:
    if name == "residual":
        return residual()
    return build(name, inputs=(1, 8, 8) if name == "cnn" else (3, 32, 32), classes=10, seed=0)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The nine methods of Merkle et al., and which layers' units they count.
NINE = [
    *("global-magnitude", "local-magnitude", "local-random"),
    *("kernel-global-magnitude", "kernel-local-magnitude", "kernel-local-random"),
    *("filter-l1", "filter-local-magnitude", "filter-local-random"),
]
DIMENSIONS = {"weights": 4, "kernels": 2, "filters": 1}


def units(model: nn.Module, unit: str) -> dict[str, int]:
    """By layer, how many units it has."""
    if unit == "weights":
        return {name: weight.numel() for name, weight in facts.prunable_weights(model).items()}
    layers = facts.convolutions(model)
    return {f"{name}.weight": math.prod(layer.weight.shape[: DIMENSIONS[unit]]) for name, layer in layers.items()}


def expected(model: nn.Module, method: str, amount: Fraction) -> int:
    """How many units of ``model`` are to go."""
    counts = units(model, METHODS[method].unit).values()
    if METHODS[method].scope == "global":
        return math.ceil(amount * sum(counts))
    return sum(min(math.ceil(amount * count), count - 1) for count in counts)


@pytest.mark.parametrize(
    ("method", "name"), [*((method, "cnn") for method in NINE), *((method, "residual") for method in NINE[::3])]
)
def test_a_method_prunes_what_is_asked_to_the_unit(method: str, name: str) -> None:
    dense = network(name)
    before = state(dense)
    sparsity, unit = Fraction("0.83"), METHODS[method].unit
    pruned = compress(dense, method=method, amount=sparsity)
    counts = units(dense, unit)
    assert pruned.achieved == Fraction(expected(dense, method, sparsity), sum(counts.values()))
    assert unit == "kernels" or facts.sparsity(pruned.model, unit=unit) == pruned.achieved  # type: ignore[arg-type]
    assert {f"{layer}.weight": total for layer, (_, total) in pruned.layers.items()} == counts
    assert pruned.steps == (Fraction(1, 2), Fraction(3, 4), sparsity)
    assert same(state(dense), before)
    assert same(state(compress(dense, method=method, amount=sparsity).model), state(pruned.model))
    found = dict(pruned.model.named_parameters())
    assert found.keys() == dict(dense.named_parameters()).keys()
    assert all(bool((found[key][~kept] == 0).all()) for key, kept in pruned.masks.kept.items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in pruned.model.modules())
    assert not any(module.training for module in pruned.model.modules())


@pytest.mark.parametrize("method", NINE)
def test_what_is_pruned_stays_pruned_whatever_fine_tuning_does(method: str) -> None:
    seen: list[Masks] = []

    def revive(model: nn.Module, masks: Masks, **_: object) -> None:
        if seen:
            assert all(bool((seen[-1].kept[key] | ~kept).all()) for key, kept in masks.kept.items())
        seen.append(masks)
        model.train()
        generator = torch.Generator().manual_seed(len(seen))
        with torch.no_grad():
            for parameter in model.parameters():
                # Zeros among the living must not save the dead.
                parameter.copy_((torch.rand(parameter.shape, generator=generator) - 0.5).relu())

    pruned = compress(network("cnn"), method=method, amount="0.80", trainer=SimpleNamespace(fine_tune=revive))  # type: ignore[arg-type]
    assert len(seen) == 3
    assert pruned.masks.kept.keys() == seen[-1].kept.keys()
    weights = [kept for key, kept in pruned.masks.kept.items() if key.endswith("weight")]
    if METHODS[method].unit != "weights":
        dimensions = DIMENSIONS[METHODS[method].unit]
        weights = [kept.flatten(dimensions).any(dim=dimensions) for kept in weights]
    gone = sum(int((~kept).sum()) for kept in weights)
    assert gone == expected(pruned.model, method, Fraction("0.80"))
    assert not pruned.model.training


def test_global_magnitude_takes_the_smallest_weights_of_the_whole_network() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.1, -0.5, 0.3]).reshape(3, 1, 1, 1))
        model[2].weight.copy_(torch.tensor([[0.3, -0.2, 9.0], [0.3, 0.7, -0.4]]))
        model[0].bias.zero_()
    pruned = compress(model, method="global-magnitude", amount="4/9")
    # 0.1, 0.2 and then two of the three that tie at 0.3, in order.
    assert pruned.masks.kept["0.weight"].flatten().tolist() == [False, True, False]
    assert pruned.masks.kept["2.weight"].tolist() == [[False, False, True], [True, True, True]]
    assert pruned.masks.kept.keys() == {"0.weight", "2.weight"}


def test_filter_l1_ranks_by_mean_magnitude_and_leaves_each_layer_a_filter() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([4.0, -0.3, 0.9, 0.5]).reshape(4, 1, 1, 1))
        model[1].weight.copy_(torch.tensor([[0.4, 0.4, 0.4, 0.4], [1, -1, 0, 0.8]]).reshape(2, 4, 1, 1))
    # L1 norms over sizes: 4, 0.3, 0.9, 0.5 and 0.4, 0.7, the last of which stays as the best of its layer.
    for count, first, second in (
        (1, [True, False, True, True], [True, True]),
        (2, [True, False, True, True], [False, True]),
        (3, [True, False, True, False], [False, True]),
        (4, [True, False, False, False], [False, True]),
    ):
        masks = compress(model, method="filter-l1", amount=Fraction(count, 6)).masks
        assert masks.kept["0.bias"].tolist() == first
        assert masks.kept["1.weight"].flatten(1).all(dim=1).tolist() == second
        assert masks.kept.keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    with pytest.raises(CompressionError, match=r"means 5 of 6 filters, but each of the 2 .* at most 4 can go"):
        compress(model, method="filter-l1", amount=Fraction(5, 6))


def test_a_kernel_is_the_weights_from_one_channel_to_another() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        sizes = torch.tensor([[0.5, 0.2], [0.1, 0.4]]).reshape(2, 2, 1, 1)
        model[0].weight.copy_(sizes * torch.tensor([[0.0, 1.0], [-2.0, 1.0]]))
        model[1].weight.copy_(torch.tensor([0.45, 0.3]).reshape(1, 2, 1, 1))
    # Mean magnitudes 0.5, 0.2, 0.1, 0.4 and 0.45, 0.3; the best of a layer stays.
    for method, count, first, second in (
        ("kernel-global-magnitude", 3, [[True, False], [False, True]], [[True, False]]),
        ("kernel-global-magnitude", 4, [[True, False], [False, False]], [[True, False]]),
        ("kernel-local-magnitude", 3, [[True, False], [False, True]], [[True, False]]),
    ):
        masks = compress(model, method=method, amount=Fraction(count, 6)).masks.kept
        assert masks["0.weight"].tolist() == [[[[keep] * 2] * 2 for keep in row] for row in first]
        assert masks["1.weight"].flatten(1).tolist() == second
        assert masks.keys() == {"0.weight", "1.weight"}
    with pytest.raises(CompressionError, match=r"means 5 of 6 kernels, but each of the 2 .* at most 4 can go"):
        compress(model, method="kernel-global-magnitude", amount=Fraction(5, 6))


def test_a_local_method_takes_the_share_of_each_layer_but_leaves_it_one_unit() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8, 2))
    for method, layers in {
        "filter-local-magnitude": {"0": (3, 4), "1": (7, 8)},
        "filter-local-random": {"0": (3, 4), "1": (7, 8)},
        "kernel-local-magnitude": {"0": (3, 4), "1": (31, 32)},
        "kernel-local-random": {"0": (3, 4), "1": (31, 32)},
        "local-magnitude": {"0": (3, 4), "1": (31, 32), "3": (15, 16)},
        "local-random": {"0": (3, 4), "1": (31, 32), "3": (15, 16)},
    }.items():
        pruned = compress(model, method=method, amount="0.99")
        assert pruned.layers == layers
        assert (pruned.requested, pruned.achieved) == (
            Fraction("0.99"),
            Fraction(sum(gone for gone, _ in layers.values()), sum(total for _, total in layers.values())),
        )
    thirds = compress(model, method="filter-local-magnitude", amount="1/3").layers
    assert thirds == {"0": (2, 4), "1": (3, 8)}


def test_a_lot_does_not_look_at_weights_and_spares_none_more_often() -> None:
    model, other = (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)) for _ in range(2))
    gone = torch.zeros(2, 8)
    for seed in range(100):
        masks = compress(model, method="filter-local-random", amount="3/4", seed=seed).masks.kept
        gone += torch.stack([~masks[f"{layer}.bias"] for layer in (0, 1)])
    again = compress(other, method="filter-local-random", amount="3/4", seed=seed).masks.kept
    assert same(dict(again), dict(masks))
    # 75 of 100 on average, with a standard deviation of 4.3; the layers are drawn independently of each other.
    assert bool(((gone > 75 - 4 * 4.3) & (gone < 75 + 4 * 4.3)).all())
    assert not torch.equal(masks["0.bias"], masks["1.bias"])


def test_a_pruned_filter_is_a_dead_channel_after_batch_normalisation() -> None:
    model = network("resnet18")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bn" in name or "shortcut.1" in name:
                parameter.fill_(0.7)
    pruned = compress(model, method="filter-l1", amount="0.50")
    outputs: dict[str, Tensor] = {}
    for name, module in pruned.model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, y, name=name: outputs.__setitem__(name, y))  # type: ignore[misc]
    with torch.no_grad():
        pruned.model(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    norms = {"conv1": "bn1", "conv2": "bn2", "shortcut.0": "shortcut.1"}
    for name, layer in facts.convolutions(pruned.model).items():
        tail = next(conv for conv in norms if name.endswith(conv))
        channels = outputs[name.removesuffix(tail) + norms[tail]].abs().amax(dim=(0, 2, 3))
        assert bool(((channels == 0) == facts.empty_filters(layer.weight)).all()), name
        assert int(facts.empty_filters(layer.weight).sum()) < len(layer.weight)


class PreActivation(nn.Module):
    """The normalisation registered after ``conv1`` reads a sum, so it must not be pruned with it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        return self.conv2(self.bn(x + self.conv1(x)).relu()).flatten(1)


class Branching(PreActivation):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) > 0 else self.conv0(x)


def test_only_the_normalisation_that_reads_a_filter_goes_with_it() -> None:
    masks = compress(PreActivation(), method="filter-l1", amount="1/2").masks
    assert {name.split(".")[0] for name in masks.kept} == {"conv0", "conv1", "conv2"}
    with pytest.raises(CompressionError, match=r"Branching cannot be traced by torch.fx \(\w+Error\)"):
        compress(Branching(), method="filter-l1", amount="1/2")


def test_the_schedule_halves_what_is_left_and_lands_on_the_target() -> None:
    for text, steps in {
        "0": [],
        "0.3": ["0.3"],
        "0.5": ["0.5"],
        "0.75": ["0.5", "0.75"],
        "0.90": ["0.5", "0.75", "0.875", "0.9"],
    }.items():
        assert halving(Fraction(text)) == tuple(Fraction(step) for step in steps)


def test_the_exponential_schedule_leaves_the_same_part_in_each_step() -> None:
    steps = exponential(Fraction("0.1"), Fraction("0.5"), 5)
    # NNCF's 1 - 0.9 · (0.5 / 0.9) ^ (i / 4).
    assert steps == tuple(Fraction(text) for text in ("0.1", "0.222994", "0.32918", "0.420854", "0.5"))
    assert exponential(Fraction("0.1"), Fraction("0.9"), 2) == (Fraction("0.1"), Fraction("0.9"))
    assert exponential(Fraction("0.1"), Fraction("0.9"), 1) == (Fraction("0.9"),)
    assert exponential(Fraction("0.1"), Fraction("0.1"), 5) == (Fraction("0.1"),)
    assert exponential(Fraction("0.1"), Fraction("0.05"), 5) == (Fraction("0.05"),)
    # Rounded to millionths, the steps between would pass the ends.
    low, high = Fraction("0.10000060"), Fraction("0.10000065")
    assert exponential(low, high, 4) == (low, high, high, high)


@pytest.mark.parametrize(
    ("value", "exact"),
    [("0.90", Fraction(9, 10)), (0.9, Fraction(9, 10)), (0, Fraction(0)), ("1/3", Fraction(1, 3))],
)
def test_a_sparsity_is_read_exactly(value: object, exact: Fraction) -> None:
    assert parse_amount(value) == exact


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("90", "; did you mean 0.90?"),
        (97.5, "; did you mean 0.975?"),
        ("90%", "; did you mean 0.90?"),
        ("0,9", "; did you mean 0.90?"),
        ("-0.5", "; did you mean 0.50?"),
        ("1", ""),
        (1.0, ""),
        ("100", ""),
        ("half", ""),
        (float("nan"), ""),
        (True, ""),
        (None, ""),
    ],
)
def test_what_is_no_sparsity_is_refused_with_the_nearest_one(value: object, hint: str) -> None:
    with pytest.raises(CompressionError) as caught:
        parse_amount(value)
    allowed = "allowed is the share that is pruned, from 0 up to but not including 1"
    assert str(caught.value) == f"sparsity {value!r}: {allowed}{hint}"


def test_networks_without_prunable_units_and_unknown_methods_are_refused() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(
        CompressionError, match=r"filters of convolutions and Sequential has none; allowed here are .*, such as glob"
    ):
        compress(linear, method="filter-l1", amount="0.5")
    with pytest.raises(CompressionError, match="prunes the weights of convolutions or linear layers and ReLU has none"):
        compress(nn.ReLU(), method="global-magnitude", amount="0.5")
    with pytest.raises(CompressionError, match="640 of 640 weights, but at least one must stay"):
        compress(linear, method="global-magnitude", amount="0.9999")
    with pytest.raises(CompressionError, match=r"unknown compression method 'filter-l2': .* did you mean 'filter-l1'"):
        compress(linear, method="filter-l2", amount="0.5")


def test_masks_combine_to_what_both_keep_and_must_fit() -> None:
    one = Masks({"a": torch.tensor([True, True, False]), "b": torch.tensor([False])})
    two = Masks({"a": torch.tensor([False, True, True]), "c": torch.tensor([True])})
    assert {name: kept.tolist() for name, kept in (one & two).as_tensors().items()} == {
        "a": [False, True, False],
        "b": [False],
        "c": [True],
    }
    with pytest.raises(CompressionError, match=r"must be bool, found torch\.float32"):
        Masks({"a": torch.ones(2)})
    with pytest.raises(CompressionError, match=r"the mask of 'weight' has the shape \(3,\), the parameter \(2, 3\)"):
        apply(nn.Linear(3, 2), Masks({"weight": torch.ones(3, dtype=torch.bool)}))
    with pytest.raises(CompressionError, match=r"shapes \(3,\) and \(1,\) do not combine"):
        _ = one & Masks({"a": torch.tensor([True])})


def test_weights_that_are_computed_from_others_are_not_pruned_around() -> None:
    model = nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.Flatten(), nn.Linear(4, 2)
    )
    for method in ("global-magnitude", "filter-l1"):
        with pytest.raises(CompressionError, match=f"{method}: the weight of '0' of Sequential is computed from other"):
            compress(model, method=method, amount="0.5")


def test_an_amount_that_cannot_be_reached_is_refused_before_anything_is_trained() -> None:
    trainer = SimpleNamespace(fine_tune=lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(CompressionError, match=r"filter-l1: sparsity 0\.99 means 111 of 112 filters"):
        compress(network("cnn"), method="filter-l1", amount="0.99", trainer=trainer)  # type: ignore[arg-type]
