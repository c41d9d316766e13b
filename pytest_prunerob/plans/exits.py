"""Attacks on networks with several exits."""

from __future__ import annotations

from pytest_prunerob.errors import PlanError
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
    one_of,
    positive,
)

FORMS = ("single", "average", "max-average")


def multi_exit_pgd(
    *,
    form: str,
    exits: int,
    exit: int = -1,
    norm: str = "linf",
    eps: Number,
    steps: int,
    step_size: Number,
    restarts: int = 1,
    random_start: bool = True,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """PGD on a network with ``exits`` exits in the attack forms of RDI-Nets (Hu et al. 2020, arXiv:2002.10025), Linf.

    ``form`` "single" climbs the loss of one ``exit`` (from 0; -1 is the last), "average" the mean of the losses of all
    exits; "max-average" attacks every exit on its own and returns, for each sample, the input with the largest mean.
    The model needs a method ``exits(x)``; whatever the form, it is judged by its own output.

    Raises:
        PlanError: for an unknown form or norm, an exit that is not there, a bad ε, step size or number.
    """
    one_of("form", form, FORMS)
    many = count("exits", exits)
    if isinstance(exit, bool) or not isinstance(exit, int) or not -many <= exit < many:
        raise PlanError(f"exit={exit!r} is none of {many} exits: 0 is the first and -1 the last")
    if form != "single" and exit != -1:
        raise PlanError(f"form={form!r} attacks all exits: leave exit={exit} out, or use form='single'")
    params: dict[str, Parameter] = {
        "form": form,
        "exits": many,
        "steps": count("steps", steps),
        "step_size": exactly(step_size, "step_size"),
        "restarts": count("restarts", restarts),
        "random_start": bool(random_start),
    }
    name = f"multi-exit pgd, {form}"
    if form == "single":
        params["exit"] = exit % many
        name += f" exit={exit % many}"
    name += f", {steps} steps of {positive(step_size, 'step_size')}"
    name += f", {restarts} restarts" if restarts > 1 else ""
    name += "" if random_start else ", no random start"
    threat = ThreatModel(checked_norm(norm, ("linf",)), positive(eps))
    stage = Stage("multi-exit-pgd", tuple(sorted(params.items())))
    return Plan(name, "fixed", threat, (stage,), count("micro_batch", micro_batch))
