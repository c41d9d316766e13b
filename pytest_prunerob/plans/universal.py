"""One perturbation for the whole set."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import (
    WHOLE_SET,
    Number,
    Plan,
    ThreatModel,
    checked_norm,
    count,
    crafted_on,
    number,
    one_of,
    positive,
    single,
)

ATTACKERS = ("deepfool", "fgsm")


def universal(
    *,
    norm: str,
    eps: Number,
    steps: int = 20,
    delta: Number = "0.2",
    attacker: str = "deepfool",
    labels: str = "true",
) -> Plan:
    """Universal perturbation (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401) from the adversarial-robustness-toolbox.

    One perturbation of length ε at most for all samples: by each sample that still resists, ``attacker`` extends it.
    ``steps`` is how often it goes through the set (ART's ``max_iter``); it ends earlier once no more than a share
    ``delta`` resists. Other parameters are ART's defaults; "fgsm" takes one step of length ε. The set is one
    micro-batch, so a run that was stopped begins this stage again. With ``labels="predicted"`` it is crafted on the
    labels that the model predicts (``accuracy_under``, ``transfer``), as ART does without labels.

    What survives it may fall to a perturbation of its own: it refutes claims of robustness and never supports one.

    Raises:
        PlanError: for an unknown norm, attacker or labels, a bad ε or number of steps, or a ``delta`` that is not
            below 1.
    """
    threat = ThreatModel(checked_norm(norm, ("linf", "l2")), positive(eps))
    share = number(delta, "delta")
    if Fraction(share) >= 1:
        raise PlanError(f"delta={delta!r} is not below 1: it is the share of samples that may resist")
    name = f"universal perturbation by {one_of('attacker', attacker, ATTACKERS)}, {count('steps', steps)} steps"
    name += "" if share == "0.2" else f", delta {share}"
    plan = single("universal", threat, WHOLE_SET, name=name, attacker=attacker, delta=str(Fraction(share)), steps=steps)
    return crafted_on(labels, plan)
