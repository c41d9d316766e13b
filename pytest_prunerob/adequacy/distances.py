"""Are the distances of a minimum-norm attack the smallest ones (design 4.3)? A second method and doubled steps tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pytest_prunerob.adequacy.check import CHECKED, FEWEST, NEARER, NEARER_SHARE, SHARE_OF_PLAN, Check
from pytest_prunerob.adequacy.stages import Audit, Case, again, met_errors
from pytest_prunerob.adequacy.trace import Watch, trace
from pytest_prunerob.attacks import ATTACKS, Load
from pytest_prunerob.ledger import Cost
from pytest_prunerob.plans import Plan, Stage, brendel_bethge, cw, fab, fmn

# What the distances of a plan are compared with, by norm: the first method that the plan itself does not have. FAB has
# the steps that AutoAttack gives it, FMN and Brendel & Bethge's attack about as many; the step of C&W is large enough
# to cross the box within its few steps (ours).
METHODS: dict[str, tuple[Plan, ...]] = {
    "linf": (fab(norm="linf"), fmn(norm="linf"), cw(norm="linf", steps=300)),
    "l2": (fab(norm="l2"), fmn(norm="l2"), cw(norm="l2", steps=100, binary_search_steps=4, step_size="0.05")),
    "l1": (fab(norm="l1"), fmn(norm="l1")),
    "l0": (fmn(norm="l0"), brendel_bethge(norm="l0", steps=100), cw(norm="l0", steps=300)),
}
NAMES = {"fab-min": "FAB", "fmn": "FMN", "fmn-own": "FMN", "brendel-bethge": "Brendel & Bethge's attack"}
NO_METHOD = (
    "no second method looks for the nearest input of a given class in {norm}: leave target out, or claim an accuracy"
)


def second(plan: Plan) -> Plan | None:
    """The other minimum-norm attack that the distances under ``plan`` are compared with; ``None`` where there is none.

    A plan that has them all already compares several methods; the first of them is as good as any other then.
    """
    norm, used = plan.threat.norm, {stage.attack for stage in plan.stages}
    known = [method.stages for method in METHODS.get(norm, ()) if method.stages[0].attack in ATTACKS]
    able = [stages for stages in known if not plan.threat.target or ATTACKS[stages[0].attack].targeted]
    others = [stages for stages in able if stages[0].attack not in used]
    chosen = others or (able if len(used) > 1 else [])
    return plan.of(chosen[0]) if chosen else None


def rerun(plan: Plan) -> tuple[Stage, ...]:
    """The stages that an audit of distances under ``plan`` runs: its own with doubled steps, and a second method."""
    other = second(plan)
    return (*(again(stage, plan) for stage in plan.stages), *(() if other is None else other.stages))


def how_many_distances(plan: Plan, n: int) -> int:
    """How many samples the comparison may look at within its share of the plan; never fewer than a few."""
    whole = n * sum(_forwards(stage) for stage in plan.stages)
    return min(n, CHECKED, max(FEWEST, int(SHARE_OF_PLAN * whole / sum(_forwards(stage) for stage in rerun(plan)))))


def _forwards(stage: Stage) -> int:
    return ATTACKS[stage.attack].passes(stage, Load(samples=1, classes=10, features=1)).forward


def audit_distances(case: Case, found: Sequence[float]) -> Audit:
    """Compare the distances ``found`` for the samples of ``case`` with those of a second method and of doubled steps.

    A sample counts where the other distance is more than 15 % smaller: such distances are not the smallest, and neither
    an order nor a threshold of them is evidence. Farther ones say nothing against the attack.
    """
    nearest: dict[int, float] = {}
    checks: list[Check] = []
    cost = Cost()
    doubled = case.plan.of(tuple(again(stage, case.plan) for stage in case.plan.stages))
    for number, stage in enumerate(doubled.stages):
        attack = ATTACKS[stage.attack]
        watch = Watch(case.y.to(case.engine.device), attack.loss)
        more = case.engine.run("minimise", case.module, doubled, number, case.x, case.y, case.classes, case.clean,
                               watch, pool=case.pool)  # fmt: skip
        cost += more.cost
        if more.errors:
            checks.append(met_errors("doubled-steps", "", more.errors))
        if attack.gradient:
            seen = trace(watch, len(case.x))
            zero = seen.zero(torch.ones(len(case.x), dtype=torch.bool))
            checks.append(_zero(case.plan.stages[number].attack, zero, seen.evaluations, len(case.x)))
        else:  # whether the model has gradients is seen from the second method
            message = "it asks for outputs only"
            checks.append(Check("zero-gradient", "not applicable", message, case.plan.stages[number].attack))
        for place, value in more.values.items():
            nearest[place] = min(abs(value), nearest.get(place, abs(value)))
    stages = " and ".join(stage.attack for stage in case.plan.stages)
    checks.append(_nearer("doubled-steps", f"{stages} with doubled steps finds", found, nearest))
    return Audit(tuple(checks), cost=cost, nearest=tuple(nearest.items())) + _compared(case, found)


def _compared(case: Case, found: Sequence[float]) -> Audit:
    plan = second(case.plan)
    if plan is None:
        return Audit((Check("second-method", "failed", NO_METHOD.format(norm=case.plan.threat.norm)),))
    watch = Watch(case.y.to(case.engine.device), "")
    other = case.engine.run("minimise", case.module, plan, 0, case.x, case.y, case.classes, case.clean,
                            watch, pool=case.pool)  # fmt: skip
    checks = [met_errors("second-method", "", other.errors)] if other.errors else []
    name = NAMES.get(plan.stages[0].attack, "C&W")
    if not any(ATTACKS[stage.attack].gradient for stage in case.plan.stages):
        # Where both are led astray by flat outputs, neither finds what is near, and they agree.
        seen = trace(watch, len(case.x))
        zero = seen.zero(torch.ones(len(case.x), dtype=torch.bool))
        found_none = _zero("", zero, seen.evaluations, len(case.x))
        checks.append(replace(found_none, message=f"{name}: {found_none.message}"))
    checks.append(_nearer("second-method", f"{name} finds", found, other.values))
    return Audit(tuple(checks), cost=other.cost, nearest=tuple((i, abs(v)) for i, v in other.values.items()))


def undercut(found: Mapping[int, float], nearest: Sequence[tuple[int, float]], eps: float) -> str:
    """Why the distances ``found`` do not tell who survives ``eps``, or the empty string.

    ``nearest`` are distances that other searches found for some of the samples. A point of a security curve counts
    samples, so that two which another search breaks within ε are too many, and one by more than 15 %.
    """
    best: dict[int, float] = {}
    for place, value in nearest:
        best[place] = min(value, best.get(place, value))
    crossed = {place: value for place, value in best.items() if value <= eps < found.get(place, 0.0)}
    clearly = [place for place, value in crossed.items() if value < (1 - NEARER) * found[place]]
    if len(crossed) < 2 and not clearly:
        return ""
    return f"another search breaks {len(crossed)} of {len(best)} checked samples within ε={eps:g} that were farther"


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
