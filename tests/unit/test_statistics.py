from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from pytest_prunerob.errors import ClaimError
from pytest_prunerob.statistics import (
    auc,
    clopper_pearson,
    lower_bound,
    lower_quantile,
    mann_whitney_p,
    paired_lower_bound,
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
