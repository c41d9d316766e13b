"""Are the distances of a minimum-norm attack the smallest ones (design 4.3)? A second method and doubled steps tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pytest_prunerob.adequacy.check import CHECKED, FEWEST, NEARER, NEARER_SHARE, SHARE_OF_PLAN, Check
from pytest_prunerob.adequacy.stages import Audit, Case, again, forwards, met_errors
from pytest_prunerob.adequacy.trace import Watch, trace
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.plans import Plan, Stage

# What another minimum-norm attack than the one that was used finds: FAB, with the steps that AutoAttack gives it.
SECOND = Stage("fab-min", (("restarts", 1), ("steps", 100)))


def second(plan: Plan) -> Plan:
    """The other minimum-norm attack that the distances under ``plan`` are compared with."""
    return replace(plan.of((SECOND,)), name="fab")


def how_many_distances(plan: Plan, n: int) -> int:
    """How many samples the comparison may look at within its share of the plan; never fewer than a few."""
    whole = n * sum(forwards(stage) for stage in plan.stages)
    each = forwards(SECOND) + sum(forwards(again(stage, plan)) for stage in plan.stages)
    return min(n, CHECKED, max(FEWEST, int(SHARE_OF_PLAN * whole / each)))


def audit_distances(case: Case, found: Sequence[float]) -> Audit:
    """Compare the distances ``found`` for the samples of ``case`` with those of a second method and of doubled steps.

    A sample counts where the other distance is more than 15 % smaller: such distances are not the smallest, and neither
    an order nor a threshold of them is evidence. Farther ones say nothing against the attack.
    """
    if case.plan.threat.target:  # FAB goes to the nearest class, whichever that is
        message = (
            "no second method looks for the nearest input of a given class: leave target out, or claim an accuracy"
        )
        return Audit((Check("second-method", "failed", message),))
    doubled = case.plan.of(tuple(again(stage, case.plan) for stage in case.plan.stages))
    stage = case.plan.stages[0].attack
    watch = Watch(case.y.to(case.engine.device), ATTACKS[stage].loss)
    more = case.engine.run("minimise", case.module, doubled, 0, case.x, case.y, case.classes, case.clean, watch)
    other = case.engine.run("minimise", case.module, second(case.plan), 0, case.x, case.y, case.classes, case.clean)
    seen = trace(watch, len(case.x))
    tried = (("doubled-steps", more.errors), ("second-method", other.errors))
    checks = (
        *(met_errors(indicator, "", errors) for indicator, errors in tried if errors),
        _zero(stage, seen.zero(torch.ones(len(case.x), dtype=torch.bool)), seen.evaluations, len(case.x)),
        _nearer("doubled-steps", f"{stage} with doubled steps finds", found, more.values),
        _nearer("second-method", "FAB finds", found, other.values),
    )
    return Audit(checks, cost=more.cost + other.cost)


def _nearer(indicator: str, what: str, found: Sequence[float], others: dict[int, float]) -> Check:
    nearer = sum(abs(others.get(i, float("inf"))) < (1 - NEARER) * abs(value) for i, value in enumerate(found))
    share = nearer / len(found)
    message = f"{what} the boundary more than {NEARER:.0%} nearer for {nearer} of {len(found)} samples"
    return Check(indicator, "failed" if share > NEARER_SHARE else "passed", message, "", share, NEARER_SHARE)


def _zero(stage: str, zero: int, evaluations: int, many: int) -> Check:
    if not evaluations:
        return Check("zero-gradient", "failed", "it took no gradient of the model at all", stage, 1.0, NEARER_SHARE)
    message = f"{zero} of {many} samples had no gradient of its loss"
    outcome = "failed" if zero > NEARER_SHARE * many else "passed"
    return Check("zero-gradient", outcome, message, stage, zero / many, NEARER_SHARE)  # type: ignore[arg-type]
