"""The fast minimum-norm attack."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Plan,
    ThreatModel,
    checked_norm,
    checked_target,
    count,
    exactly,
    single,
)

STEP_SIZE, GAMMA = "1", "0.05"  # the defaults of the authors' implementation in foolbox


def fmn(
    *,
    norm: str = "linf",
    steps: int = 100,
    step_size: Number = STEP_SIZE,
    gamma: Number = GAMMA,
    target: str | None = None,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827).

    Linf is foolbox's, L2, L1 and L0 are our own (attack "fmn-own"). ``step_size`` is the length of the first step in
    L2, α₀ of the paper, and falls to a hundredth of it; ``gamma`` is the share by which the radius first changes, γ₀;
    both decay along a cosine. ``target`` chooses the classes of a targeted attack.

    Raises:
        PlanError: for an unknown norm or target, a bad number of steps, step size or γ.
    """
    norm = checked_norm(norm, ("linf", "l2", "l1", "l0"))
    size, share = exactly(step_size, "step_size"), exactly(gamma, "gamma")
    if Fraction(share) >= 1:
        raise PlanError(f"gamma={gamma!r} is not below 1: the radius would vanish at once")
    name = f"fmn {count('steps', steps)} steps"
    name += f" of {step_size}" if size != STEP_SIZE else ""
    name += f", γ={gamma}" if Fraction(share) != Fraction(GAMMA) else ""
    threat = ThreatModel(norm, None, checked_target(target))
    attack = "fmn" if norm == "linf" else "fmn-own"
    batch = count("micro_batch", micro_batch)
    return single(attack, threat, batch, name=name, kind="minimum", steps=steps, step_size=size, gamma=share)
