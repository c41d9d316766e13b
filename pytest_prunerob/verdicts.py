"""From what is known about each measure to the verdict of a claim: pure functions, no measuring.

A claim is one or more differences that must not be negative (positive, where strict). Each measure is known as an
interval; interval arithmetic over exact fractions tells whether the difference is settled whatever the rest turns out
to be. So a claim can be decided early, and an undecided sample supports nothing in either direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isnan
from typing import Literal

from pytest_prunerob.claims import Claim, Measure, Quantity
from pytest_prunerob.errors import ClaimError
from pytest_prunerob.inference import SMALLEST_GROUP, Demand, Evidence, Pairs, Separation, Share, infer
from pytest_prunerob.known import Known, bounds, demanded, paired, rest, settled, undecided, whole_number, without_nan
from pytest_prunerob.sequential import Stop, stop_difference, stop_share
from pytest_prunerob.statistics import clopper_pearson, tango_interval

Status = Literal["supported", "refuted", "inconclusive", "error"]
Decision = Literal["exact", "bound", "sequential"]
Flags = Callable[[Measure], Sequence[bool]]


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


# Larger values of these are evidence of robustness; the others lean on survival in both directions.
RISING_WITH_SURVIVAL = ("robust_accuracy", "failed", "security_curve")
LEANING = (*RISING_WITH_SURVIVAL, "distance", "critical_strength", "auc_s10", "auc_s01", "p_s10", "p_s01")


def leaning(claim: Claim, verdict: Verdict) -> list[Measure]:
    """The measures whose survivors ``verdict`` needs: those with which it would not be settled otherwise (design 4.3).

    A verdict that witnesses alone settle needs none.
    """
    if verdict.status not in ("supported", "refuted"):
        return []
    known = {term.measure: term.known for term in verdict.terms}
    differences = claim.differences
    if verdict.status == "refuted":  # by those that cannot hold
        differences = tuple(d for d in differences if bounds(d, known)[1] <= 0) or differences
    sign = 1 if verdict.status == "supported" else -1
    found = [
        measure
        for measure, factor in dict.fromkeys(term for d in differences for term in d.terms)
        if measure.metric in LEANING and (measure.metric not in RISING_WITH_SURVIVAL or sign * factor > 0)
    ]
    without = {m: replace(item, low=Fraction(0)) if m in found else item for m, item in known.items()}
    alone = all(measure.metric in RISING_WITH_SURVIVAL for measure in found)
    if alone and verdict.decision == "exact" and settled(claim, without) == verdict.status:
        return []
    return [m for m in dict.fromkeys(found) if m.metric not in RISING_WITH_SURVIVAL or known[m].low > 0]


def judge(
    claim: Claim,
    known: Mapping[Measure, Known],
    *,
    population: str,
    confidence: float,
    flags: Flags,
    unfinished: str = "",
    prefix: Flags | None = None,
) -> Verdict:
    """The verdict of ``claim`` as things stand.

    ``flags`` gives the per-sample outcomes of a complete share. ``unfinished`` says why no more is measured although
    the claim is open. ``prefix`` gives the outcomes of the first samples up to the first that has none, where the claim
    may be decided by them (``decide=sequential``).
    """
    known = {measure: without_nan(measure, item) for measure, item in known.items()}

    def verdict(status: Status, reason: str, settle: str = "") -> Verdict:
        return Verdict(
            status, reason, _margin(claim, known), _terms(claim, known, confidence), population, confidence, settle
        )

    errors = list(dict.fromkeys(item.error for item in known.values() if item.error))
    if errors:
        return verdict("error", "; ".join(errors))
    try:
        found = _decided(claim, known, verdict, population, confidence, flags, unfinished, prefix)
        return replace(found, score_interval=_score_interval(claim, known, flags, confidence))
    except ClaimError as error:
        return verdict("error", str(error))


def may_stop(claim: Claim, known: Mapping[Measure, Known]) -> bool:
    """Whether the first samples may decide ``claim``: it is about one share, or about the difference of two."""
    if demanded(claim, known) is not None:
        return True
    (first, *others) = claim.differences
    ends = rest(first, known)
    return not others and ends is not None and ends[0] == ends[1] and paired(first, known) is not None


def stopped(
    claim: Claim, known: Mapping[Measure, Known], prefix: Flags, confidence: float
) -> tuple[Stop, str, int, tuple[float, float]] | None:
    """Where the first samples decide ``claim`` (``decide=sequential``), or ``None``.

    With the text of the sum that was followed, the number of all samples, and the ends of the claim's (smallest)
    difference. Only while something is left to measure: after that the exact rule decides.
    """
    if all(item.complete for item in known.values()) or not may_stop(claim, known):
        return None
    error = 1 - Fraction(repr(confidence))
    single = demanded(claim, known)
    if single is not None:
        measure, least, most = single
        item = known[measure]
        found = stop_share(prefix(measure), item.n, error, least, most, trusted=not item.distrust)
        if found is None:
            return None
        ends = {**known, measure: replace(item, low=Fraction(found.low, item.n), high=Fraction(found.high, item.n))}
        return found, measure.text, item.n, _margin(claim, ends) or (float("-inf"), float("inf"))
    pair, ends_of_rest = paired(claim.differences[0], known), rest(claim.differences[0], known)
    assert pair is not None  # what may_stop says
    assert ends_of_rest is not None
    (plus, minus, scale), others = pair, ends_of_rest[0]
    n = known[plus].n
    differences = [int(a) - int(b) for a, b in zip(prefix(plus), prefix(minus), strict=False)]
    found = stop_difference(
        differences,
        n,
        error,
        whole_number(-others * n / scale, strict=claim.strict),
        may_support=not known[plus].distrust,
        may_refute=not known[minus].distrust,
    )
    if found is None:
        return None
    low, high = (float(others + scale * Fraction(end, n)) for end in (found.low, found.high))
    return found, f"{plus.text} - {minus.text}", n, (low, high)


def _decided(
    claim: Claim,
    known: Mapping[Measure, Known],
    verdict: Callable[..., Verdict],
    population: str,
    confidence: float,
    flags: Flags,
    unfinished: str,
    prefix: Flags | None,
) -> Verdict:
    """The verdict of a claim without an error."""
    notes = "; ".join(dict.fromkeys(item.note for item in known.values() if item.note))
    status = settled(claim, known)
    remaining = f"running again, which goes on where this run stopped: {undecided(claim, known)}"
    if unfinished and population == "distribution" and not all(item.complete for item in known.values()):
        return verdict("inconclusive", unfinished, remaining)
    if status is not None and population == "distribution" and any(item.n for item in known.values()):
        return _on_population(claim, known, verdict, confidence, flags, notes)
    if status is not None:
        return verdict(status, notes)
    stop = stopped(claim, known, prefix, confidence) if prefix is not None and population == "testset" else None
    if stop is not None:
        found, text, n, margin = stop
        reason = (
            f"after {found.seen:,} of {n:,} samples the {100 * confidence:g} % confidence set of {text} is "
            f"[{found.low / n:.4g}, {found.high / n:.4g}]"
        )
        return replace(verdict(found.status, reason), margin=margin, decision="sequential", p_value=found.p_value)
    distrust = list(dict.fromkeys(item.distrust for item in known.values() if item.distrust))
    if distrust:
        settle = "; ".join(dict.fromkeys(item.settle for item in known.values() if item.settle))
        return verdict("inconclusive", "; ".join(distrust), settle or "a model or an attack without this finding")
    if unfinished:
        return verdict("inconclusive", unfinished, remaining)
    measured = [item for measure, item in known.items() if measure.number is None]
    if len(measured) < len(known) and all(item.number is not None and not item.timed for item in measured):
        reason = "the difference lies within the printed digits of the reported number"
        return verdict("inconclusive", reason, "one more printed digit of the reported number")
    return verdict("inconclusive", notes or "some samples have no outcome", undecided(claim, known))


def _on_population(
    claim: Claim,
    known: Mapping[Measure, Known],
    verdict: Callable[..., Verdict],
    confidence: float,
    flags: Flags,
    notes: str,
) -> Verdict:
    """One-sided bounds for the population that the samples were drawn from (design 4.4)."""
    measured = [item for measure, item in known.items() if measure.number is None]
    if any(item.number is None or not item.complete for item in measured):  # the flags have no third value
        return verdict("inconclusive", notes or "some samples have no outcome", undecided(claim, known))
    demands = []
    for difference in claim.differences:
        evidence = _evidence(difference, known, flags)
        if isinstance(evidence, tuple):
            return verdict("inconclusive", *evidence)
        ends = rest(difference, known)
        assert ends is not None  # a settled claim has no infinite ends
        low, high = ends
        factor = next(factor for measure, factor in difference.terms if known[measure].n)
        scale = abs(factor)
        if factor < 0 and not isinstance(evidence, Pairs):
            evidence, whole = evidence.mirrored()
            low, high = low - scale * whole, high - scale * whole
        demands.append(Demand(evidence, -low / scale, -high / scale, scale, claim.strict))
    found = infer(demands, confidence)
    shown = f"[{found.bounds[0]:+.4f}, {found.bounds[1]:+.4f}]"
    reason = f"the one-sided {100 * confidence:g} % bounds of the difference are {shown}"
    full = verdict(found.status, "; ".join(part for part in (reason, notes) if part), found.settle)
    return replace(full, decision="bound", p_value=found.p_value)


def _evidence(difference: Quantity, known: Mapping[Measure, Known], flags: Flags) -> Evidence | tuple[str, str]:
    """What the samples say about the measured part of ``difference``; else the reason why nothing, and what settles."""
    sampled = [measure for measure, _ in difference.terms if known[measure].n]
    pair = paired(difference, known)
    if pair is not None:
        pairs = list(zip(flags(pair[0]), flags(pair[1]), strict=True))
        return Pairs(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs))
    item = known[sampled[0]] if len(sampled) == 1 else Known(0, 0)
    if item.share:
        outcomes = flags(sampled[0])
        return Share(sum(outcomes), len(outcomes))
    if item.smaller and isinstance(item.number, Fraction):
        if item.smaller >= SMALLEST_GROUP:
            return Separation(item.number, item.smaller)
        reason = f"the smaller group has {item.smaller} samples; for a population an AUC needs {SMALLEST_GROUP}"
        more = -(-item.n * SMALLEST_GROUP // item.smaller)
        return reason, f"about {more:,} samples in the two groups together at the rates of these {item.n:,}"
    return "population=distribution judges a share, the difference of two shares or an AUC, and this claim is none", ""


def _score_interval(
    claim: Claim, known: Mapping[Measure, Known], flags: Flags, confidence: float
) -> tuple[float, float] | None:
    """Tango's interval of a paired difference that is completely measured, unscaled, in the direction of the claim."""
    pair = paired(claim.differences[0], known)
    if pair is None or any(not known[m].complete or known[m].number is None for m in pair[:2]):
        return None
    evidence = _evidence(claim.differences[0], known, flags)
    assert isinstance(evidence, Pairs)
    return tango_interval(evidence.only_first, evidence.only_second, evidence.n, confidence)


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
        if item.timed and isinstance(item.low, Fraction) and isinstance(item.high, Fraction):
            interval = float(item.low), float(item.high)
        terms.append(Term(measure, factor, item, interval))
    return tuple(terms)
