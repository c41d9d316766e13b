"""The same choice as torch.nn.utils.prune and torch-pruning make of the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.utils import prune

from pytest_prunerob import facts
from pytest_prunerob.compression import compress
from pytest_prunerob.compression.nncf import geometric_median, l1, l2
from pytest_prunerob.networks import build
from tests.conformance.quick import residual


def networks() -> dict[str, nn.Module]:
    """A plain network, one with shortcuts and normalisation, and one with other kinds of convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        kinds = nn.Sequential(
            nn.Conv1d(2, 8, 5),
            nn.Conv1d(8, 8, 3, groups=8),
            nn.ReLU(),
            nn.Conv1d(8, 12, 3, groups=4),
            nn.Conv1d(12, 4, 1),
        )
    return {"cnn": build("cnn", inputs=(1, 8, 8), classes=10, seed=0), "residual": residual(), "kinds": kinds}


@pytest.fixture(params=["cnn", "residual", "kinds"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    return networks()[request.param]


def masks(model: nn.Module, method: str, amount: str, *, iterations: int | None = None) -> Mapping[str, Tensor]:
    """The masks of the weights of convolutions and linear layers."""
    found = compress(model, method=method, amount=amount, iterations=iterations).masks.kept
    return {name: kept for name, kept in found.items() if name in facts.prunable_weights(model)}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that have prunable weights, by the name of the weight; pruning them does not touch ``model``."""
    found = {}
    for name, weight in facts.prunable_weights(model).items():
        layer = nn.Module()
        layer.weight = nn.Parameter(weight.detach().clone())
        found[name] = layer
    return found


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name].bool()) for name in one)


# Every layer's count of weights is divisible by four, so that prune (which rounds) and this package (which rounds up)
# mean the same number.
@pytest.mark.parametrize("amount", ["0.25", "0.50", "0.75"])
def test_single_weights_are_those_of_l1_unstructured(network: nn.Module, amount: str) -> None:
    local, together = layers(network), layers(network)
    for layer in local.values():
        prune.l1_unstructured(layer, "weight", amount=float(amount))
    assert same(masks(network, "local-magnitude", amount), {n: one.weight_mask for n, one in local.items()})  # type: ignore[misc]
    pairs = [(layer, "weight") for layer in together.values()]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=float(amount))
    assert same(masks(network, "global-magnitude", amount), {n: one.weight_mask for n, one in together.items()})  # type: ignore[misc]


@pytest.mark.parametrize("amount", ["0.25", "0.50", "0.75"])
def test_filters_and_kernels_are_those_of_ln_structured(network: nn.Module, amount: str) -> None:
    shapes = {name: weight.shape for name, weight in facts.prunable_weights(network).items() if weight.dim() > 2}
    filters, kernels = layers(network), layers(network)
    for name in shapes:
        prune.ln_structured(filters[name], "weight", amount=float(amount), n=1, dim=0)
        # A row for each kernel W[o, i]: ln_structured ranks along one dimension.
        kernels[name].weight = nn.Parameter(kernels[name].weight.detach().flatten(2).flatten(0, 1))  # type: ignore[operator]
        prune.ln_structured(kernels[name], "weight", amount=float(amount), n=1, dim=0)
    expected = {name: filters[name].weight_mask for name in shapes}
    assert same(masks(network, "filter-local-magnitude", amount), expected)  # type: ignore[arg-type]
    rows = {name: kernels[name].weight_mask.reshape(shape) for name, shape in shapes.items()}  # type: ignore[operator]
    assert same(masks(network, "kernel-local-magnitude", amount), rows)


@pytest.mark.parametrize(("method", "n"), [("nncf-l1", 1), ("nncf-l2", 2)])
def test_nncf_takes_the_filters_of_ln_structured_in_layers_of_their_own(method: str, n: int) -> None:
    for model in (networks()["cnn"], networks()["residual"]):
        found, expected = masks(model, method, "0.75"), layers(model)
        for name in found:
            prune.ln_structured(expected[name], "weight", amount=0.75, n=n, dim=0)
        assert found
        assert same(found, {name: expected[name].weight_mask for name in found})  # type: ignore[misc]


def test_prune_rounds_where_this_package_rounds_up() -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 1))
    for amount, rounded, up in (("0.30", 3, 3), ("0.31", 3, 4), ("0.25", 2, 3), ("0.35", 4, 4)):
        (layer,) = layers(model).values()
        prune.ln_structured(layer, "weight", amount=float(amount), n=1, dim=0)
        assert int((layer.weight_mask == 0).sum()) == rounded  # type: ignore[arg-type, union-attr, operator]
        assert compress(model, method="filter-local-magnitude", amount=amount).layers == {"0": (up, 10)}


def importance(weight: Tensor, scorer: torch_pruning.importance.Importance) -> Tensor:
    """What torch-pruning says of the filters of a convolution on its own, which nothing depends on."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False)  # type: ignore[arg-type]
    layer.weight = nn.Parameter(weight.detach().clone())
    graph = torch_pruning.DependencyGraph().build_dependency(
        nn.Sequential(layer), torch.zeros(1, weight.shape[1], 8, 8)
    )
    group = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, idxs=list(range(len(weight))))
    found: Tensor = scorer(group)
    return found


def kept(scores: Tensor, amount: str) -> list[bool]:
    """All but the smallest share of the scores."""
    gone = scores.argsort()[: math.ceil(Fraction(amount) * len(scores))]
    return [one not in gone.tolist() for one in range(len(scores))]


MAGNITUDE = torch_pruning.importance.MagnitudeImportance
RANKINGS: dict[str, tuple[Callable[[Tensor], Tensor], torch_pruning.importance.Importance]] = {
    "nncf-l1": (l1, MAGNITUDE(p=1)),
    "nncf-l2": (l2, MAGNITUDE(p=2)),
    # torch-pruning takes the distances of |w|^p: with p=1 and weights of one sign those are He et al.'s.
    "nncf-geometric-median": (geometric_median, torch_pruning.importance.FPGMImportance(p=1)),
}


@pytest.mark.parametrize("method", sorted(RANKINGS))
def test_the_order_and_the_masks_are_those_of_torch_pruning(method: str) -> None:
    ours, theirs = RANKINGS[method]
    for name in ("cnn", "residual"):
        model = networks()[name]
        if method == "nncf-geometric-median":
            with torch.no_grad():
                for weight in facts.prunable_weights(model).values():
                    weight.abs_()
        scores = {}
        for layer, convolution in facts.convolutions(model).items():
            weight = convolution.weight.detach()
            scores[layer] = importance(weight, theirs)
            assert ours(weight.double().flatten(1)).argsort().tolist() == scores[layer].argsort().tolist()
        found = compress(model, method=method, amount="0.60", iterations=1)
        assert found.layers
        for layer in found.layers:
            rows = found.masks.kept[f"{layer}.weight"].flatten(1).all(dim=1)
            assert rows.tolist() == kept(scores[layer], "0.60")


def test_filter_local_magnitude_has_the_masks_of_torch_pruning() -> None:
    for name in ("cnn", "residual"):
        model = networks()[name]
        found = compress(model, method="filter-local-magnitude", amount="0.60").masks.kept
        for layer, convolution in facts.convolutions(model).items():
            rows = found[f"{layer}.weight"].flatten(1).all(dim=1).tolist()
            assert rows == kept(importance(convolution.weight, MAGNITUDE(p=1)), "0.60")


def test_torch_prunings_geometric_median_does_not_see_signs() -> None:
    """Its FPGM is not He et al.'s, whose distance of a filter to its negative is twice the norm and not zero."""
    weight = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [2.0, 2.0]]).reshape(3, 2, 1, 1)
    blind = importance(weight, torch_pruning.importance.FPGMImportance(p=1, normalizer=None))
    assert blind.tolist() == [1, 1, 2]
    far = 20**0.5
    expected = torch.tensor([far + 1, far + 5, 1 + 5.0])
    assert torch.allclose(geometric_median(weight.flatten(1)), expected)
