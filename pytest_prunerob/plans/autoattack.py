"""AutoAttack and its stages."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_prunerob.errors import PlanError, unknown
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Parameter,
    Plan,
    Stage,
    ThreatModel,
    checked_norm,
    checked_target,
    count,
    crafted_on,
    one_of,
    positive,
)

VERSIONS = ("standard", "plus", "rand")


def autoattack(
    stages: str | Sequence[str] = "standard",
    *,
    norm: str,
    eps: Number,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """AutoAttack (Croce & Hein 2020, arXiv:2003.01690): "standard", "plus" or "rand", or a list of its stages.

    Versions and stage lists have the parameters that pyautoattack gives them; a list of stages is its version
    "custom" (5 restarts of the untargeted attacks). ``norm`` is "linf", "l2" or "l1", ``eps`` a number or a string
    such as "8/255". L1 "standard" has its own schedule (3ε, 2ε, ε; 5 restarts; 5 targets of APGD-T; Croce & Hein 2021).

    Version "rand" is for models that draw at inference: its gradients are means over 20 forwards (expectation over
    transformation, Athalye et al. 2018, arXiv:1802.00420), and what breaks is judged by votes of repeated forwards.

    Raises:
        PlanError: for an unknown version, stage or norm, or an ε that is no positive number.
    """
    norm = checked_norm(norm, ("linf", "l2", "l1"))
    threat = ThreatModel(norm, positive(eps))
    if isinstance(stages, str):
        if stages not in VERSIONS:
            raise PlanError(unknown("AutoAttack version", stages, VERSIONS))
        name, chosen = stages, _version(stages, norm)
    else:
        if not stages:
            raise PlanError("autoattack([]) has no stages: allowed are " + ", ".join(_custom()))
        for stage in stages:
            if stage not in _custom():
                raise PlanError(unknown("AutoAttack stage", stage, _custom()))
        if len(set(stages)) != len(stages):
            raise PlanError(f"autoattack({list(stages)!r}) names a stage twice")
        name, chosen = "+".join(stages), tuple(_custom()[stage] for stage in stages)
    return Plan(f"autoattack {name}", "fixed", threat, chosen, count("micro_batch", micro_batch))


def apgd(
    *,
    norm: str,
    eps: Number,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "ce",
    target: str | None = None,
    labels: str = "true",
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Auto-PGD alone (Croce & Hein 2020, arXiv:2003.01690) from pyautoattack; its step sizes choose themselves.

    ``loss`` is the cross-entropy "ce" or the difference of logits ratio "dlr"; towards a ``target`` class there is only
    the targeted form of the latter (Eq. 7), which needs four classes. With ``labels="predicted"`` it is crafted on the
    labels that the model predicts, which only shows where clean errors are attacked too.

    Raises:
        PlanError: for an unknown norm, loss, target or labels, or a bad ε, number of steps or of restarts.
    """
    threat = ThreatModel(checked_norm(norm, ("linf", "l2", "l1")), positive(eps), checked_target(target))
    one_of("loss", loss, ("ce", "dlr"))
    if target is not None and loss != "dlr":
        raise PlanError(f"apgd(target={target!r}, loss={loss!r}) has no such loss: write loss='dlr'")
    name = f"apgd-{loss} {count('steps', steps)} steps" + (f", {restarts} restarts" if restarts != 1 else "")
    count("restarts", restarts)
    stage = _apgd(f"apgd-{loss}", restarts) if target is None else _apgd("apgd-t", restarts, targets=1)
    plan = Plan(name, "fixed", threat, (stage.changed(steps=steps),), count("micro_batch", micro_batch))
    return crafted_on(labels, plan)


def _apgd(attack: str, restarts: int, **more: Parameter) -> Stage:
    params: dict[str, Parameter] = {"steps": 100, "restarts": restarts, "rho": "3/4", **more}
    return Stage(attack, tuple(sorted(params.items())))


def _fab(attack: str, restarts: int, **more: Parameter) -> Stage:
    return Stage(attack, tuple(sorted({"steps": 100, "restarts": restarts, **more}.items())))


def _square() -> Stage:
    return Stage("square", (("p_init", "4/5"), ("queries", 5000), ("restarts", 1)))


def _version(version: str, norm: str) -> tuple[Stage, ...]:
    if version == "rand":
        return _apgd("apgd-ce", 1, eot=20), _apgd("apgd-dlr", 1, eot=20)
    if version == "plus":
        untargeted = (_apgd("apgd-ce", 5), _apgd("apgd-dlr", 5), _fab("fab", 5), _square())
        return (*untargeted, _apgd("apgd-t", 1, targets=9), _fab("fab-t", 1, targets=9))
    if norm == "l1":
        first = (_apgd("apgd-ce", 5, schedule="3-2-1"), _apgd("apgd-t", 1, targets=5, schedule="3-2-1"))
    else:
        first = (_apgd("apgd-ce", 1), _apgd("apgd-t", 1, targets=9))
    return (*first, _fab("fab-t", 1, targets=9), _square())


def _custom() -> dict[str, Stage]:
    return {
        "apgd-ce": _apgd("apgd-ce", 5),
        "apgd-dlr": _apgd("apgd-dlr", 5),
        "apgd-t": _apgd("apgd-t", 1, targets=9),
        "fab": _fab("fab", 5),
        "fab-t": _fab("fab-t", 1, targets=9),
        "square": _square(),
    }
