"""Attacks that follow the gradient for a fixed number of steps."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.errors import PlanError
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
    exactly,
    number,
    positive,
    single,
)

NORMS = ("linf", "l2")


def fgsm(
    *,
    norm: str,
    eps: Number,
    random_start: bool = False,
    labels: str = "true",
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Fast gradient sign method (Goodfellow et al. 2015) from foolbox: one step of length ε.

    It has no targeted variant in foolbox; ``bim(steps=1, step_size=ε, target=...)`` is one. With ``labels="predicted"``
    it is crafted on the labels that the model predicts (``accuracy_under``, ``transfer``), as ART does without labels.

    Raises:
        PlanError: for an unknown norm or labels, or a bad ε.
    """
    threat = ThreatModel(checked_norm(norm, NORMS), positive(eps))
    name = "fgsm, random start" if random_start else "fgsm"
    size = count("micro_batch", micro_batch)
    return crafted_on(labels, single("fgsm", threat, size, name=name, random_start=bool(random_start)))


def r_fgsm(
    *, norm: str, eps: Number, alpha: Number | None = None, restarts: int = 1, micro_batch: int = MICRO_BATCH
) -> Plan:
    """FGSM behind a random step (Tramèr et al. 2018, arXiv:1705.07204, Eq. 7), its gradient step from foolbox.

    The random step has length ``alpha`` (ε/2 as in the paper unless given), the step along the gradient ε − ``alpha``.

    Raises:
        PlanError: for an unknown norm, a bad ε or number of restarts, or an ``alpha`` that is not below ε.
    """
    threat = ThreatModel(checked_norm(norm, NORMS), positive(eps))
    length = threat.radius / 2 if alpha is None else Fraction(positive(alpha, "alpha"))
    if length >= threat.radius:
        raise PlanError(f"alpha={alpha!r} leaves no step along the gradient: allowed is less than eps={threat.eps}")
    name = f"r-fgsm, α={threat.radius / 2 if alpha is None else positive(alpha, 'alpha')}"
    name += f", {restarts} restarts" if restarts != 1 else ""
    size = count("micro_batch", micro_batch)
    return single("r-fgsm", threat, size, name=name, alpha=str(length), restarts=count("restarts", restarts))


def bim(
    *,
    norm: str,
    eps: Number,
    steps: int,
    step_size: Number,
    target: str | None = None,
    labels: str = "true",
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Basic iterative method (Kurakin et al. 2017, arXiv:1607.02533) from foolbox: PGD from the sample itself.

    ``step_size`` is absolute, in units of the input. With ``target`` it is the paper's iterative target class method.

    Raises:
        PlanError: for an unknown norm, target or labels, a bad ε, step size or number of steps.
    """
    threat = ThreatModel(checked_norm(norm, NORMS), positive(eps), checked_target(target))
    size, step = count("micro_batch", micro_batch), exactly(step_size, "step_size")
    name = f"bim {count('steps', steps)} steps of {positive(step_size, 'step_size')}"
    return crafted_on(labels, single("bim", threat, size, name=name, steps=steps, step_size=step))


def momentum(
    *,
    norm: str,
    eps: Number,
    steps: int,
    step_size: Number,
    decay: Number = 1,
    target: str | None = None,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Momentum iterative method (Dong et al. 2018, arXiv:1710.06081), from the sample itself.

    ``step_size`` is absolute, in units of the input; ``decay`` is the paper's μ, the part of the gathered gradients
    that is kept from step to step.

    Raises:
        PlanError: for an unknown norm or target, a bad ε, step size, decay or number of steps.
    """
    threat = ThreatModel(checked_norm(norm, NORMS), positive(eps), checked_target(target))
    kept, step = Fraction(number(decay, "decay")), exactly(step_size, "step_size")
    name = f"momentum {count('steps', steps)} steps of {positive(step_size, 'step_size')}"
    name += f", decay {number(decay, 'decay')}" if kept != 1 else ""
    size = count("micro_batch", micro_batch)
    return single("momentum", threat, size, name=name, steps=steps, step_size=step, decay=str(kept))


def pgd(
    *,
    norm: str,
    eps: Number,
    steps: int,
    step_size: Number,
    restarts: int = 1,
    random_start: bool = True,
    target: str | None = None,
    labels: str = "true",
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Projected gradient descent (Madry et al. 2018) from foolbox; ``step_size`` is absolute, in units of the input.

    With ``target`` a sample counts as broken only by an input of the class that the rule gives it. With
    ``labels="predicted"`` it is crafted on the labels that the model predicts, which only shows where clean errors are
    attacked too (``accuracy_under``, ``transfer``).

    Raises:
        PlanError: for an unknown norm, target or labels, a bad ε, step size, number of steps or of restarts.
    """
    params: dict[str, Parameter] = {
        "steps": count("steps", steps),
        "step_size": exactly(step_size, "step_size"),
        "restarts": count("restarts", restarts),
        "random_start": bool(random_start),
    }
    threat = ThreatModel(checked_norm(norm, NORMS), positive(eps), checked_target(target))
    name = f"pgd {steps} steps of {positive(step_size, 'step_size')}"
    name += f", {restarts} restarts" if restarts > 1 else ""
    name += "" if random_start else ", no random start"
    stage = Stage("pgd", tuple(sorted(params.items())))
    return crafted_on(labels, Plan(name, "fixed", threat, (stage,), count("micro_batch", micro_batch)))
