from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from pytest_prunerob.errors import ClaimError
from pytest_prunerob.sequential import BETS, Stop, share_sets, stop_difference, stop_share, wealth

ALPHA = Fraction(1, 20)
outcomes = st.lists(st.booleans(), max_size=14)
steps = st.lists(st.sampled_from([-1, 0, 1]), max_size=12)


def orders(counts: dict[int, int]) -> Iterator[tuple[int, ...]]:
    """All orders of a multiset."""
    if not any(counts.values()):
        yield ()
    for value, count in counts.items():
        if count:
            for rest in orders({**counts, value: count - 1}):
                yield (value, *rest)


def in_set(k: int, survived: int, seen: int, total: int) -> bool:
    """The definition in whole numbers: posterior over prior above the error."""
    ways = math.comb(k, survived) * math.comb(total - k, seen - survived)
    return (seen + 1) * ways > ALPHA * math.comb(total, seen)


@given(outcomes, st.integers(0, 20))
def test_the_set_is_the_one_of_the_definition(seen: list[bool], unseen: int) -> None:
    total = len(seen) + unseen
    if total == 0:
        return
    low, high = share_sets(seen, total, ALPHA)
    for n in range(len(seen) + 1):
        survived = sum(seen[:n])
        members = [k for k in range(survived, total - n + survived + 1) if in_set(k, survived, n, total)]
        assert (low[n], high[n]) == (min(members), max(members))
        assert len(members) == high[n] - low[n] + 1  # without gaps


def test_the_set_is_the_one_of_the_paper() -> None:
    n, total, survived = 60, 200, 50
    low, high = share_sets([True] * survived + [False] * (n - survived), total, ALPHA)
    inside = [
        k
        for k in range(survived, total - n + survived + 1)
        if betabinom.logpmf(k, total, 1, 1) - betabinom.logpmf(k - survived, total - n, 1 + survived, 1 + n - survived)
        < math.log(20)
    ]
    assert (low[n], high[n]) == (inside[0], inside[-1])
    assert (low[0], high[0]) == (0, total)
    full_low, full_high = share_sets([True, False] * 100, total, ALPHA)
    assert (full_low[-1], full_high[-1]) == (100, 100)


@pytest.mark.parametrize("survivors", [0, 3, 6, 11])
def test_the_set_covers_at_all_times_in_95_percent_of_all_orders(survivors: int) -> None:
    found = []
    for order in orders({1: survivors, 0: 12 - survivors}):
        low, high = share_sets([bool(o) for o in order], 12, ALPHA)
        found.append(bool((low <= survivors).all() and (high >= survivors).all()))
    assert sum(found) / len(found) >= 0.95
    assert len(found) == math.comb(12, survivors)


@pytest.mark.parametrize(("up", "down", "same"), [(0, 1, 8), (1, 2, 6), (2, 4, 3), (0, 4, 5), (3, 3, 3)])
def test_bets_are_fair_and_rarely_won_against_the_truth(up: int, down: int, same: int) -> None:
    total, truth = up + down + same, up - down
    capital = np.array([wealth(order, total, truth) for order in orders({1: up, -1: down, 0: same})])
    # Against the true sum the mean over all orders stays 1 as long as there is a bet: a fair game.
    assert np.exp(capital[:, 1]).mean() == pytest.approx(1)
    assert (np.exp(capital).mean(axis=0) <= 1 + 1e-9).all()
    assert (capital.max(axis=1) >= math.log(20)).mean() <= 0.05
    weaker = np.array([wealth(order, total, truth + 1) for order in orders({1: up, -1: down, 0: same})])
    # A weaker hypothesis is never rejected earlier, so what is not rejected is a range.
    assert (np.maximum.accumulate(weaker, axis=1) <= np.maximum.accumulate(capital, axis=1) + 1e-9).all()


def test_a_bet_by_hand() -> None:
    # The hypothesis leaves a mean of m = (−2 + 8) / 16 on the scale (d + 1) / 2; the first difference is +1.
    stakes = np.sin(np.pi * (2 * np.arange(BETS) + 1) / (4 * BETS)) ** 2
    m = 6 / 16
    assert math.exp(wealth([1], 8, -2)[1]) == pytest.approx((1 - stakes + stakes / m).mean())
    assert math.exp(wealth([0], 8, -2)[1]) == pytest.approx((1 - stakes + stakes / 2 / m).mean())
    assert math.exp(wealth([-1], 8, -2)[1]) == pytest.approx((1 - stakes).mean())
    assert wealth([1, 1, -1], 3, 1)[3] == wealth([1, 1, -1], 3, 1)[2]  # it leaves a mean of 0, and 0 it is
    assert wealth([1, 1], 3, 0)[2] == math.inf  # 1 + 1 + (at least −1) > 0: false for certain
    assert wealth([-1, -1], 3, 2)[2] == wealth([-1], 3, 2)[1]  # no bet on what cannot happen any more


@given(outcomes, st.integers(1, 15), st.integers(0, 15), st.booleans())
def test_more_survivors_never_turn_supported_into_refuted(
    seen: list[bool], unseen: int, least: int, trusted: bool
) -> None:
    total = len(seen) + unseen
    before = stop_share(seen, total, Fraction(1, 3), least, total, trusted=trusted)
    for place, survived in enumerate(seen):
        if survived:
            continue
        after = stop_share(
            [*seen[:place], True, *seen[place + 1 :]], total, Fraction(1, 3), least, total, trusted=trusted
        )
        if before is not None and before.status == "supported":
            assert after is not None
            assert (after.status, after.seen <= before.seen) == ("supported", True)
        if after is not None and after.status == "refuted":
            assert before is not None
            assert before.status == "refuted"


@given(steps, st.integers(1, 12), st.integers(-12, 12))
def test_the_two_sides_of_a_difference_are_mirror_images(seen: list[int], unseen: int, least: int) -> None:
    total = len(seen) + unseen
    found = stop_difference(seen, total, Fraction(1, 3), least)
    other = stop_difference([-d for d in seen], total, Fraction(1, 3), 1 - least)
    assert (found is None) is (other is None)
    if found is not None and other is not None:
        assert {found.status, other.status} == {"supported", "refuted"}
        assert (found.seen, found.low, found.high) == (other.seen, -other.high, -other.low)
        assert found.low >= least if found.status == "supported" else found.high < least


def test_where_survival_does_not_count_it_supports_nothing() -> None:
    good, bad = [True] * 90, [False] * 90
    assert stop_share(good, 100, ALPHA, 50, 100) == Stop(
        "supported", 7, 51, 100, pytest.approx(8 * math.comb(49, 7) / math.comb(100, 7))
    )
    assert stop_share(good, 100, ALPHA, 50, 100, trusted=False) is None
    refuted = stop_share(bad, 100, ALPHA, 50, 100, trusted=False)
    assert refuted is not None
    assert (refuted.status, refuted.low) == ("refuted", 0)
    up = stop_difference([1] * 90, 100, ALPHA, 0)
    assert up is not None
    assert up.status == "supported"
    assert stop_difference([1] * 90, 100, ALPHA, 0, may_support=False) is None
    assert stop_difference([-1] * 90, 100, ALPHA, 0, may_refute=False) is None
    down = stop_difference([-1] * 90, 100, ALPHA, 0, may_support=False)
    assert down is not None
    assert (down.status, down.low) == ("refuted", -100)


def test_a_range_that_no_number_is_in_is_refuted_when_the_set_is_on_one_side_of_it() -> None:
    # Above 90 and below 91 of 100 there is no whole number.
    assert stop_share([], 100, ALPHA, 91, 90) is None
    found = stop_share([False] * 60, 100, ALPHA, 91, 90)
    assert found is not None
    assert (found.status, found.high < 91) == ("refuted", True)
    assert stop_share([True, False] * 3, 7, ALPHA, 4, 3) is None


@pytest.mark.parametrize(
    ("seen", "total", "error"),
    [([True] * 3, 2, ALPHA), ([], 0, ALPHA), ([True], 2, Fraction(0)), ([True], 2, Fraction(1))],
)
def test_what_cannot_be_is_refused(seen: Sequence[bool], total: int, error: Fraction) -> None:
    with pytest.raises(ClaimError, match=r"outcomes were seen of|lies between 0 and 1"):
        stop_share(seen, total, error, 1, total)


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=30, max_size=40), st.integers(0, 2**20), st.integers(5, 30))
def test_whatever_finishes_first_the_verdict_is_the_serial_one(outcome: list[bool], seed: int, least: int) -> None:
    total = len(outcome)
    serial = stop_share(outcome, total, Fraction(1, 4), least, total)
    done: set[int] = set()
    for position in random.Random(seed).sample(range(total), total):
        done.add(position)
        prefix = list(itertools.takewhile(done.__contains__, range(total)))
        found = stop_share([outcome[p] for p in prefix], total, Fraction(1, 4), least, total)
        assert found == (serial if serial is not None and serial.seen <= len(prefix) else None)
