"""The samples whose correctness pruning changes, as quantities."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

from pytest_prunerob.claims import Measure, Quantity, Subject, no_such_quantity, plan_of_kind
from pytest_prunerob.errors import ClaimError, unknown
from pytest_prunerob.plans import Plan

POPULATIONS = ("S00", "S01", "S10", "S11")


@dataclass(frozen=True)
class Flips:
    """The samples by (dense correct, pruned correct): S11, S10, S01, S00 (Piras et al., section 2)."""

    dense: Subject
    pruned: Subject

    def __getattr__(self, name: str) -> NoReturn:
        raise no_such_quantity("quantity of flips", self, name)

    def share(self, population: str) -> Quantity:
        """Share of all samples in ``population`` ("S11", "S10", "S01" or "S00")."""
        return self._quantity("share", options=(("population", self._population(population)),))

    def ids(self, population: str) -> tuple[int, ...]:
        """Original indices of the samples in ``population``."""
        options = (("population", self._population(population)),)
        return self.dense.evaluation.ids(Measure("share", (self.dense, self.pruned), options=options))

    def auc_s10(self, by: Plan) -> Quantity:
        """Probability that a sample of S10 is closer to the dense model's boundary than one of S11 (their Table 2)."""
        return self._quantity("auc_s10", plan_of_kind(by, ("minimum",), "auc_s10"))

    def auc_s01(self, by: Plan) -> Quantity:
        """The same for S01 against S00, on absolute distances from the predicted class (their Table 2)."""
        return self._quantity("auc_s01", plan_of_kind(by, ("minimum",), "auc_s01"))

    def p_s10(self, by: Plan) -> Quantity:
        """Two-sided Mann-Whitney p-value of the distances of S10 and S11."""
        return self._quantity("p_s10", plan_of_kind(by, ("minimum",), "p_s10"))

    def p_s01(self, by: Plan) -> Quantity:
        """Two-sided Mann-Whitney p-value of the absolute distances of S01 and S00."""
        return self._quantity("p_s01", plan_of_kind(by, ("minimum",), "p_s01"))

    def _population(self, name: str) -> str:
        if name not in POPULATIONS:
            raise ClaimError(unknown("population", name, POPULATIONS))
        return name

    def _quantity(self, metric: str, plan: Plan | None = None, options: tuple[tuple[str, str], ...] = ()) -> Quantity:
        measure = Measure(metric, (self.dense, self.pruned), plan, options)
        return Quantity(self.dense.evaluation, ((measure, Fraction(1)),))


def flips(dense: Subject, pruned: Subject) -> Flips:
    """The samples that change between ``dense`` and ``pruned``.

    Raises:
        ClaimError: where the two are on unrelated datasets.
    """
    for subject in (dense, pruned):
        if not isinstance(subject, Subject):
            raise ClaimError(f"flips(dense, pruned) takes two subjects, received {type(subject).__name__}")
    if dense.dataset_digest != pruned.dataset_digest:
        raise ClaimError(
            f"flips({dense.role}, {pruned.role}) compares unrelated datasets: "
            f"{dense.dataset_name}, {pruned.dataset_name}"
        )
    return Flips(dense, pruned)
