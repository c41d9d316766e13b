"""The fast minimum-norm attack."""

from __future__ import annotations

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import MICRO_BATCH, Plan, Stage, ThreatModel, checked_norm, count


def fmn(*, norm: str = "linf", steps: int = 100, micro_batch: int = MICRO_BATCH) -> Plan:
    """Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827) from foolbox, Linf only.

    foolbox's L2 version never projects onto its ball and finds distances that are much too large.

    Raises:
        PlanError: for another norm or a bad number of steps.
    """
    if norm == "l2":
        raise PlanError("fmn(norm='l2') is not offered: foolbox's version does not project; use 'linf'")
    threat = ThreatModel(checked_norm(norm, ("linf",)), None)
    stage = Stage("fmn", (("steps", count("steps", steps)),))
    return Plan(f"fmn {steps} steps", "minimum", threat, (stage,), count("micro_batch", micro_batch))
