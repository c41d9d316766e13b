"""Bounds and tests, each with its source. Counts in, floats out; nothing here knows about models."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction
from math import exp, inf, log, sqrt
from statistics import fmean, median, stdev

from pytest_prunerob.errors import ClaimError

HALVINGS = 100  # of an interval of length ≤2 in a bisection: below the spacing of floats (ours)


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


def binomial_p(successes: int, n: int, threshold: Fraction) -> float:
    """Exact p-value of "the proportion is below ``threshold``": how likely that many successes are at the threshold.

    The bound of :func:`lower_bound` reaches the threshold exactly where this is at most 1 − confidence.
    """
    from scipy.stats import binom

    if n < 1:
        raise ClaimError("an empty sample has no p-value")
    if threshold <= 0:  # no proportion is below
        return 0.0
    return float(binom.sf(successes - 1, n, float(min(threshold, Fraction(1)))))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact one-sided p-value of P(first) ≤ P(second) from the discordant pairs (McNemar 1947, by the binomial)."""
    from scipy.stats import binom

    return float(binom.sf(only_first - 1, only_first + only_second, 0.5))


def tango_interval(only_first: int, only_second: int, n: int, confidence: float) -> tuple[float, float]:
    """Two-sided score interval for the difference of two paired proportions, P(first) − P(second) (Tango 1998).

    The differences that the score test does not reject. It covers closely and not exactly: shown, never a gate.

    Raises:
        ClaimError: for an empty sample.
    """
    from scipy.stats import norm

    if n < 1:
        raise ClaimError("an empty sample has no proportion")
    critical = float(norm.isf((1.0 - confidence) / 2))
    ends = []
    for end in (-1.0, 1.0):
        near, far = (only_first - only_second) / n, end
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            inside = abs(tango_score(only_first, only_second, n, middle)) < critical
            near, far = (middle, far) if inside else (near, middle)
        ends.append(far)
    return ends[0], ends[1]


def tango_p(only_first: int, only_second: int, n: int, difference: Fraction) -> float:
    """One-sided p-value of P(first) − P(second) < ``difference`` by the score test (Tango 1998); approximate."""
    from scipy.stats import norm

    if n < 1:
        raise ClaimError("an empty sample has no p-value")
    if abs(difference) >= 1:
        return 0.0 if difference < 0 else 1.0
    return float(norm.sf(tango_score(only_first, only_second, n, float(difference))))


def tango_score(only_first: int, only_second: int, n: int, difference: float) -> float:
    """The score statistic of P(first) − P(second) = ``difference``, in standard deviations (Tango 1998, eq. 8 to 10).

    Its variance takes P(only second) at the root of the likelihood equation under the hypothesis.
    """
    linear = (2 * n - only_first + only_second) * difference - only_first - only_second
    constant = -only_second * difference * (1 - difference)
    nuisance = (sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * nuisance + difference * (1 - difference))
    excess = only_first - only_second - n * difference
    if variance <= 0:
        return 0.0 if excess == 0 else inf if excess > 0 else -inf
    return float(excess / sqrt(variance))


def auc_lower_bound(value: Fraction, smaller: int, confidence: float) -> float:
    """Lower bound for the probability that :func:`auc` estimates; ``smaller`` is the size of the smaller group.

    The Chernoff form of Hoeffding's inequality, which he extends to two-sample U-statistics (Hoeffding 1963, theorem 1
    with section 5): the AUC is an average of averages of ``smaller`` independent pairs, so it is no more likely to
    stray than one of those. It holds for every distribution and with ties, unlike the intervals of Hanley & McNeil or
    DeLong, and unlike the exact bound of ``smaller`` chosen pairs it does not depend on which pairs are chosen.

    Raises:
        ClaimError: for an empty group.
    """
    if smaller < 1:
        raise ClaimError("an empty group has no AUC")
    point, cost = float(value), log(1 / (1.0 - confidence))
    low, high = 0.0, point
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        outside = smaller * _divergence(point, middle) > cost
        low, high = (middle, high) if outside else (low, middle)
    return low


def auc_p(value: Fraction, smaller: int, threshold: Fraction) -> float:
    """p-value of "the probability is below ``threshold``", to the bound of :func:`auc_lower_bound`."""
    if threshold <= 0:
        return 0.0
    if value <= threshold:
        return 1.0
    return exp(-smaller * _divergence(float(value), float(threshold)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family adjusted for their number (Holm 1979), in the order given.

    Raises:
        ClaimError: for what is no probability.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ClaimError(f"p-values lie between 0 and 1, received {p!r}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


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


def next_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float, float]:
    """Mean, standard deviation and the two-sided interval of one more value: mean ± t·sd·√(1 + 1/n), by Student's t.

    It takes the values for normal (Hahn & Meeker 1991, Sec. 4.7). Values of one series that hang together, such as
    timings, say less about a mean than t·sd/√n claims.

    Raises:
        ClaimError: for fewer than two values.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        raise ClaimError(f"{n} values have no standard deviation: at least 2 are needed")
    mean, deviation = fmean(values), stdev(values)
    half = float(t.isf((1.0 - confidence) / 2, n - 1)) * deviation * sqrt(1 + 1 / n)
    return mean, deviation, mean - half, mean + half


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The median and its two-sided interval by order statistics, which holds for every continuous distribution.

    Its ends are the k-th smallest and the k-th largest of n values with the largest k for which fewer than k of n fair
    coins fall one way with a probability of at most half the error (David & Nagaraja 2003, section 7.1). Too few values
    (five for 95 %) bound nothing: -inf and +inf.

    Raises:
        ClaimError: for an empty sample.
    """
    from scipy.stats import binom

    n = len(values)
    if n < 1:
        raise ClaimError("an empty sample has no median")
    ordered, error = sorted(values), (1.0 - confidence) / 2
    k = next(k for k in range(n + 1) if float(binom.cdf(k, n, 0.5)) > error)
    if k == 0:
        return median(ordered), -inf, inf
    return median(ordered), ordered[k - 1], ordered[n - k]


def _divergence(first: float, second: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions."""
    parts = ((first, second), (1 - first, 1 - second))
    if any(p > 0 and q <= 0 for p, q in parts):
        return inf
    return sum(p * log(p / q) for p, q in parts if p > 0)
