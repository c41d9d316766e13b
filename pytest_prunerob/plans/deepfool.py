"""DeepFool."""

from __future__ import annotations

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Plan,
    ThreatModel,
    checked_norm,
    count,
    exactly,
    one_of,
    single,
)

LOSSES = ("logits", "crossentropy")


def deepfool(
    *,
    norm: str,
    steps: int = 50,
    overshoot: Number = "0.02",
    candidates: int = 10,
    loss: str = "logits",
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599) from foolbox: linear steps to the nearest boundary.

    It stops at the first input beyond a boundary, so its distances are no smallest ones. ``overshoot`` is the share by
    which it goes further than to the boundary (0.02 in the paper; 1e-6 is the toolbox's parameter in Vora et al.).
    ``candidates`` are the most likely classes whose boundaries it looks at: all of ten classes, of more classes the ten
    with the largest clean logits. ``loss`` is "logits" or "crossentropy".

    Raises:
        PlanError: for an unknown norm or loss, a bad number, or fewer than two candidates.
    """
    threat = ThreatModel(checked_norm(norm, ("l2", "linf")), None)
    if count("candidates", candidates) < 2:
        raise PlanError(f"candidates={candidates!r} is below 2: the most likely class is the sample's own")
    params = {"overshoot": exactly(overshoot, "overshoot"), "loss": one_of("loss", loss, LOSSES)}
    name = f"deepfool {count('steps', steps)} steps, overshoot {overshoot}"
    name += f", {candidates} candidates" if candidates != 10 else ""
    name += f", {loss}" if loss != "logits" else ""
    batch = count("micro_batch", micro_batch)
    return single("deepfool", threat, batch, name=name, kind="minimum", steps=steps, candidates=candidates, **params)
