"""Bounds and tests, each with its source. Counts in, floats out; nothing here knows about models."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction

from pytest_prunerob.errors import ClaimError


def clopper_pearson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Two-sided exact interval for a proportion (Clopper & Pearson 1934).

    Raises:
        ClaimError: for an empty sample: no default number exists.
    """
    from scipy.stats import binomtest

    if n < 1:
        raise ClaimError("an empty sample has no proportion")
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="exact")
    return float(interval.low), float(interval.high)


def lower_bound(successes: int, n: int, confidence: float) -> float:
    """One-sided exact lower bound for a proportion (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    if n < 1:
        raise ClaimError("an empty sample has no proportion")
    test = binomtest(successes, n, alternative="greater")
    return float(test.proportion_ci(confidence_level=confidence, method="exact").low)


def upper_bound(successes: int, n: int, confidence: float) -> float:
    """One-sided exact upper bound for a proportion (Clopper & Pearson 1934)."""
    return 1.0 - lower_bound(n - successes, n, confidence)


def paired_lower_bound(only_first: int, only_second: int, n: int, confidence: float) -> float:
    """Lower bound for the difference of two paired proportions, P(first) − P(second).

    The exact lower bound of P(only first) minus the exact upper bound of P(only second), each at half of the error
    probability (Bonferroni over two Clopper-Pearson bounds), so that it holds for every joint distribution.
    """
    from scipy.stats import beta

    if n < 1:
        raise ClaimError("an empty sample has no proportion")
    half = (1.0 - confidence) / 2
    low = float(beta.ppf(half, only_first, n - only_first + 1)) if only_first > 0 else 0.0
    high = float(beta.isf(half, only_second + 1, n - only_second)) if only_second < n else 1.0
    return low - high


def auc(smaller: Sequence[float], larger: Sequence[float]) -> Fraction:
    """Probability that a member of ``smaller`` lies below one of ``larger``, ties counting half (Mann & Whitney 1947).

    +inf is a tie with +inf and above everything else.

    Raises:
        ClaimError: where a group is empty or a value is NaN.
    """
    if not smaller or not larger:
        raise ClaimError("an empty group has no AUC")
    if any(value != value for value in (*smaller, *larger)):
        raise ClaimError("a distance is NaN")
    ordered = sorted(larger)
    # Twice the number of larger members above each value, ties counted once: an integer, so the share is exact.
    twice = sum(2 * len(ordered) - bisect_right(ordered, v) - bisect_left(ordered, v) for v in smaller)
    return Fraction(twice, 2 * len(smaller) * len(larger))


def mann_whitney_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value of the Mann-Whitney U test (scipy); +inf ranks above everything else.

    Raises:
        ClaimError: where a group is empty or a value is NaN.
    """
    from scipy.stats import mannwhitneyu, rankdata

    if not first or not second:
        raise ClaimError("an empty group has no p-value")
    if any(value != value for value in (*first, *second)):
        raise ClaimError("a distance is NaN")
    ranks = rankdata([*first, *second])
    return float(mannwhitneyu(ranks[: len(first)], ranks[len(first) :], alternative="two-sided").pvalue)


def lower_quantile(values: Sequence[float], share: Fraction) -> float:
    """The smallest value v such that at least ``share`` of the values are ≤ v.

    Raises:
        ClaimError: for an empty sample or a NaN.
    """
    if not values:
        raise ClaimError("an empty sample has no quantile")
    if any(value != value for value in values):
        raise ClaimError("a distance is NaN")
    place = max(0, -(-(share * len(values)).numerator // (share * len(values)).denominator) - 1)
    return sorted(values)[place]
