"""One plan for each attack, as a user would write it: what ``prunerob attacks`` and ``docs/attacks.md`` show."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from pytest_prunerob.plans.autoattack import autoattack
from pytest_prunerob.plans.fab import fab
from pytest_prunerob.plans.fmn import fmn
from pytest_prunerob.plans.gradient import fgsm, pgd
from pytest_prunerob.plans.plan import Plan

# By the name of the attack: what is written in a test, and what it gives.
EXAMPLES: dict[str, tuple[str, Plan]] = {
    "apgd-ce": ('autoattack(["apgd-ce"], norm="linf", eps="8/255")', autoattack(["apgd-ce"], norm="linf", eps="8/255")),
    "apgd-dlr": (
        'autoattack(["apgd-dlr"], norm="linf", eps="8/255")',
        autoattack(["apgd-dlr"], norm="linf", eps="8/255"),
    ),
    "apgd-t": ('autoattack("standard", norm="linf", eps="8/255")', autoattack("standard", norm="linf", eps="8/255")),
    "fab": ('autoattack("plus", norm="linf", eps="8/255")', autoattack("plus", norm="linf", eps="8/255")),
    "fab-t": ('autoattack("standard", norm="linf", eps="8/255")', autoattack("standard", norm="linf", eps="8/255")),
    "fab-min": ('fab(norm="linf")', fab(norm="linf")),
    "square": ('autoattack("standard", norm="linf", eps="8/255")', autoattack("standard", norm="linf", eps="8/255")),
    "fgsm": ('fgsm(norm="linf", eps="8/255")', fgsm(norm="linf", eps="8/255")),
    "pgd": (
        'pgd(norm="linf", eps="8/255", steps=10, step_size="2/255")',
        pgd(norm="linf", eps="8/255", steps=10, step_size="2/255"),
    ),
    "fmn": ('fmn(norm="linf")', fmn(norm="linf")),
}


def example(attack: str, norm: str, eps: str) -> Plan:
    """The example of ``attack`` cut down to its stage, in another norm and, at fixed ε, radius.

    A step keeps its part of ε; a minimum-norm plan has no ε, so that ``eps`` changes nothing in it.
    """
    _, plan = EXAMPLES[attack]
    stage = next(stage for stage in plan.stages if stage.attack == attack)
    if plan.kind != "fixed":
        return replace(plan.of((stage,)), threat=replace(plan.threat, norm=norm))
    if "step_size" in dict(stage.params):
        part = Fraction(str(stage.get("step_size"))) / plan.threat.radius
        stage = stage.changed(step_size=str(part * Fraction(eps)))
    return replace(plan.of((stage,)), name=attack, threat=replace(plan.threat, norm=norm, eps=eps))
