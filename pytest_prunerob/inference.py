"""From samples to the population that they were drawn from: one-sided bounds, p-values, and how many samples settle it.

A piece of evidence bounds one number from below: a share, a paired difference of shares, an AUC. Its mirror image
bounds the same number from above. Counts in, numbers out; nothing here knows about claims or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isnan
from typing import Literal, Protocol

from pytest_prunerob.errors import ClaimError
from pytest_prunerob.statistics import (
    auc_lower_bound,
    auc_p,
    binomial_p,
    lower_bound,
    mcnemar_p,
    paired_lower_bound,
    tango_p,
)

SMALLEST_GROUP = 30  # an AUC of a population needs as many in the smaller group (design 4.4)
MOST_SAMPLES = 10_000_000  # beyond it, "how many would settle it" is no longer counted (ours)


class Evidence(Protocol):
    """What samples say about one number of the population."""

    @property
    def point(self) -> Fraction:
        """The number on the samples."""
        ...

    @property
    def size(self) -> int:
        """How many samples it rests on."""
        ...

    @property
    def unit(self) -> str:
        """What ``size`` counts."""
        ...

    def lower(self, confidence: float) -> float:
        """One-sided lower bound."""
        ...

    def p_value(self, threshold: Fraction) -> float:
        """One-sided p-value of "the number is below ``threshold``"."""
        ...

    def mirrored(self) -> tuple[Evidence, Fraction]:
        """Evidence of ``c`` minus the number, and ``c``."""
        ...

    def grown(self, size: int) -> Evidence:
        """As much evidence as ``size`` samples with the same rates give, rounded to its disadvantage."""
        ...


@dataclass(frozen=True)
class Share:
    """``members`` of ``n`` samples: exact binomial bounds (Clopper & Pearson 1934)."""

    members: int
    n: int
    unit: str = "samples"

    @property
    def point(self) -> Fraction:
        """The share."""
        return Fraction(self.members, self.n)

    @property
    def size(self) -> int:
        """The number of samples."""
        return self.n

    def lower(self, confidence: float) -> float:
        """Clopper-Pearson."""
        return lower_bound(self.members, self.n, confidence)

    def p_value(self, threshold: Fraction) -> float:
        """Binomial."""
        return binomial_p(self.members, self.n, threshold)

    def mirrored(self) -> tuple[Share, Fraction]:
        """The share of the others."""
        return replace(self, members=self.n - self.members), Fraction(1)

    def grown(self, size: int) -> Share:
        """The same share of ``size`` samples, rounded down."""
        return replace(self, members=self.members * size // self.n, n=size)


@dataclass(frozen=True)
class Pairs:
    """Paired outcomes of ``n`` samples: the difference P(first) − P(second), by an exact bound."""

    only_first: int
    only_second: int
    n: int
    unit: str = "samples"

    @property
    def point(self) -> Fraction:
        """The difference."""
        return Fraction(self.only_first - self.only_second, self.n)

    @property
    def size(self) -> int:
        """The number of pairs."""
        return self.n

    def lower(self, confidence: float) -> float:
        """Two Clopper-Pearson bounds, each at half of the error."""
        return paired_lower_bound(self.only_first, self.only_second, self.n, confidence)

    def p_value(self, threshold: Fraction) -> float:
        """McNemar's exact test against no difference, Tango's score test against any other."""
        if threshold == 0:
            return mcnemar_p(self.only_first, self.only_second)
        return tango_p(self.only_first, self.only_second, self.n, threshold)

    def mirrored(self) -> tuple[Pairs, Fraction]:
        """The difference the other way round."""
        return replace(self, only_first=self.only_second, only_second=self.only_first), Fraction(0)

    def grown(self, size: int) -> Pairs:
        """The same rates of discordant pairs, rounded down for the first and up for the second."""
        second = -(-self.only_second * size // self.n)
        return replace(self, only_first=self.only_first * size // self.n, only_second=second, n=size)


@dataclass(frozen=True)
class Separation:
    """An AUC of two groups, the smaller of ``smaller`` samples: Hoeffding's bound for U-statistics."""

    point: Fraction
    smaller: int
    unit: str = "samples in the smaller of the two groups"

    @property
    def size(self) -> int:
        """The size of the smaller group."""
        return self.smaller

    def lower(self, confidence: float) -> float:
        """Valid for every distribution."""
        return auc_lower_bound(self.point, self.smaller, confidence)

    def p_value(self, threshold: Fraction) -> float:
        """To the same bound."""
        return auc_p(self.point, self.smaller, threshold)

    def mirrored(self) -> tuple[Separation, Fraction]:
        """The AUC of the exchanged groups."""
        return replace(self, point=1 - self.point), Fraction(1)

    def grown(self, size: int) -> Separation:
        """The same AUC of larger groups."""
        return replace(self, smaller=size)


@dataclass(frozen=True)
class Demand:
    """That the number behind ``evidence`` is at least (``strict``: above) a threshold.

    ``threshold`` is what supports it and ``gives_up`` what refutes it: they differ by the printed digits of a reported
    number. ``scale`` and ``shift`` turn the number into the difference that a claim wants to be positive.
    """

    evidence: Evidence
    threshold: Fraction
    gives_up: Fraction
    scale: Fraction
    strict: bool

    def supported(self, confidence: float) -> bool:
        """Whether the lower bound reaches the threshold."""
        return _reaches(_bound(self.evidence, confidence), self.threshold, strict=self.strict)

    def refuted(self, confidence: float) -> bool:
        """Whether the upper bound stays below."""
        mirror, whole = self.evidence.mirrored()
        return _reaches(_bound(mirror, confidence), whole - self.gives_up, strict=not self.strict)

    def difference(self, confidence: float) -> tuple[float, float]:
        """One-sided bounds for the difference of the claim."""
        mirror, whole = self.evidence.mirrored()
        low = Fraction(_bound(self.evidence, confidence)) - self.threshold
        high = whole - Fraction(_bound(mirror, confidence)) - self.gives_up
        return float(self.scale * low), float(self.scale * high)

    @property
    def p_value(self) -> float:
        """Of the null hypothesis that the demand is not met."""
        return self.evidence.p_value(self.threshold)


@dataclass(frozen=True)
class Inference:
    """What the samples say about the demands of one claim, which holds if all of them are met."""

    status: Literal["supported", "refuted", "inconclusive"]
    bounds: tuple[float, float]
    p_value: float
    settle: str


def infer(demands: Sequence[Demand], confidence: float) -> Inference:
    """Judge all ``demands`` together at ``confidence`` (one-sided).

    All must be met, so each is tested at the full error (intersection-union, Berger 1982); one that fails refutes, so
    there the error is divided among them (Bonferroni).

    Raises:
        ClaimError: where a bound is NaN.
    """
    each = 1.0 - (1.0 - confidence) / len(demands)
    ends = [demand.difference(confidence) for demand in demands]
    bounds = min(low for low, _ in ends), min(high for _, high in ends)
    p_value = max(demand.p_value for demand in demands)
    if isnan(p_value):
        raise ClaimError("a p-value is NaN")
    if all(demand.supported(confidence) for demand in demands):
        return Inference("supported", bounds, p_value, "")
    if any(demand.refuted(each) for demand in demands):
        return Inference("refuted", bounds, p_value, "")
    settle = "; ".join(dict.fromkeys(text for d in demands if (text := how_many(d, confidence, each))))
    return Inference("inconclusive", bounds, p_value, settle)


def how_many(demand: Demand, confidence: float, refuting: float) -> str:
    """How many samples with the rates of these would settle ``demand``; empty where these support it.

    ``refuting`` is the confidence at which it is refuted.
    """
    if demand.supported(confidence):
        return ""
    point, unit, now = demand.evidence.point, demand.evidence.unit, demand.evidence.size
    if demand.gives_up <= point <= demand.threshold:
        return (
            f"no number of {unit} while the rates stay what they are: the measured value is the threshold itself"
            if demand.gives_up == demand.threshold
            else f"no number of {unit}: the value lies within the printed digits of the reported number"
        )
    above = point > demand.threshold
    level = confidence if above else refuting
    low, high = now, now
    while not _settles(demand, high, level):
        low, high = high, 2 * high
        if high > MOST_SAMPLES:
            return f"more than {MOST_SAMPLES:,} {unit} at the rates of these {now:,}"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _settles(demand, middle, level) else (middle, high)
    way = "" if above else ", which would refute it"
    return f"about {high:,} {unit} at the rates of these {now:,}{way}"


def _settles(demand: Demand, size: int, confidence: float) -> bool:
    if demand.evidence.point > demand.threshold:
        return replace(demand, evidence=demand.evidence.grown(size)).supported(confidence)
    # Grown as its mirror image, so that the rounding is against the refutation.
    mirror, whole = demand.evidence.mirrored()
    turned = Demand(mirror.grown(size), whole - demand.gives_up, Fraction(0), demand.scale, strict=not demand.strict)
    return turned.supported(confidence)


def _bound(evidence: Evidence, confidence: float) -> float:
    bound = evidence.lower(confidence)
    if isnan(bound):  # every comparison with it would be False, and so would be its negation
        raise ClaimError("a confidence bound is NaN")
    return bound


def _reaches(bound: float, threshold: Fraction, *, strict: bool) -> bool:
    exact = Fraction(bound)
    return exact > threshold if strict else exact >= threshold
