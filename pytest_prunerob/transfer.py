"""Inputs that are crafted on one model and tried on another, as a quantity."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.claims import Measure, Quantity, Subject, plan_of_kind
from pytest_prunerob.errors import ClaimError
from pytest_prunerob.plans import Plan


def transfer(source: Subject, target: Subject, plan: Plan) -> Quantity:
    """Accuracy of ``target`` over all samples on the inputs that ``plan`` returns when it attacks ``source``.

    The inputs are crafted once for all samples, clean errors of ``source`` included, and are tried on any number of
    targets. With the dense model as the source this is the grey-box attack on the pruned one.

    Raises:
        ClaimError: where the two are on unrelated datasets, or ``plan`` makes no inputs of its own.
    """
    for subject in (source, target):
        if not isinstance(subject, Subject):
            raise ClaimError(f"transfer(source, target, plan) takes two subjects, received {type(subject).__name__}")
    if source.dataset_digest != target.dataset_digest:
        raise ClaimError(
            f"transfer({source.role}, {target.role}, ...) needs one dataset: "
            f"{source.dataset_name}, {target.dataset_name}"
        )
    measure = Measure("transfer", (target, source), plan_of_kind(plan, ("fixed", "minimum"), "transfer"))
    return Quantity(target.evaluation, ((measure, Fraction(1)),))
