"""The attack on a saliency map."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Parameter,
    Plan,
    ThreatModel,
    checked_target,
    count,
    exactly,
    positive,
    single,
)

# As many classes as AutoAttack's targeted stages try (Croce & Hein 2020); the authors try all others (Section IV).
CLASSES = 9


def jsma(
    *,
    eps: Number,
    theta: Number = 1,
    targets: int = CLASSES,
    target: str | None = None,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Papernot et al. 2016 (arXiv:1511.07528) in L0 from the adversarial-robustness-toolbox (the extra "art").

    ``eps`` is the number of features (pixels times channels) that may change; they change in pairs, so that an odd
    one is never used up. Every step adds ``theta`` (below zero: takes away) to the two that raise the logit of the
    target most. Without ``target`` the ``targets`` most likely other classes are tried one after the other.

    Raises:
        PlanError: for an ε that is no whole number or below 2, a theta outside [-1, 1] or 0, an unknown target, or a
            number of targets beside one.
    """
    written = positive(eps)
    if Fraction(written).denominator != 1 or Fraction(written) < 2:
        raise PlanError(f"eps={eps!r} is no number of features that jsma could change: write a whole one from 2 up")
    rule, tried = checked_target(target), count("targets", targets)
    if rule and tried != CLASSES:
        raise PlanError(f"jsma(target={rule!r}) has one class for each sample: leave targets={tried} out")
    params: dict[str, Parameter] = {"theta": _theta(theta)}
    if not rule:
        params["targets"] = tried
    name = "jsma" if params["theta"] == "1" else f"jsma, theta={theta}"
    threat = ThreatModel("l0", written, rule)
    return single("jsma", threat, count("micro_batch", micro_batch), name=name, kind="fixed", **params)


def _theta(theta: Number) -> str:
    text = str(theta).strip()
    size = exactly(text.removeprefix("-"), "theta")
    if Fraction(size) > 1:
        raise PlanError(f"theta={theta!r} is outside [-1, 1]: inputs lie in [0, 1]")
    return f"-{size}" if text.startswith("-") else size
