"""Properties of the choice of what is pruned."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.schedules import exponential, halving
from pytest_prunerob.errors import CompressionError

Scope = Literal["global", "local"]
# Few values, so that many scores are equal.
LAYERS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=4)
AMOUNTS = st.fractions(0, Fraction(39, 40), max_denominator=40)


def choose(
    layers: list[list[int]], amount: Fraction, scope: Scope, *, kept: dict[str, Tensor] | None = None, spare: bool
) -> dict[str, Tensor] | None:
    """The choice by layer number, ``None`` where so many cannot go."""
    scores = {str(number): torch.tensor(layer, dtype=torch.float32) for number, layer in enumerate(layers)}
    everything = {name: torch.ones(len(score), dtype=torch.bool) for name, score in scores.items()}
    try:
        return weakest(scores, amount, scope=scope, kept=kept or everything, method="m", unit="units", spare=spare)
    except CompressionError:
        least = len(layers) if spare else 1
        total = sum(len(layer) for layer in layers)
        assert scope == "global"
        assert math.ceil(amount * total) > total - least
        return None


@given(layers=LAYERS, amount=AMOUNTS, scope=st.sampled_from(["global", "local"]), spare=st.booleans())
def test_as_many_go_as_are_asked_the_weakest_first_and_equal_ones_in_order(
    layers: list[list[int]], amount: Fraction, scope: Scope, spare: bool
) -> None:
    found = choose(layers, amount, scope, spare=spare)
    if found is None:
        return
    kept = [found[str(number)].tolist() for number in range(len(layers))]
    if scope == "local":
        for scores, row in zip(layers, kept, strict=True):
            count = min(math.ceil(amount * len(row)), len(row) - 1)
            # Sorting is stable: of equal scores the first comes first.
            order = sorted(range(len(row)), key=lambda one, scores=scores: scores[one])  # type: ignore[misc]
            assert [one for one in order if not row[one]] == order[:count]
        return
    assert sum(not keep for row in kept for keep in row) == math.ceil(amount * sum(len(row) for row in kept))
    pairs = [(layer, one) for layer, row in enumerate(kept) for one in range(len(row))]
    if spare:
        assert all(any(row) for row in kept)
        pairs = [(layer, one) for layer, one in pairs if one != layers[layer].index(max(layers[layer]))]
    order_of_all = sorted(pairs, key=lambda pair: layers[pair[0]][pair[1]])
    gone = [pair for pair in order_of_all if not kept[pair[0]][pair[1]]]
    assert gone == order_of_all[: len(gone)]


@given(
    layers=LAYERS,
    amounts=st.tuples(AMOUNTS, AMOUNTS).map(sorted),
    scope=st.sampled_from(["global", "local"]),
    spare=st.booleans(),
    data=st.data(),
)
def test_what_goes_at_a_smaller_amount_goes_at_a_larger_one_whatever_the_scores_become(
    layers: list[list[int]], amounts: list[Fraction], scope: Scope, spare: bool, data: st.DataObject
) -> None:
    few, many = (choose(layers, amount, scope, spare=spare) for amount in amounts)
    if few is None or many is None:
        return
    assert all(bool((few[name] | ~many[name]).all()) for name in few)
    later = [data.draw(st.lists(st.integers(0, 3), min_size=len(layer), max_size=len(layer))) for layer in layers]
    again = choose(later, amounts[1], scope, kept=few, spare=spare)
    assert again is not None
    assert all(bool((few[name] | ~again[name]).all()) for name in few)
    assert sum(int(row.sum()) for row in again.values()) == sum(int(row.sum()) for row in many.values())


@given(amount=AMOUNTS.filter(bool), initial=AMOUNTS, steps=st.integers(1, 20))
def test_schedules_rise_to_the_target(amount: Fraction, initial: Fraction, steps: int) -> None:
    for schedule in (halving(amount), exponential(initial, amount, steps)):
        assert list(schedule) == sorted(schedule)
        assert schedule[-1] == amount
    assert len(exponential(initial, amount, steps)) == (steps if initial < amount else 1)
    if steps > 1 and initial < amount:
        assert exponential(initial, amount, steps)[0] == initial


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
def test_the_choice_has_the_shape_of_the_scores_and_leaves_them_alone(shape: tuple[int, ...]) -> None:
    scores = {"a": torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)}
    before = scores["a"].clone()
    kept = {"a": torch.ones(shape, dtype=torch.bool)}
    for scope in ("global", "local"):
        found = weakest(scores, Fraction(1, 2), scope=scope, kept=kept, method="m", unit="units")  # type: ignore[arg-type]
        assert torch.equal(found["a"], before >= math.prod(shape) / 2)
        assert torch.equal(scores["a"], before)
        assert bool(kept["a"].all())
