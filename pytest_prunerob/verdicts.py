"""From what is known about each measure to the verdict of a claim: pure functions, no measuring.

A claim is one or more differences that must not be negative (positive, where strict). Each measure is known as an
interval; interval arithmetic over exact fractions tells whether the difference is settled whatever the rest turns out
to be. So a claim can be decided early, and an undecided sample supports nothing in either direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isnan
from typing import Literal

from pytest_prunerob.claims import Claim, Measure, Quantity
from pytest_prunerob.statistics import clopper_pearson, lower_bound, paired_lower_bound, upper_bound

Status = Literal["supported", "refuted", "inconclusive", "error"]
Decision = Literal["exact", "bound", "sequential"]
Bound = Fraction | float  # a float only for ±inf
Flags = Callable[[Measure], Sequence[bool]]


@dataclass(frozen=True)
class Known:
    """What is known about one measure.

    ``low`` and ``high`` bound its value on these samples; ``complete`` says that everything was measured. ``distrust``
    is the reason why survival does not count here: ``low`` already leaves survivors out then, and for measures that
    lean on survival in both directions the interval is as wide as the metric. ``value`` is the measured number even
    then. ``error`` makes any claim an error.
    """

    low: Bound
    high: Bound
    n: int = 0
    complete: bool = True
    distrust: str = ""
    error: str = ""
    note: str = ""
    attack: str = ""
    measurement: str | None = None
    share: bool = False  # a proportion of the n samples, so that intervals apply
    value: Bound | None = None
    settle: str = ""  # what would settle a claim that this measure leaves open

    @property
    def number(self) -> Bound | None:
        """The measured number, where there is exactly one."""
        return self.low if self.low == self.high else self.value


@dataclass(frozen=True)
class Term:
    """One measure of a claim as it stood when the verdict was given; numbers are plain floats for the report."""

    measure: Measure
    factor: Fraction
    known: Known
    interval: tuple[float, float] | None

    @property
    def value(self) -> float | None:
        """The value where it is exactly known."""
        return None if self.known.number is None else float(self.known.number)


@dataclass(frozen=True)
class Verdict:
    """The judgement of one claim: status, reason, what it stands on.

    ``margin`` bounds the (smallest) difference by which the claim holds (negative: by which it fails). ``stands_on``
    names the attack stages whose adequacy makes survival count. ``decision`` says how it was decided: "exact" (on these
    samples), "bound" (population=distribution), "sequential". ``score_interval`` is Tango's interval of a paired
    difference, ``p_value`` the one-sided one of the claim's null hypothesis.
    """

    status: Status
    reason: str
    margin: tuple[float, float] | None
    terms: tuple[Term, ...]
    population: str
    confidence: float
    settle: str = ""
    stands_on: str = ""
    decision: Decision = "exact"
    score_interval: tuple[float, float] | None = None
    p_value: float | None = None

    @property
    def n(self) -> int:
        """Number of samples."""
        return max((term.known.n for term in self.terms), default=0)

    @property
    def complete(self) -> bool:
        """Whether every measure was measured completely."""
        return all(term.known.complete for term in self.terms)

    @property
    def attack(self) -> str:
        """The attack sets the verdict stands on."""
        return "; ".join(dict.fromkeys(term.known.attack for term in self.terms if term.known.attack))


def bounds(difference: Quantity, known: Mapping[Measure, Known]) -> tuple[Bound, Bound]:
    """Interval of ``difference`` from the intervals of its measures."""
    low: Bound = difference.constant
    high: Bound = difference.constant
    for measure, factor in difference.terms:
        ends = (known[measure].low, known[measure].high) if factor > 0 else (known[measure].high, known[measure].low)
        low, high = low + factor * ends[0], high + factor * ends[1]
    return low, high


def settled(claim: Claim, known: Mapping[Measure, Known]) -> Literal["supported", "refuted"] | None:
    """The status that no further measuring can change, or ``None`` while the claim is open."""
    supported = True
    for difference in claim.differences:
        low, high = bounds(difference, known)
        if high < 0 or (claim.strict and high == 0):
            return "refuted"
        # NaN (inf − inf) fails both comparisons and so leaves the claim open.
        supported = supported and (low > 0 or (low == 0 and not claim.strict))
    return "supported" if supported else None


def judge(
    claim: Claim,
    known: Mapping[Measure, Known],
    *,
    population: str,
    confidence: float,
    flags: Flags,
    unfinished: str = "",
) -> Verdict:
    """The verdict of ``claim`` as things stand.

    ``flags`` gives the per-sample outcomes of a complete share, for ``population="distribution"``. ``unfinished`` says
    why no more is measured although the claim is open.
    """

    def verdict(status: Status, reason: str, settle: str = "") -> Verdict:
        return Verdict(
            status, reason, _margin(claim, known), _terms(claim, known, confidence), population, confidence, settle
        )

    errors = list(dict.fromkeys(item.error for item in known.values() if item.error))
    if errors:
        return verdict("error", "; ".join(errors))
    notes = "; ".join(dict.fromkeys(item.note for item in known.values() if item.note))
    status = settled(claim, known)
    if status is not None and population == "distribution" and any(item.n for item in known.values()):
        return verdict(*_distribution(claim, known, confidence, flags))
    if status is not None:
        return verdict(status, notes)
    distrust = list(dict.fromkeys(item.distrust for item in known.values() if item.distrust))
    if distrust:
        settle = "; ".join(dict.fromkeys(item.settle for item in known.values() if item.settle))
        return verdict("inconclusive", "; ".join(distrust), settle or "a model or an attack without this finding")
    if unfinished:
        return verdict("inconclusive", unfinished, "running the remaining stages")
    if any(measure.number is not None for measure in known):
        return verdict("inconclusive", "the difference lies within the printed digits of the reported number")
    return verdict("inconclusive", notes or "some samples have no outcome", "outcomes for the undecided samples")


def _distribution(
    claim: Claim, known: Mapping[Measure, Known], confidence: float, flags: Flags
) -> tuple[Status, str, str]:
    """One-sided bounds for the population that the samples were drawn from (design 4.4)."""
    if len(claim.differences) != 1 or not all(item.share and item.complete for item in known.values()):
        return "inconclusive", "population=distribution judges complete shares and their paired differences only", ""
    if any(item.number is None for item in known.values()):  # the flags have no third value for such a sample
        notes = "; ".join(dict.fromkeys(item.note for item in known.values() if item.note))
        return "inconclusive", notes or "some samples have no outcome", "outcomes for the undecided samples"
    (difference,) = claim.differences
    low, high = _population_bounds(difference, flags, confidence)
    if low > 0 or (low == 0 and not claim.strict):
        return "supported", "", ""
    if high < 0 or (high == 0 and claim.strict):
        return "refuted", "", ""
    return (
        "inconclusive",
        f"the {confidence:.0%} bounds of the difference are [{low:+.4f}, {high:+.4f}]",
        "more samples",
    )


def _population_bounds(difference: Quantity, flags: Flags, confidence: float) -> tuple[float, float]:
    constant = float(difference.constant)
    terms = difference.terms
    if len(terms) == 1:
        (measure, factor) = terms[0]
        outcome = flags(measure)
        ends = [float(factor) * bound(sum(outcome), len(outcome), confidence) for bound in (lower_bound, upper_bound)]
        return constant + min(ends), constant + max(ends)
    if len(terms) == 2 and terms[0][1] == -terms[1][1]:
        scale = float(abs(terms[0][1]))
        plus, minus = sorted(terms, key=lambda term: term[1], reverse=True)
        pairs = list(zip(flags(plus[0]), flags(minus[0]), strict=True))
        first, second = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
        low = paired_lower_bound(first, second, len(pairs), confidence)
        high = -paired_lower_bound(second, first, len(pairs), confidence)
        return constant + scale * low, constant + scale * high
    return float("-inf"), float("inf")


def _margin(claim: Claim, known: Mapping[Measure, Known]) -> tuple[float, float] | None:
    ends = [tuple(float(end) for end in bounds(difference, known)) for difference in claim.differences]
    if any(isnan(end) for pair in ends for end in pair):
        return None
    return min(pair[0] for pair in ends), min(pair[1] for pair in ends)


def _terms(claim: Claim, known: Mapping[Measure, Known], confidence: float) -> tuple[Term, ...]:
    terms = []
    for measure, factor in dict(term for d in reversed(claim.differences) for term in d.terms).items():
        item = known[measure]
        interval = None
        if item.share and item.complete and item.number is not None and item.n > 0:
            interval = clopper_pearson(int(item.number * item.n), item.n, confidence)
        terms.append(Term(measure, factor, item, interval))
    return tuple(terms)
