"""The attack of distributionally robust training."""

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


def wrm(
    *,
    norm: str = "l2",
    eps: Number,
    gamma: Number,
    steps: int = 15,
    step_size: Number = 1,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """WRM (Sinha, Namkoong & Duchi 2018, arXiv:1710.10571), L2: ascent on the loss minus ``gamma`` · ‖z − x‖².

    The paper has no ε: what the ascent reaches outside of it counts as its projection onto the ball. The ascent ends
    about ‖∇loss‖/(2 ``gamma``) away: a large ``gamma`` keeps it near the sample, and with a small one it goes so far
    that its projection says little. ``step_size`` is a part of that way, not a length: step t is that of
    ``step_size``/(2 ``gamma`` √t); the paper takes 15 steps with 1.

    Raises:
        PlanError: for another norm, a bad ε, gamma, step size or number of steps.
    """
    threat = ThreatModel(checked_norm(norm, ("l2",)), positive(eps))
    rate = exactly(step_size, "step_size")
    name = f"wrm {count('steps', steps)} steps, gamma {positive(gamma, 'gamma')}"
    name += "" if rate == "1" else f", {positive(step_size, 'step_size')} of each"
    return single(
        "wrm",
        threat,
        count("micro_batch", micro_batch),
        name=name,
        gamma=exactly(gamma, "gamma"),
        rate=rate,
        steps=steps,
    )
