"""Robust accuracy as a function of ε, as quantities: one minimum-norm measurement serves every ε."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pytest_prunerob.claims import Measure, Quantity, Subject, plan_of_kind
from pytest_prunerob.decimals import decimal, exact
from pytest_prunerob.errors import ClaimError, unknown
from pytest_prunerob.plans import Number, Plan
from pytest_prunerob.plans.plan import positive

LONGEST_SWEEP = 1000  # values of ε (ours): each is a point that a report prints


@dataclass(frozen=True)
class SecurityCurve:
    """Robust accuracy at each ε: iterate over pairs of ε (as it was written) and quantity, or ask ``at("0.1")``."""

    points: tuple[tuple[str, Quantity], ...]

    def __iter__(self) -> Iterator[tuple[str, Quantity]]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def at(self, eps: Number) -> Quantity:
        """The robust accuracy at ``eps``; raises ``ClaimError`` where the curve has no such ε."""
        wanted = Fraction(positive(eps))
        for text, quantity in self.points:
            if Fraction(text) == wanted:
                return quantity
        raise ClaimError(unknown("ε of this curve", str(eps), (text for text, _ in self.points)))


def security_curve(subject: Subject, plan: Plan, eps: Sequence[Number]) -> SecurityCurve:
    """The share of all samples that are classified correctly and whose distance under ``plan`` is above each ε.

    Raises:
        ClaimError: for a plan that measures no distances, or values that do not rise.
    """
    return SecurityCurve(tuple((text, at_strength(subject, plan, text)) for text in sweep("security_curve", eps)))


def at_strength(subject: Subject, plan: Plan, eps: Number) -> Quantity:
    """One point of the security curve of ``subject``; raises ``ClaimError`` for a plan that measures no distances."""
    plan = plan_of_kind(plan, ("minimum",), "security_curve")
    measure = Measure("security_curve", (subject,), plan, (("eps", positive(eps)),))
    return Quantity(subject.evaluation, ((measure, Fraction(1)),))


def critical_strength(
    dense: Subject, pruned: Subject, plan: Plan, *, eps: Sequence[Number], tolerance: Number
) -> Quantity:
    """The smallest ε of a sweep at which the robust accuracies of two subjects differ by more than ``tolerance``.

    In the unit of the norm of ``plan``, a minimum-norm plan; both robust accuracies are points of its security curves.
    A claim is judged by what the sweep shows: they part above the last ε at which they agree and at this one at the
    latest. So a finer sweep settles more.
    +inf where they differ by more at none of ``eps``: the sweep stops short of the strength at which the two part, or
    starts beyond the one at which both have lost everything (Gorsline et al. 2021: above a critical strength
    compression no longer changes robustness). Survival counts in both directions, so that the attack must be adequate
    on both subjects.

    Raises:
        ClaimError: for subjects on unrelated datasets, a plan that measures no distances, values that do not rise, or a
            tolerance that is not from 0 to below 1.
    """
    for subject in (dense, pruned):
        if not isinstance(subject, Subject):
            raise ClaimError(f"critical_strength(dense, pruned, ...) takes two subjects, not {type(subject).__name__}")
    if dense.dataset_digest != pruned.dataset_digest:
        raise ClaimError(
            f"critical_strength({dense.role}, {pruned.role}, ...) needs one dataset: "
            f"{dense.dataset_name}, {pruned.dataset_name}"
        )
    plan = plan_of_kind(plan, ("minimum",), "critical_strength")
    margin = exact(tolerance) if not isinstance(tolerance, str) else Fraction(positive(tolerance, "tolerance"))
    if not 0 <= margin < 1:
        raise ClaimError(f"critical_strength(..., tolerance={tolerance!r}): allowed is from 0 to below 1")
    options = (("eps", " ".join(sweep("critical_strength", eps))), ("tolerance", decimal(margin)))
    measure = Measure("critical_strength", (dense, pruned), plan, options)
    return Quantity(dense.evaluation, ((measure, Fraction(1)),))


def sweep(what: str, eps: Sequence[Number]) -> tuple[str, ...]:
    """The values of ``eps`` as they were written; raises ``ClaimError`` where they do not rise."""
    if isinstance(eps, str) or not isinstance(eps, Sequence):
        raise ClaimError(f"{what}(..., eps={eps!r}) takes a list, such as eps=['0.05', '0.1']")
    written = tuple(positive(value) for value in eps)
    if not written or len(written) > LONGEST_SWEEP:
        raise ClaimError(f"{what}(..., eps=...) has {len(written) or 'no'} ε: give 1 to {LONGEST_SWEEP}")
    values = [Fraction(text) for text in written]
    if sorted(set(values)) != values:
        raise ClaimError(f"{what}(..., eps={list(written)}) takes rising values, each once")
    return written
