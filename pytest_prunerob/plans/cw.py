"""The attacks of Carlini and Wagner."""

from __future__ import annotations

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Parameter,
    Plan,
    ThreatModel,
    checked_norm,
    checked_target,
    count,
    exactly,
    number,
    single,
)

# The authors' code has 9 searches of 10,000 steps and stops early, which none of ours does: a tenth of that (ours).
SEARCHES, STEPS = 9, 1000
NORMS = ("l2", "linf", "l0")


def cw(
    *,
    norm: str = "l2",
    steps: int = STEPS,
    binary_search_steps: int = SEARCHES,
    step_size: Number = "0.01",
    initial_const: Number = "0.001",
    confidence: Number = 0,
    target: str | None = None,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Carlini & Wagner 2017 (arXiv:1608.04644): Adam on the distance plus a constant times the margin.

    L2 is foolbox's (``abort_early=False``: foolbox would stop all samples by the loss of the whole batch); Linf and L0
    are our own. ``step_size`` is the learning rate, ``confidence`` the margin to reach, in logits. L2 takes ``steps``
    steps for each of ``binary_search_steps`` constants, the first of them ``initial_const``; Linf and L0 raise the
    constant on their way, within ``steps`` steps altogether.

    Raises:
        PlanError: for an unknown norm or target, or a bad number.
    """
    norm = checked_norm(norm, NORMS)
    params: dict[str, Parameter] = {
        "steps": count("steps", steps),
        "step_size": exactly(step_size, "step_size"),
        "initial_const": exactly(initial_const, "initial_const"),
        "confidence": number(confidence, "confidence"),
    }
    name = f"cw {steps} steps of {step_size}"
    searches = count("binary_search_steps", binary_search_steps)
    if norm == "l2":
        params["binary_search_steps"] = searches
        name = f"cw {searches} x {steps} steps of {step_size}"
    elif searches != SEARCHES:
        raise PlanError(f"cw(norm={norm!r}) has no binary search: leave binary_search_steps={searches} out")
    name += f", confidence {params['confidence']}" if params["confidence"] != "0" else ""
    threat = ThreatModel(norm, None, checked_target(target))
    return single(f"cw-{norm}", threat, count("micro_batch", micro_batch), name=name, kind="minimum", **params)
