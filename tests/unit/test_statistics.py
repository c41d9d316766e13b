from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from pytest_prunerob.errors import ClaimError
from pytest_prunerob.statistics import (
    auc,
    auc_lower_bound,
    auc_p,
    binomial_p,
    clopper_pearson,
    holm,
    lower_bound,
    lower_quantile,
    mann_whitney_p,
    mcnemar_p,
    median_interval,
    next_interval,
    paired_lower_bound,
    tango_interval,
    tango_p,
    tango_score,
    upper_bound,
)

inf, nan = math.inf, math.nan
distances = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.25, 3.0, inf]), min_size=1, max_size=12)


def test_clopper_pearson_against_closed_forms_and_tables() -> None:
    assert clopper_pearson(0, 20, 0.95) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)), abs=1e-12)
    assert clopper_pearson(20, 20, 0.95) == pytest.approx((0.025 ** (1 / 20), 1.0), abs=1e-12)
    assert clopper_pearson(10, 20, 0.95) == pytest.approx((0.27196, 0.72804), abs=1e-5)
    assert clopper_pearson(81, 263, 0.95) == pytest.approx((0.2527, 0.3676), abs=1e-4)  # Newcombe 1998, Table I
    assert lower_bound(100, 100, 0.95) == pytest.approx(0.05**0.01, abs=1e-12)
    assert upper_bound(0, 100, 0.95) == pytest.approx(1 - 0.05**0.01, abs=1e-12)
    assert lower_bound(0, 7, 0.95) == 0.0
    assert upper_bound(7, 7, 0.95) == 1.0
    assert lower_bound(92, 100, 0.95) == pytest.approx(0.8603, abs=1e-4)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_hold_the_point_and_cover(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = lower_bound(successes, n, 0.95), upper_bound(successes, n, 0.95)
    two = clopper_pearson(successes, n, 0.95)
    assert two[0] <= low <= successes / n <= high <= two[1]

    def tail(p: float, counts: range) -> float:
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    # The definition: at the bound, what was seen or more (or less) has probability 5 %.
    if successes > 0:
        assert tail(low, range(successes, n + 1)) == pytest.approx(0.05, abs=1e-6)
    if successes < n:
        assert tail(high, range(successes + 1)) == pytest.approx(0.05, abs=1e-6)


def test_paired_bound_against_closed_forms() -> None:
    # No discordant pair: 0 minus the upper bound 1 − (α/2)^(1/n).
    assert paired_lower_bound(0, 0, 100, 0.95) == pytest.approx(0.025**0.01 - 1, abs=1e-12)
    assert paired_lower_bound(0, 50, 50, 0.95) == -1.0
    assert paired_lower_bound(50, 0, 50, 0.95) == pytest.approx(0.025**0.02 - (1 - 0.025**0.02), abs=1e-12)
    half = lower_bound(12, 200, 0.975) - upper_bound(5, 200, 0.975)
    assert paired_lower_bound(12, 5, 200, 0.95) == pytest.approx(half, abs=1e-12)
    assert paired_lower_bound(12, 5, 200, 0.95) <= 7 / 200
    assert paired_lower_bound(12, 5, 200, 0.99) < paired_lower_bound(12, 5, 200, 0.95)


tables = st.integers(1, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n)))
)


def test_tango_against_published_intervals_and_closed_forms() -> None:
    # Fagerland, Lydersen & Laake 2014: airway hyper-responsiveness (Bentur 2009), complete response (Cavo 2012).
    assert tango_interval(1, 7, 21, 0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert tango_interval(6, 16, 161, 0.95) == pytest.approx((-0.124, -0.005), abs=5e-4)
    z2 = 1.959963985**2
    assert tango_interval(0, 0, 100, 0.95) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), abs=1e-9)
    # All pairs discordant in one way: Wilson's interval of 10/10.
    assert tango_interval(10, 0, 10, 0.95)[1] == 1.0
    # At no difference the score test is McNemar's (b − c) / √(b + c).
    assert tango_score(12, 5, 200, 0.0) == pytest.approx(7 / math.sqrt(17), abs=1e-12)
    assert tango_p(12, 5, 200, Fraction(0)) == pytest.approx(0.0448, abs=1e-4)


@given(tables, st.sampled_from([0.9, 0.95, 0.99]))
def test_tango_holds_the_point_turns_round_and_is_the_set_its_test_keeps(
    table: tuple[int, int, int], confidence: float
) -> None:
    b, c, n = table
    low, high = tango_interval(b, c, n, confidence)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert tango_interval(c, b, n, confidence) == pytest.approx((-high, -low), abs=1e-9)
    if -1 < low < (b - c) / n:
        assert tango_p(b, c, n, Fraction(low)) == pytest.approx((1 - confidence) / 2, abs=1e-6)
    assert tango_p(b, c, n, Fraction(-1)) == 0.0
    assert tango_p(b, c, n, Fraction(1)) == 1.0
    # The nuisance of the score is where the likelihood of the data is largest.
    difference = max(-0.9, min(0.9, (b - c) / n - 0.05))

    def likelihood(only_second: float) -> float:
        cells = ((b, only_second + difference), (c, only_second), (n - b - c, 1 - 2 * only_second - difference))
        if any(p < -1e-9 or (p <= 0 and count) for count, p in cells):
            return -inf
        return sum(count * math.log(p) for count, p in cells if count)

    score = tango_score(b, c, n, difference)
    if score:
        variance = ((b - c - n * difference) / score) ** 2 / n
        best = (variance - difference * (1 - difference)) / 2
        nearby = (likelihood(best + step) for step in (-1e-3, 1e-3))
        assert likelihood(max(0.0, -difference, best)) >= max(nearby) - 1e-9


@given(tables, st.fractions(0, 1, max_denominator=50))
def test_exact_p_values(table: tuple[int, int, int], threshold: Fraction) -> None:
    b, c, n = table
    weights = [math.comb(n, k) * threshold**k * (1 - threshold) ** (n - k) for k in range(n + 1)]
    expected = float(sum(weights[b:])) if threshold > 0 else 0.0
    assert binomial_p(b, n, threshold) == pytest.approx(expected, abs=1e-12)
    assert binomial_p(b, n, Fraction(-1, 9)) == 0.0
    assert binomial_p(b, n, Fraction(3, 2)) == 1.0
    halves = [math.comb(b + c, k) / 2 ** (b + c) for k in range(b + c + 1)]
    assert mcnemar_p(b, c) == pytest.approx(sum(halves[b:]), abs=1e-12)
    assert mcnemar_p(b, c) + mcnemar_p(c, b) >= 1


def test_an_auc_bound_for_every_distribution() -> None:
    # A perfect separation of k pairs bounds like k successes in k trials; a useless one says nothing.
    assert auc_lower_bound(Fraction(1), 30, 0.95) == pytest.approx(0.05 ** (1 / 30), abs=1e-9)
    assert auc_lower_bound(Fraction(0), 30, 0.95) == 0.0
    # Weaker than the exact bound of 27 in 30 chosen pairs, stronger than Hoeffding's plain 0.9 − √(ln 20 / 60).
    bound = auc_lower_bound(Fraction(9, 10), 30, 0.95)
    assert 0.9 - math.sqrt(math.log(20) / 60) < bound < lower_bound(27, 30, 0.95)
    assert auc_lower_bound(Fraction(9, 10), 300, 0.95) > bound
    assert auc_p(Fraction(9, 10), 30, Fraction(bound)) == pytest.approx(0.05, abs=1e-6)
    assert auc_p(Fraction(9, 10), 30, Fraction(9, 10)) == 1.0
    assert auc_p(Fraction(9, 10), 30, Fraction(0)) == 0.0
    assert auc_p(Fraction(9, 10), 30, Fraction(-1)) == 0.0
    assert auc_p(Fraction(1), 30, Fraction(1)) == 1.0


def test_the_auc_bound_covers_where_ties_and_skew_are_at_their_worst() -> None:
    rng = np.random.default_rng(3)
    misses = 0
    for _ in range(400):
        changed, kept = (rng.random(30) < 0.1).astype(float), np.zeros(60)  # the AUC is 0.45 of ties and misses
        misses += auc_lower_bound(auc(changed.tolist(), kept.tolist()), 30, 0.95) > 0.45
    assert misses <= 20


def test_holm_against_the_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # sorted: ×4, ×3, ×2, ×1
    assert holm([0.5, 0.5]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    for bad in (nan, -0.1, 1.1):
        with pytest.raises(ClaimError, match="p-values lie between 0 and 1"):
            holm([0.1, bad])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    for i, j in itertools.combinations(range(len(p_values)), 2):
        if p_values[i] < p_values[j]:
            assert adjusted[i] <= adjusted[j]
    smallest = min(p_values, default=1.0)
    assert min(adjusted, default=1.0) == pytest.approx(min(1.0, smallest * len(p_values))) or not p_values


def test_auc_by_hand() -> None:
    assert auc([0.1, 0.2], [0.3, 0.4]) == 1
    assert auc([0.3, 0.4], [0.1, 0.2]) == 0
    assert auc([0.1, 0.3], [0.2, 0.3]) == Fraction(5, 8)  # 1, 1, 0, ½ of four pairs
    assert auc([inf], [inf]) == Fraction(1, 2)
    assert auc([0.1, inf], [inf, 0.05]) == Fraction(1 + 0 + Fraction(1, 2) + 0, 4)


@given(distances, distances)
def test_auc_and_p_agree_with_the_libraries(first: list[float], second: list[float]) -> None:
    finite = {value: rank for rank, value in enumerate(sorted({*first, *second}))}
    a, b = [finite[v] for v in first], [finite[v] for v in second]
    expected = roc_auc_score([0] * len(a) + [1] * len(b), a + b)
    assert float(auc(first, second)) == pytest.approx(expected, abs=1e-12)
    assert auc(first, second) + auc(second, first) == 1
    p = mannwhitneyu(a, b, alternative="two-sided").pvalue
    assert mann_whitney_p(first, second) == pytest.approx(p, abs=1e-12)
    assert 0 <= mann_whitney_p(first, second) <= 1


def test_a_lower_quantile_is_a_value_of_the_sample() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    quantiles = {"0": 1.0, "1/4": 1.0, "0.26": 2.0, "1/2": 2.0, "3/4": 3.0, "0.76": 4.0, "1": 4.0}
    assert {q: lower_quantile(values, Fraction(q)) for q in quantiles} == quantiles
    assert lower_quantile([1.0, inf, inf], Fraction(1, 2)) == inf


@pytest.mark.parametrize(
    "ask",
    [
        lambda: clopper_pearson(0, 0, 0.95),
        lambda: lower_bound(0, 0, 0.95),
        lambda: upper_bound(0, 0, 0.95),
        lambda: paired_lower_bound(0, 0, 0, 0.95),
        lambda: tango_interval(0, 0, 0, 0.95),
        lambda: tango_p(0, 0, 0, Fraction(1, 2)),
        lambda: binomial_p(0, 0, Fraction(1, 2)),
        lambda: auc_lower_bound(Fraction(1), 0, 0.95),
        lambda: auc([], [1.0]),
        lambda: auc([1.0], []),
        lambda: auc([nan], [1.0]),
        lambda: auc([1.0], [nan]),
        lambda: mann_whitney_p([], [1.0]),
        lambda: mann_whitney_p([1.0], [nan]),
        lambda: lower_quantile([], Fraction(1, 2)),
        lambda: lower_quantile([nan], Fraction(1, 2)),
    ],
)
def test_nothing_and_nan_have_no_number(ask: Callable[[], object]) -> None:
    with pytest.raises(ClaimError, match=r"empty|NaN"):
        ask()


def test_the_interval_of_one_more_value_by_t_tables() -> None:
    mean, deviation, low, high = next_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.95)
    assert (mean, deviation) == (3.0, pytest.approx(math.sqrt(2.5)))
    assert (low, high) == pytest.approx((3 - 2.776445 * math.sqrt(3), 3 + 2.776445 * math.sqrt(3)), abs=1e-6)
    with pytest.raises(ClaimError, match="1 values have no standard deviation"):
        next_interval([1.0], 0.95)


def test_the_interval_of_a_median_by_tables_of_order_statistics() -> None:
    """At 95 %: none of 5 values, the ends of 6, the 6th and 15th of 20, the 40th and 61st of 100."""
    ranks = {5: (-inf, inf), 6: (1, 6), 8: (1, 8), 9: (2, 8), 20: (6, 15), 100: (40, 61)}
    for n, ends in ranks.items():
        assert median_interval([float(k) for k in range(n, 0, -1)], 0.95) == ((n + 1) / 2, *ends)
    for n in range(6, 60):  # the coverage, summed by hand: at least 95 %, and one rank further in it is not
        _, low, high = median_interval([float(k) for k in range(1, n + 1)], 0.95)
        within_ends = sum(math.comb(n, k) for k in range(int(low), int(high))) / 2**n
        closer = sum(math.comb(n, k) for k in range(int(low) + 1, int(high) - 1)) / 2**n
        assert closer < 0.95 <= within_ends
    with pytest.raises(ClaimError, match="an empty sample has no median"):
        median_interval([], 0.95)
