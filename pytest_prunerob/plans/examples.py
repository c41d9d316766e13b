"""One plan for each attack, as a user would write it: what ``prunerob attacks`` and ``docs/attacks.md`` show."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from pytest_prunerob.plans.autoattack import autoattack
from pytest_prunerob.plans.brendel_bethge import brendel_bethge
from pytest_prunerob.plans.clever import clever
from pytest_prunerob.plans.corruption import corruption, occlusion
from pytest_prunerob.plans.cw import cw
from pytest_prunerob.plans.deepfool import deepfool
from pytest_prunerob.plans.exits import multi_exit_pgd
from pytest_prunerob.plans.fab import fab
from pytest_prunerob.plans.fmn import fmn
from pytest_prunerob.plans.gradient import bim, fgsm, momentum, pgd, r_fgsm
from pytest_prunerob.plans.jsma import jsma
from pytest_prunerob.plans.plan import Plan
from pytest_prunerob.plans.substitute import substitute
from pytest_prunerob.plans.universal import universal
from pytest_prunerob.plans.wrm import wrm
from pytest_prunerob.plans.zoo import zoo

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
    "r-fgsm": ('r_fgsm(norm="linf", eps="8/255")', r_fgsm(norm="linf", eps="8/255")),
    "bim": (
        'bim(norm="linf", eps="8/255", steps=10, step_size="2/255")',
        bim(norm="linf", eps="8/255", steps=10, step_size="2/255"),
    ),
    "momentum": (
        'momentum(norm="linf", eps="8/255", steps=10, step_size="2/255")',
        momentum(norm="linf", eps="8/255", steps=10, step_size="2/255"),
    ),
    "pgd": (
        'pgd(norm="linf", eps="8/255", steps=10, step_size="2/255")',
        pgd(norm="linf", eps="8/255", steps=10, step_size="2/255"),
    ),
    "jsma": ("jsma(eps=30)", jsma(eps=30)),
    "wrm": ('wrm(eps="0.5", gamma="0.4")', wrm(eps="0.5", gamma="0.4")),
    "multi-exit-pgd": (
        'multi_exit_pgd(form="average", exits=7, norm="linf", eps="8/255", steps=20, step_size="2/255")',
        multi_exit_pgd(form="average", exits=7, norm="linf", eps="8/255", steps=20, step_size="2/255"),
    ),
    "substitute": ('substitute(norm="linf", eps="8/255")', substitute(norm="linf", eps="8/255")),
    "universal": ('universal(norm="linf", eps="8/255")', universal(norm="linf", eps="8/255")),
    "fmn": ('fmn(norm="linf")', fmn(norm="linf")),
    "fmn-own": ('fmn(norm="l2")', fmn(norm="l2")),
    "cw-l2": ('cw(norm="l2")', cw(norm="l2")),
    "cw-linf": ('cw(norm="linf")', cw(norm="linf")),
    "cw-l0": ('cw(norm="l0")', cw(norm="l0")),
    "deepfool": ('deepfool(norm="l2")', deepfool(norm="l2")),
    "brendel-bethge": ('brendel_bethge(norm="l0")', brendel_bethge(norm="l0")),
    "zoo": ('zoo(norm="l2")', zoo(norm="l2")),
    "corruption": ('corruption("fog", 3)', corruption("fog", 3)),
    "occlusion": ("occlusion(16)", occlusion(16)),
    "clever": ('pruned.clever(norm="l2", radius="0.5")', clever(norm="l2", radius="0.5")),
}


def example(attack: str, norm: str, eps: str) -> Plan:
    """The example of ``attack`` cut down to its stage, in another norm and, at fixed ε, radius.

    A step keeps its part of ε; a minimum-norm plan has no ε, so that ``eps`` changes nothing in it.
    """
    _, plan = EXAMPLES[attack]
    stage = next(stage for stage in plan.stages if stage.attack == attack)
    if plan.kind != "fixed":
        return replace(plan.of((stage,)), threat=replace(plan.threat, norm=norm))
    for length in ("step_size", "alpha"):
        if length in dict(stage.params):
            part = Fraction(str(stage.get(length))) / plan.threat.radius
            stage = stage.changed(**{length: str(part * Fraction(eps))})
    return replace(plan.of((stage,)), name=attack, threat=replace(plan.threat, norm=norm, eps=eps))
