"""FAB as the minimum-norm attack that it is by nature."""

from __future__ import annotations

from pytest_prunerob.plans.plan import MICRO_BATCH, Plan, ThreatModel, checked_norm, count, single


def fab(*, norm: str, steps: int = 100, micro_batch: int = MICRO_BATCH) -> Plan:
    """Fast adaptive boundary attack (Croce & Hein 2020, arXiv:1907.02044) from pyautoattack, as a minimum-norm attack.

    One untargeted run from the clean input, with as many steps as AutoAttack gives it; AutoAttack's own stages "fab"
    and "fab-t" look only within ε.

    Raises:
        PlanError: for an unknown norm or a bad number of steps.
    """
    threat = ThreatModel(checked_norm(norm, ("linf", "l2", "l1")), None)
    size = count("micro_batch", micro_batch)
    return single(
        "fab-min", threat, size, name=f"fab {steps} steps", kind="minimum", restarts=1, steps=count("steps", steps)
    )
