"""What ``--prunerob-adequacy=full`` adds: attacks that must succeed if the attack of the plan can work at all.

The unbounded attack and the ε sweep are after Carlini et al. 2019 (On Evaluating Adversarial Robustness,
arXiv:1902.06705), silent success after Pintor et al. 2022.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch

from pytest_prunerob.adequacy.check import RISE_WITH_EPS, SWEEP, UNBOUNDED_STEPS, Check
from pytest_prunerob.adequacy.readout import audit_readout
from pytest_prunerob.adequacy.stages import NONE_IN_L0, Audit, Case, again, expecting, met_errors
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.ledger import Cost
from pytest_prunerob.plans import Plan, Stage, ThreatModel

FULL = ("unbounded", "eps-sweep", "binarised-readout")


def audit_fully(case: Case) -> Audit:
    """The indicators of the level "full"."""
    if case.plan.threat.norm == "l0":  # there survival does not count whatever they say
        return Audit(tuple(Check(name, "not applicable", NONE_IN_L0) for name in FULL))
    result = unbounded(case) + sweep(case) + audit_readout(case)
    for number in case.examples:
        result += silent(case, number)
    return result


def unbounded(case: Case) -> Audit:
    """With the whole box to move in, from the clean point, no more than chance may survive."""
    whole = ThreatModel("linf", "1")
    left, cost = torch.arange(len(case.x)), Cost()
    for name in ("apgd-ce", "apgd-dlr")[: 2 if case.classes > 2 else 1]:
        stage = Stage(name, (("restarts", 1), ("rho", "3/4"), ("start", "clean"), ("steps", UNBOUNDED_STEPS)))
        stage = stage.changed(**expecting(case.plan))
        plan = Plan("unbounded", "fixed", whole, (stage,), case.plan.micro_batch)
        result = case.engine.run("decide", case.module, plan, 0, case.x[left], case.y[left], case.classes)
        cost += result.cost
        left = left[[i for i in range(len(left)) if i not in result.broken]]
        if not len(left):
            break
    value, chance = len(left) / len(case.x), 1 / case.classes
    message = f"free to move in the whole box, the attack left {len(left)} of {len(case.x)} checked survivors"
    return Audit((Check("unbounded", "failed" if value > chance else "passed", message, "", value, chance),), cost=cost)


def sweep(case: Case) -> Audit:
    """With a part of ε the attack must not break what survived it with ε; what it breaks is broken with ε too."""
    number = next((i for i, stage in enumerate(case.plan.stages) if ATTACKS[stage.attack].gradient), None)
    if number is None:
        return Audit((Check("eps-sweep", "not applicable", "the plan has no gradient stage"),))
    broken: set[int] = set()
    found = Audit()
    for part in SWEEP:
        threat = replace(case.plan.threat, eps=str(case.plan.threat.radius * Fraction(part)))
        plan = replace(case.plan.of((again(case.plan.stages[number], case.plan),)), threat=threat)
        result = case.engine.run("decide", case.module, plan, 0, case.x, case.y, case.classes, case.clean)
        broken |= set(result.broken)
        if result.errors:
            found += Audit((met_errors("eps-sweep", "", result.errors),))
        found += Audit((), ((number, result),) if result.broken else (), result.cost)
    failed = case.of_all(len(broken)) > RISE_WITH_EPS * case.n
    message = f"with a quarter and half of ε it broke {len(broken)} of {len(case.x)} survivors of the whole ε"
    value = case.of_all(len(broken)) / case.n
    return found + Audit((Check("eps-sweep", "failed" if failed else "passed", message, "", value, RISE_WITH_EPS),))


def silent(case: Case, number: int) -> Audit:
    """How often the attack returns an input that is none although it passed one; the oracle counts those breaks."""
    stage = case.plan.stages[number]
    x, y = case.examples[number]
    result = case.engine.run("returned", case.module, case.plan, number, x, y, case.classes)
    missed = len(x) - len(result.broken)
    message = f"for {missed} of {len(x)} samples that it broke it returned an input that breaks nothing"
    check = Check("silent-success", "failed" if missed else "passed", message, stage.attack, missed / len(x), 0.0,
                  level="information")  # fmt: skip
    return Audit((check,), cost=result.cost)
