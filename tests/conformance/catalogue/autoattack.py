"""APGD, FAB and Square against pyautoattack."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_prunerob import autoattack
from pytest_prunerob.plans import Plan, Stage, ThreatModel
from tests.conformance.catalogue.case import SEED, Case, Library

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def small(attack: str, norm: str, eps: str, steps: int, queries: int) -> Plan:
    """The plan that is only this attack, with the schedule of AutoAttack's standard version where it has one."""
    if attack == "fab-min":
        return Plan("fab", "minimum", ThreatModel(norm, None), (Stage("fab-min", (("restarts", 1), ("steps", 30))),))
    plan = autoattack([attack], norm=norm, eps=eps)
    (stage,) = plan.stages
    if attack == "square":
        stage = stage.changed(queries=queries)
    elif attack.startswith("apgd") and norm == "l1" and attack != "apgd-dlr":
        standard = {s.attack: s for s in autoattack(norm=norm, eps=eps).stages}
        stage = standard[attack].changed(steps=steps, restarts=2 if attack == "apgd-ce" else 1)
    else:
        stage = stage.changed(steps=steps, restarts=2 if steps < 50 else 1)
    return replace(plan, stages=(stage,))


def library(plan: Plan) -> Library:
    (stage,) = plan.stages
    p: dict[str, Any] = dict(stage.params)
    eps = float(plan.threat.radius) if plan.threat.eps else 0.0
    shared = {"eps": eps, "norm": NORMS[plan.threat.norm], "seed": SEED, "device": "cpu", "n_restarts": p["restarts"]}

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from pyautoattack.fab_pt import FABAttack_PT
        from pyautoattack.square import SquareAttack

        targets = min(p.get("targets", 9), model(x[:1]).shape[1] - 1)
        if stage.attack == "square":
            made = SquareAttack(model, n_queries=p["queries"], p_init=0.8, resc_schedule=False, **shared)
        elif stage.attack.startswith("fab"):
            targeted = stage.attack == "fab-t"
            made = FABAttack_PT(model, n_iter=p["steps"], targeted=targeted, n_target_classes=targets, **shared)
            if stage.attack == "fab-min":
                with torch.no_grad():
                    nearest: Tensor = made.attack_single_run(x.clone(), y)
                return nearest
        else:
            more = {"n_iter": p["steps"], "use_largereps": "schedule" in p, "logger": logging.getLogger("library")}
            if stage.attack == "apgd-t":
                made = APGDAttack_targeted(model, n_target_classes=targets, **shared, **more)
            else:
                made = APGDAttack(model, loss=stage.attack.removeprefix("apgd-"), **shared, **more)
        returned: Tensor = made.perturb(x.clone(), y)
        return returned

    return attack


def case(attack: str, norm: str) -> Case:
    # Square is a random search; a minimum-norm run is held to its distance, which is looser than to break at ε.
    factor = {"square": 2.5, "fab-min": 1.1}.get(attack, 1.05)
    return Case(
        attack,
        norm,
        lambda eps: small(attack, norm, eps, steps=12, queries=100),
        library,
        factor=factor,
        strong=lambda eps: small(attack, norm, eps, steps=50, queries=600),
    )


NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "fab-min")
CASES = [case(attack, norm) for attack in NAMES for norm in NORMS]
