"""The CLEVER score of a subject: an estimate, which shows no robustness."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.claims import Measure, Quantity, Subject
from pytest_prunerob.decimals import exact
from pytest_prunerob.errors import ClaimError
from pytest_prunerob.plans import Number
from pytest_prunerob.plans.clever import clever


class Score(Quantity):
    """The mean score over the samples that the subject classifies correctly, in units of the plan's norm."""

    def quantile(self, q: float) -> Quantity:
        """The ``q``-quantile (0 to 1, lower sample) of the scores of the correctly classified samples."""
        share = exact(q)
        if not 0 <= share <= 1:
            raise ClaimError(f"quantile({q!r}) is not between 0 and 1")
        first = self.terms[0][0]
        measure = Measure(first.metric, first.subjects, first.plan, (("quantile", str(share)),))
        return Quantity(self.evaluation, ((measure, Fraction(1)),))


def clever_score(subject: Subject, *, norm: str, radius: Number, batches: int, batch_size: int, targets: int) -> Score:
    """The CLEVER score of ``subject``; see :func:`pytest_prunerob.plans.clever.clever` for the arguments.

    Raises:
        PlanError: for an unknown norm, a bad radius or a bad number.
    """
    plan = clever(norm=norm, radius=radius, batches=batches, batch_size=batch_size, targets=targets)
    return Score(subject.evaluation, ((Measure("clever", (subject,), plan), Fraction(1)),))
