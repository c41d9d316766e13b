"""The plan behind ``Subject.clever(...)``: an estimate, and no attack."""

from __future__ import annotations

from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Plan,
    ThreatModel,
    checked_norm,
    count,
    exactly,
    positive,
    single,
)


def clever(*, norm: str, radius: Number, batches: int = 50, batch_size: int = 10, targets: int = 9) -> Plan:
    """CLEVER score (Weng et al. 2018, arXiv:1801.10578) around each sample.

    The gradients of ``batches`` times ``batch_size`` random points within ``radius`` (in ``norm``, inside the box)
    estimate how fast the margins to the ``targets`` most likely other classes can shrink; no score is above ``radius``.

    Raises:
        PlanError: for an unknown norm, a bad radius or a bad number.
    """
    threat = ThreatModel(checked_norm(norm, ("linf", "l2", "l1")), None)
    name = (
        f"clever, {count('batches', batches)} batches of {count('batch_size', batch_size)} points "
        f"within {positive(radius, 'radius')}, {count('targets', targets)} targets"
    )
    return single(
        "clever",
        threat,
        MICRO_BATCH,
        name=name,
        kind="estimate",
        radius=exactly(radius, "radius"),
        batches=batches,
        batch_size=batch_size,
        targets=targets,
    )
