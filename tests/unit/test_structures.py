"""Pruning of structures: criteria in closed form, the counts of Algorithm 1 and the inequalities of Algorithm 2."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.compression import CompressedModel, compress
from pytest_prunerob.compression.criteria import CRITERIA, pls
from pytest_prunerob.compression.elements import filters, logits_without, whole_blocks, without
from pytest_prunerob.compression.residual_blocks import blocks
from pytest_prunerob.compression.single_elements import single_elements
from pytest_prunerob.compression.structures import constant_ratio
from pytest_prunerob.datasets import Dataset, load
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.fingerprint import fingerprint
from tests.conformance.quick import QuickTrainer, residual


class Tiny(nn.Module):
    """A 1×1 convolution with given weights (O, C) and biases, ReLU, global sum, and a linear layer."""

    def __init__(self, weight: list[list[float]], bias: list[float], readout: list[list[float]]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(len(weight[0]), len(weight), 1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(len(weight), len(readout), bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(weight)[..., None, None])
            self.conv.bias.copy_(torch.tensor(bias))  # type: ignore[union-attr]
            self.linear.weight.copy_(torch.tensor(readout))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.flatten(self.pool(self.relu(self.conv(x)))))
        return logits


class Shortcut(nn.Module):
    """``x + conv(x)`` twice and a readout; the second block adds a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.flatten = nn.Flatten()
        with torch.no_grad():
            for conv, weight, bias in ((self.one, 0.5, 0.0), (self.two, 0.0, -3.0)):
                conv.weight.fill_(weight)
                conv.bias.fill_(bias)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.one(x)
        logits: Tensor = self.flatten(x + self.two(x))
        return logits


def sample(x: Tensor, y: list[int] | None = None) -> Dataset:
    labels = torch.zeros(len(x), dtype=torch.int64) if y is None else torch.tensor(y)
    return Dataset("made", x, labels, 2)


def scored(name: str, model: nn.Module, data: Dataset) -> list[float]:
    """The scores of all filters of the only convolution."""
    before = fingerprint(model.eval())
    (scores,) = CRITERIA[name].filters(model, data).values()
    assert fingerprint(model) == before
    return [float(score) for score in scores]


def scored_blocks(name: str, data: Dataset) -> list[float]:
    model = Shortcut().eval()
    return [float(score) for score in CRITERIA[name].blocks(model, blocks(model), data)]


def test_l1_is_the_mean_absolute_weight() -> None:
    model = Tiny([[1.0, -3.0], [0.5, 0.0]], [9.0, 9.0], [[1.0, 1.0]])
    assert scored("l1", model, sample(torch.zeros(1, 2, 2, 2))) == [2.0, 0.25]
    network = residual()
    with torch.no_grad():
        network.get_parameter("blocks.2.conv1.weight").fill_(-0.75)
        network.get_parameter("blocks.2.conv2.weight").fill_(0.25)
    assert CRITERIA["l1"].blocks(network, blocks(network), None)[2] == 0.5


def test_expected_abs_is_the_mean_after_the_activation() -> None:
    model = Tiny([[0.0], [0.0], [1.0]], [0.5, -1.0, 0.0], [[1.0, 1.0, 1.0]])
    x = torch.stack([torch.full((1, 2, 2), 0.25), torch.full((1, 2, 2), 0.75)])
    assert scored("expected-abs", model, sample(x)) == [0.5, 0.0, 0.5]
    # The sums are 1.5·x and 1.5·x − 3, which ReLU cuts.
    assert scored_blocks("expected-abs", sample(x)) == [0.75, 0.0]


def test_hrank_is_the_rank_over_the_largest_possible() -> None:
    model = Tiny([[1.0], [0.0], [0.0], [-1.0]], [0.0, 2.0, 0.0, 0.0], [[1.0] * 4])
    half = torch.eye(4).clone()
    half[2:] = 0
    x = torch.stack([torch.eye(4), half])[:, None]
    assert scored("hrank", model, sample(x)) == [0.75, 0.25, 0.0, 0.0]
    assert scored_blocks("hrank", sample(x)) == [0.75, 0.0]


def test_kl_is_that_of_the_masked_output_from_the_whole_one() -> None:
    # Logits (a, 0) with a = 2, and (0, 0) without the first filter; the second is not read.
    model = Tiny([[0.0], [0.0]], [2.0, 5.0], [[1.0, 0.0], [0.0, 0.0]])
    p = 1 / (1 + math.exp(-2))
    expected = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    first, second = scored("kl", model, sample(torch.zeros(3, 1, 2, 2)))
    assert second == 0
    assert first == pytest.approx(expected, abs=1e-7)
    # Both blocks add the same to every logit of a uniform image, which changes no probability.
    uneven, even = scored_blocks("kl", sample(torch.tensor([[[[0.0, 1.0]]]])))
    assert uneven > 0.01
    assert even == pytest.approx(0, abs=1e-9)


def test_pls_finds_the_informative_filter() -> None:
    generator = torch.Generator().manual_seed(0)
    y = [0, 1] * 40
    x = torch.rand(80, 3, 2, 2, generator=generator)
    x[:, 1] = torch.tensor(y)[:, None, None] * 0.5 + 0.25
    model = Tiny([[0.1, 0.0, 0.0], [0.0, -0.1, 0.0], [0.0, 0.0, 0.1]], [0.0] * 3, [[1.0] * 3, [0.0] * 3])
    scores = scored("pls", model, sample(x, y))
    assert scores.index(max(scores)) == 1
    assert max(scores) > 2 * sorted(scores)[1]
    assert np.mean(np.square(scores)) == pytest.approx(1)


def test_vip_of_one_component_is_the_correlation() -> None:
    """Two classes and features that tell everything in one direction: ``VIP_j² = M · r_j² / Σ r²``."""
    labels = np.array([0, 0, 1, 1])
    features = np.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]]).T
    assert pls.vip(features, labels) == pytest.approx([math.sqrt(2), 0])
    assert pls.vip(np.ones((4, 3)), labels) == pytest.approx([0, 0, 0])
    assert pls.vip(features, np.zeros(4)) == pytest.approx([0, 0])


@pytest.mark.parametrize("amount", [Fraction("0.5"), Fraction("0.9")])
def test_each_iteration_takes_the_same_share_of_what_is_left(amount: Fraction) -> None:
    steps = constant_ratio(amount, 3)
    shares = [(now - before) / (1 - before) for before, now in zip((Fraction(0), *steps), steps, strict=False)]
    assert max(shares) - min(shares) < 2e-5
    assert (len(steps), steps[-1]) == (3, amount)
    assert constant_ratio(amount, 1) == (amount,)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    train = load("digits").train
    assert train is not None
    return train.first(32)


def gone(found: CompressedModel) -> tuple[int, int]:
    return (sum(number for number, _ in found.layers.values()), sum(total for _, total in found.layers.values()))


@pytest.mark.parametrize(
    ("method", "counts"),
    # Filters: ⌈0.6 · 88⌉. Layers: ⌈0.6 · 5⌉. Both: 3 blocks, and the 8 + 2 · 16 filters elsewhere are 45 with all 5.
    [("filters-l1", (53, 88)), ("layers-l1", (3, 5)), ("both-expected-abs", (27, 45))],
)
@pytest.mark.parametrize("iterations", [1, 3])
def test_the_last_iteration_lands_on_the_target(
    method: str, counts: tuple[int, int], iterations: int, digits: Dataset
) -> None:
    trainer = QuickTrainer(digits, steps=False)
    found = compress(residual(), method=method, amount="0.6", data=digits, trainer=trainer, iterations=iterations)
    assert gone(found) == counts
    assert len(trainer.tuned) == len(found.steps) == iterations
    zeros = [sum(int((~mask).sum()) for mask in masks.kept.values()) for masks in trainer.tuned]
    # Of five layers the third time takes none: ⌈0.46 · 5⌉ are three already.
    assert zeros == sorted(zeros)
    assert len(set(zeros)) == iterations - (method == "layers-l1" and iterations == 3)
    if "filters" not in method:
        assert sum(number for name, (number, _) in found.layers.items() if name.startswith("blocks.")) >= 3


def test_a_removed_block_counts_as_one_and_not_as_its_filters(digits: Dataset) -> None:
    found = compress(residual(), method="both-l1", amount="0.6", data=digits)
    whole = {name for name, counts in found.layers.items() if counts == (1, 1)}
    assert len(whole) == 3
    assert not any(name.startswith(f"{block}.") for name in found.layers for block in whole)
    assert sum(name in found.layers for name in ("conv", *(f"blocks.{i}.conv1" for i in range(5)))) == 3


def test_all_blocks_may_go(digits: Dataset) -> None:
    found = compress(residual(), method="layers-l1", amount="0.9")
    assert gone(found) == (5, 5)
    with torch.no_grad():
        logits = found.model(digits.x)
    assert logits.std(dim=0).min() > 0


@pytest.mark.parametrize(
    ("method", "instead"),
    [("layers-pls", "filters-pls"), ("both-kl", "filters-kl"), ("single-layer", "single-filter")],
)
def test_a_plain_network_has_no_layers_to_remove(method: str, instead: str, digits: Dataset) -> None:
    model = Tiny([[1.0]], [0.0], [[1.0], [0.0]])
    with pytest.raises(CompressionError, match=f"^{method} removes residual blocks .* Tiny has none; .*{instead}$"):
        compress(model, method=method, amount="0.5", data=digits)


@pytest.mark.parametrize("method", sorted(f"filters-{name}" for name in CRITERIA if name != "l1"))
def test_a_head_that_is_never_called_goes_first(method: str) -> None:
    model = Tiny([[1.0], [0.7], [0.3]], [0.1] * 3, [[1.0, 2.0, 3.0], [3.0, 2.0, 0.0]])
    model.head = nn.Conv2d(3, 4, 1)
    x = torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    found = compress(model, method=method, amount="0.4", data=sample(x, [0, 1] * 4))
    assert found.layers == {"conv": (0, 3), "head": (3, 4)}


def test_what_is_taken_out_comes_back_bit_for_bit() -> None:
    model = residual()
    before = fingerprint(model)
    element = filters(model)[9]
    assert (element.layer, element.index) == ("blocks.0.conv1", 1)

    def fail() -> None:
        with without(model, element):
            changed = {name for name, old in residual().named_parameters() if not torch.equal(old, state[name])}
            # The shift of a new normalisation is zero already.
            assert changed == {"blocks.0.conv1.weight", "blocks.0.bn1.weight"}
            assert not state["blocks.0.conv1.weight"][1].any()
            assert state["blocks.0.conv1.weight"][0].any()
            raise RuntimeError("stop")

    state = dict(model.named_parameters())
    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert fingerprint(model) == before


def test_starting_in_the_middle_gives_the_logits_of_a_whole_forward(digits: Dataset) -> None:
    model = residual()
    before = fingerprint(model)
    found = [*filters(model)[5::20], *whole_blocks(blocks(model))]
    places = []
    for place, whole, logits in logits_without(model, found, digits.x):
        places.append(place)
        with torch.no_grad():
            assert torch.equal(whole, model(digits.x))
            with without(model, found[place]):
                assert torch.equal(logits, model(digits.x))
        assert not torch.equal(logits, whole)
    assert sorted(places) == list(range(len(found)))
    assert fingerprint(model) == before


# Clean and robust accuracy by the filter that is missing (None: the whole network).
ACCURACIES: dict[int | None, tuple[float, Fraction]] = {
    None: (0.9, Fraction("0.3")),
    0: (0.9, Fraction("0.31")),  # as clean as before: not within 0, since the inequality is strict
    1: (0.91, Fraction("0.31")),
    2: (0.91, Fraction("0.3")),  # as robust as before: never
    3: (0.88, Fraction("0.99")),  # two points lost: within 3, not within 2
    4: (0.2, Fraction(1)),
}


def missing(model: nn.Module) -> int | None:
    empty = [index for index, weight in enumerate(model.get_parameter("conv.weight")) if not weight.any()]
    return empty[0] if empty else None


def test_both_inequalities_of_algorithm_2_are_strict() -> None:
    model = Tiny([[1.0]] * 5, [0.0] * 5, [[1.0] * 5]).train()
    before = fingerprint(model)
    found = single_elements(
        model, clean=lambda m: ACCURACIES[missing(m)][0], robust=lambda m: ACCURACIES[missing(m)][1]
    )
    assert fingerprint(model) == before
    assert model.training
    sets = {loss: [element.index for element in found.within(loss)] for loss in found.losses}
    assert sets == {0: [1], 1: [0, 1], 2: [0, 1], 3: [0, 1, 3], 4: [0, 1, 3], 5: [0, 1, 3]}
    assert found.shares()[3] == Fraction(3, 5)
    assert [element.index for element in found.ranked()] == [1, 0, 3, 4, 2]
    assert found.clean == Fraction("0.9")


def test_layers_are_elements_too() -> None:
    found = single_elements(residual(), structures="layers", clean=lambda _: 1.0, robust=lambda _: 0.0)
    assert [one.element.layer for one in found.singles] == [f"blocks.{index}" for index in range(5)]


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf])
def test_an_accuracy_that_is_none_is_an_error(value: float) -> None:
    with pytest.raises(CompressionError, match="robust accuracy of single elements: allowed is 0 to 1"):
        single_elements(residual(), structures="layers", clean=lambda _: 1.0, robust=lambda _: value)


def test_a_tiny_amount_removes_the_one_filter_that_helps_most(digits: Dataset) -> None:
    # Class 0 where the first channel is dark; the second filter does nothing but raise class 1 everywhere.
    model = Tiny([[-1.0], [0.0], [0.0]], [0.5, 0.2, 0.0], [[4.0, 0.0, 1.0], [0.0, 4.0, 0.0]])
    data = sample(torch.full((6, 1, 2, 2), 0.4), [0] * 6)
    trainer = QuickTrainer(data)
    found = compress(model, method="single-filter", amount="0.001", data=data, trainer=trainer)
    assert not found.model.get_parameter("conv.weight")[1].any()
    assert found.model.get_parameter("conv.bias")[1] == 0
    assert gone(found) == (2, 3)  # the third has no weights to begin with
    assert trainer.tuned == []
