"""What is known of each measure of a claim, and what that says about the claim: interval arithmetic over fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isinf
from typing import Literal

from pytest_prunerob.claims import Claim, Measure, Quantity

Bound = Fraction | float  # a float only for ±inf
SHOWN = 8  # sample numbers in a sentence (ours)


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
    smaller: int = 0  # of an AUC: the size of the smaller group
    timed: bool = False  # low and high are a confidence interval of repeated timings
    missing: tuple[int, ...] = ()  # the original numbers of the samples that will never have an outcome

    @property
    def number(self) -> Bound | None:
        """The measured number, where there is exactly one."""
        return self.low if self.low == self.high else self.value


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


def paired(difference: Quantity, known: Mapping[Measure, Known]) -> tuple[Measure, Measure, Fraction] | None:
    """The shares that a paired difference adds and subtracts, and its scale."""
    sampled = [(measure, factor) for measure, factor in difference.terms if known[measure].n]
    if len(sampled) != 2 or sampled[0][1] != -sampled[1][1] or not all(known[m].share for m, _ in sampled):
        return None
    (plus, scale), (minus, _) = sorted(sampled, key=lambda term: term[1], reverse=True)
    return plus, minus, scale


def rest(difference: Quantity, known: Mapping[Measure, Known]) -> tuple[Fraction, Fraction] | None:
    """Ends of what a difference has besides samples: numbers, facts, the printed digits of a reported number.

    ``None`` where they are not known.
    """
    low = high = difference.constant
    for measure, factor in difference.terms:
        if not known[measure].n:
            if any(isinf(end) for end in (known[measure].low, known[measure].high)):
                return None
            ends = [factor * Fraction(end) for end in (known[measure].low, known[measure].high)]
            low, high = low + min(ends), high + max(ends)
    return low, high


def demanded(claim: Claim, known: Mapping[Measure, Known]) -> tuple[Measure, int, int] | None:
    """For a claim about one share: the numbers of samples, from … to, that it wants to be members."""
    sampled = {measure for difference in claim.differences for measure, _ in difference.terms if known[measure].n}
    if len(sampled) != 1 or not known[measure := sampled.pop()].share:
        return None
    n = known[measure].n
    least, most = 0, n
    for difference in claim.differences:
        factor = dict(difference.terms).get(measure)
        ends = rest(difference, known)
        if not factor or ends is None or ends[0] != ends[1]:
            return None
        low = ends[0]
        if factor > 0:
            least = max(least, whole_number(-low * n / factor, strict=claim.strict))
        else:
            most = min(most, -whole_number(low * n / factor, strict=claim.strict))
    return measure, least, most


def whole_number(bound: Fraction, *, strict: bool) -> int:
    """The smallest whole number that is at least (``strict``: above) ``bound``."""
    return floor(bound) + 1 if strict else ceil(bound)


def undecided(claim: Claim, known: Mapping[Measure, Known]) -> str:
    """Which outcomes are missing and, for a claim about one share, how they would have to turn out."""
    parts = []
    for measure, item in known.items():
        if item.missing:
            numbers = ", ".join(map(str, item.missing[:SHOWN])) + (", …" if len(item.missing) > SHOWN else "")
            parts.append(f"outcomes of {measure.text} for {len(item.missing)} of {item.n} samples: numbers {numbers}")
        elif item.settle and item.complete and not item.distrust:
            parts.append(item.settle)
        elif item.share and not item.distrust and isinstance(gap := item.high - item.low, Fraction) and gap:
            parts.append(f"outcomes of {measure.text} for {gap * item.n} of {item.n} samples")
    range_ = demanded(claim, known)
    if range_ is not None and parts:
        measure, least, most = range_
        item = known[measure]
        if isinstance(item.low, Fraction) and not item.distrust:
            here = int(item.low * item.n)
            wanted = [f"at least {least - here}"] * (least > here) + [f"at most {most - here}"] * (most < item.n)
            parts.append(f"it holds if {' and '.join(wanted)} of them survive" if wanted else "")
    return "; ".join(part for part in parts if part) or "outcomes for the undecided samples"


def without_nan(measure: Measure, item: Known) -> Known:
    """``item``, or an error where one of its numbers is NaN: no comparison with it means anything."""
    if not any(number is not None and number != number for number in (item.low, item.high, item.value)):
        return item
    return Known(float("-inf"), float("inf"), item.n, complete=False, error=f"{measure.text} is NaN")
