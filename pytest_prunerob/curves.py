"""Robust accuracy as a function of ε, as quantities: one minimum-norm measurement serves all ε."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pytest_prunerob.claims import Measure, Quantity, Subject, plan_of_kind
from pytest_prunerob.errors import ClaimError, unknown
from pytest_prunerob.plans import Number, Plan
from pytest_prunerob.plans.plan import positive


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
    """The share of all samples that are classified correctly and whose distance under ``plan`` is above each ε."""
    plan = plan_of_kind(plan, ("minimum",), "security_curve")
    written = [positive(value) for value in ([eps] if isinstance(eps, str) else eps)]
    if not written:
        raise ClaimError("security_curve(plan, eps=[]) has no ε: give at least one")
    if sorted(set(map(Fraction, written))) != list(map(Fraction, written)):
        raise ClaimError(f"security_curve(plan, eps={written}) takes rising values, each once")
    return SecurityCurve(tuple((text, _at(subject, plan, text)) for text in written))


def _at(subject: Subject, plan: Plan, eps: str) -> Quantity:
    measure = Measure("security_curve", (subject,), plan, (("eps", eps),))
    return Quantity(subject.evaluation, ((measure, Fraction(1)),))
