"""Attacks that follow the gradient for a fixed number of steps."""

from __future__ import annotations

from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Parameter,
    Plan,
    Stage,
    ThreatModel,
    checked_norm,
    count,
    exactly,
    positive,
)


def fgsm(*, norm: str, eps: Number, random_start: bool = False, micro_batch: int = MICRO_BATCH) -> Plan:
    """Fast gradient sign method (Goodfellow et al. 2015) from foolbox: one step of length ε.

    Raises:
        PlanError: for an unknown norm or a bad ε.
    """
    threat = ThreatModel(checked_norm(norm, ("linf", "l2")), positive(eps))
    stage = Stage("fgsm", (("random_start", bool(random_start)),))
    return Plan(
        "fgsm, random start" if random_start else "fgsm", "fixed", threat, (stage,), count("micro_batch", micro_batch)
    )


def pgd(
    *,
    norm: str,
    eps: Number,
    steps: int,
    step_size: Number,
    restarts: int = 1,
    random_start: bool = True,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Projected gradient descent (Madry et al. 2018) from foolbox; ``step_size`` is absolute, in units of the input.

    Raises:
        PlanError: for an unknown norm, a bad ε, step size, number of steps or of restarts.
    """
    params: dict[str, Parameter] = {
        "steps": count("steps", steps),
        "step_size": exactly(step_size, "step_size"),
        "restarts": count("restarts", restarts),
        "random_start": bool(random_start),
    }
    threat = ThreatModel(checked_norm(norm, ("linf", "l2")), positive(eps))
    stage = Stage("pgd", tuple(sorted(params.items())))
    name = f"pgd {steps} steps of {positive(step_size, 'step_size')}"
    name += f", {restarts} restarts" if restarts > 1 else ""
    name += "" if random_start else ", no random start"
    return Plan(name, "fixed", threat, (stage,), count("micro_batch", micro_batch))
