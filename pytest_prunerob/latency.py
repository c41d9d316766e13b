"""How long forwards take, as quantities: timed on this machine in the test that claims it, and never stored."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.claims import Measure, Quantity, Subject
from pytest_prunerob.errors import ClaimError


def latency_ratio(dense: Subject, pruned: Subject, batch_size: int = 64, pairs: int = 100) -> Quantity:
    """How many times faster ``pruned`` is: the median of ``dense`` time / ``pruned`` time over ``pairs`` of forwards.

    The two forwards of a pair, of ``batch_size`` samples each, follow one another, so that what else the machine does
    meets both. A claim is judged by the confidence interval of the median.

    Raises:
        ClaimError: for subjects on unrelated datasets, a batch below 1 or fewer than 2 pairs.
    """
    for subject in (dense, pruned):
        if not isinstance(subject, Subject):
            raise ClaimError(f"latency_ratio(dense, pruned) takes two subjects, received {type(subject).__name__}")
    if dense.dataset_digest != pruned.dataset_digest:
        raise ClaimError(
            f"latency_ratio({dense.role}, {pruned.role}) needs one dataset: {dense.dataset_name}, {pruned.dataset_name}"
        )
    options = _counts("latency_ratio", batch_size=(batch_size, 1), pairs=(pairs, 2))
    return Quantity(dense.evaluation, ((Measure("latency_ratio", (dense, pruned), options=options), Fraction(1)),))


def latency(subject: Subject, batch_size: int, runs: int) -> Quantity:
    """The mean time of a forward of ``batch_size`` samples over ``runs`` of them, in milliseconds.

    A claim is judged by the interval in which one more forward lies. Two models are compared by ``latency_ratio``.

    Raises:
        ClaimError: for a batch below 1 or fewer than 2 runs.
    """
    options = _counts("latency", batch_size=(batch_size, 1), runs=(runs, 2))
    return Quantity(subject.evaluation, ((Measure("latency", (subject,), options=options), Fraction(1)),))


def _counts(what: str, **numbers: tuple[object, int]) -> tuple[tuple[str, str], ...]:
    """The options of a measure from whole numbers by name, each with the smallest that is allowed."""
    for name, (number, least) in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ClaimError(f"{what}({name}={number!r}): whole numbers from {least} are allowed")
    return tuple((name, str(number)) for name, (number, _) in numbers.items())
