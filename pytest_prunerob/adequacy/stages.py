"""Could the stages of a plan have broken the samples that survived them (design 4.3)?

Each gradient stage runs again on some survivors and is judged by its own loss and gradients there (Pintor et al. 2022,
Indicators of Attack Failure, arXiv:2106.09947). A break found on the way is a witness like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.adequacy.check import (
    BAD_SHARE,
    BLACK_BOX_SHARE,
    CHEAP,
    CHECKED,
    DOUBLED_SHARE,
    FEWEST,
    NEIGHBOUR,
    NEIGHBOURS,
    NEW_BREAKS,
    RISING,
    SHARE_OF_PLAN,
    UNSTABLE,
    Check,
    Outcome,
)
from pytest_prunerob.adequacy.trace import Trace, Watch, at_clean, margin, trace
from pytest_prunerob.attacks import ATTACKS, Pool
from pytest_prunerob.engine import Engine, Result, targets
from pytest_prunerob.ledger import Cost
from pytest_prunerob.plans import Plan, Stage, apgd, pgd
from pytest_prunerob.plans.plan import FEWEST_CLASSES
from pytest_prunerob.randomness import seeded


@dataclass(frozen=True)
class Case:
    """The survivors of a plan that are looked at.

    ``x``: (k, C, H, W) in [0, 1] with labels ``y`` (k,), ``clean`` logits (k, K); ``n`` samples were judged and
    ``survivors`` of them survived; ``broken_by`` counts the samples that each stage broke, by its number, and
    ``examples`` are a few of them with their labels; ``found`` are the distances of a minimum-norm plan, ``pool``
    samples for attacks that start from some.
    """

    engine: Engine
    module: nn.Module
    plan: Plan
    x: Tensor
    y: Tensor
    clean: Tensor
    classes: int
    n: int
    survivors: int
    broken_by: Mapping[int, int]
    examples: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    found: tuple[float, ...] = ()
    pool: Pool | None = None

    @property
    def radius(self) -> Fraction:
        """ε, or where it is larger the length of the box, beyond which no input lies."""
        features = self.x[0].numel()
        longest = {"linf": 1.0, "l2": features**0.5}.get(self.plan.threat.norm, float(features))
        return min(self.plan.threat.radius, Fraction(longest))

    def of_all(self, count: int) -> float:
        """How many of all survivors ``count`` of the checked ones stand for."""
        return count * self.survivors / len(self.x)


@dataclass(frozen=True)
class Audit:
    """The indicators of an attack on some survivors, and the results of the stages (by number) that broke some.

    ``nearest`` are the smallest distances that other searches found, with the place of each sample.
    """

    checks: tuple[Check, ...] = ()
    results: tuple[tuple[int, Result], ...] = ()
    cost: Cost = Cost()
    nearest: tuple[tuple[int, float], ...] = ()

    def __add__(self, other: Audit) -> Audit:
        return Audit(
            self.checks + other.checks,
            self.results + other.results,
            self.cost + other.cost,
            self.nearest + other.nearest,
        )

    @property
    def adequate(self) -> tuple[str, ...]:
        """The stages that nothing speaks against."""
        stages = dict.fromkeys(check.stage for check in self.checks if check.stage)
        failed = {check.stage for check in self._failed()}
        return tuple(stage for stage in stages if stage not in failed)

    @property
    def problem(self) -> str:
        """Why survival does not count, or the empty string. One adequate gradient stage is enough."""
        whole = [check.message for check in self._failed() if not check.stage]
        if self.checks and not self.adequate:
            reasons: dict[str, str] = {}
            for check in self._failed():
                if check.stage:
                    reasons.setdefault(check.stage, f"{check.stage}: {check.message}")
            why = "; ".join(reasons.values()) or "the plan has none"
            whole.insert(0, f"no gradient stage could have broken the survivors ({why})")
        return "; ".join(whole)

    def _failed(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "failed" and check.level != "information"]


# JSMA changes features greedily in pairs, and nothing like APGD exists in L0 that would tell what it missed.
NONE_IN_L0 = (
    "no attack at a fixed ε is strong enough in L0 for survival to count; "
    "claim fmn(norm='l0') distances or a security curve of them instead"
)


def forwards(stage: Stage) -> int:
    """Samples that a stage forwards for each sample it is given, without the oracle (an upper estimate)."""
    params = dict(stage.params)
    if "queries" in params:
        return stage.integer("queries") * stage.integer("restarts")
    runs = int(params.get("restarts", 1)) * int(params.get("targets", 1)) * int(params.get("eot", 1))
    return (int(params.get("steps", 1)) + 1) * runs * (2 if stage.attack.startswith("fab") else 1)


def again(stage: Stage, plan: Plan) -> Stage:
    """``stage`` of ``plan`` as its audit runs it: once, two targets at most, fixed steps doubled."""
    if stage.attack in ("fgsm", "r-fgsm"):  # one step, doubled, is PGD with two; R-FGSM has no choice of its start
        return pgd(norm=plan.threat.norm, eps=str(plan.threat.eps), steps=2, step_size=str(plan.threat.eps),
                   random_start=bool(dict(stage.params).get("random_start", True))).stages[0]  # fmt: skip
    attack, params = ATTACKS[stage.attack], dict(stage.params)
    if attack.stand_in is not None:
        return attack.stand_in(stage, plan.threat)
    light = {name: value for name, value in (("restarts", 1), ("targets", 2)) if name in params}
    if "targets" in light:
        light["targets"] = min(2, stage.integer("targets"))
    if attack.convergence == "doubled" and "steps" in params:
        light["steps"] = 2 * stage.integer("steps")
    return stage.changed(**light)


def how_many(plan: Plan, survivors: int, n: int) -> int:
    """How many survivors an audit may look at within its share of the plan, or what is cheap; never but a few."""
    gradient = [again(stage, plan) for stage in plan.stages if ATTACKS[stage.attack].gradient]
    whole = n * sum(forwards(stage) for stage in plan.stages)
    other = second_opinion(plan)
    each = sum(forwards(stage) for stage in (*gradient, *([other] if other is not None else []))) + NEIGHBOURS
    return min(survivors, CHECKED, max(FEWEST, CHEAP // each, int(SHARE_OF_PLAN * whole / each)))


def second_opinion(plan: Plan) -> Stage | None:
    """APGD on the margin, for a plan with gradient stages of which none is that; ``None`` for others.

    Cross-entropy can lead astray without saturating, fixed steps can be too long or too short, and FAB shows no loss.
    """
    attacks = [ATTACKS[stage.attack] for stage in plan.stages if ATTACKS[stage.attack].gradient]
    if not attacks or any(attack.convergence == "trace" and attack.loss != "ce" for attack in attacks):
        return None
    threat = plan.threat
    if threat.norm not in ATTACKS["apgd-dlr"].norms:
        return None
    return (
        apgd(norm=threat.norm, eps=str(threat.eps), loss="dlr", target=threat.target or None)
        .stages[0]
        .changed(**expecting(plan))
    )


def expecting(plan: Plan) -> dict[str, int]:
    """The parameter by which the stages of ``plan`` take expectations and votes judge them, where they do.

    A stage that an audit adds needs it too: without it single forwards would judge a subject that draws.
    """
    eot = [stage.integer("eot") for stage in plan.stages if "eot" in dict(stage.params)]
    return {"eot": max(eot)} if eot else {}


def audit_plan(case: Case) -> Audit:
    """The indicators of the plan of ``case`` at fixed ε."""
    if case.plan.threat.norm == "l0":
        return Audit(tuple(Check("second-loss", "failed", NONE_IN_L0, stage.attack) for stage in case.plan.stages))
    result = Audit((black_box(case), unstable(case)), cost=Cost(forward=(1 + NEIGHBOURS) * len(case.x)))
    for number, stage in enumerate(case.plan.stages):
        if ATTACKS[stage.attack].gradient:
            result += audit_stage(case, number)
        if ATTACKS[stage.attack].whole_set:
            message = "one perturbation had to do for all samples, so that survivors may fall to one of their own"
            result += Audit((Check("whole-set", "failed", message, stage.attack),))
    return result + Audit(_all_breaks(case, result)) + second_loss(case)


def second_loss(case: Case) -> Audit:
    """What APGD on the margin breaks of the survivors of a plan that has nothing like it.

    It only shows that the plan was too weak; what it breaks is not added, since the claim names another attack set.
    """
    stage, plan = second_opinion(case.plan), case.plan
    if stage is None:
        return Audit((Check("second-loss", "not applicable", "the plan has APGD on the margin, or no gradient stage"),))
    if case.classes < FEWEST_CLASSES[stage.attack]:
        if plan.threat.target and case.classes > 2:
            message = f"towards a class APGD on the margin needs {FEWEST_CLASSES[stage.attack]} classes"
            return Audit((Check("second-loss", "failed", message),))
        # With two classes the cross-entropy rises where the margin falls, and the other class is the only target.
        plan = replace(plan, threat=replace(plan.threat, target=""))
        stage = apgd(norm=plan.threat.norm, eps=str(plan.threat.eps)).stages[0].changed(**expecting(plan))
    result = case.engine.run("decide", case.module, plan.of((stage,)), 0, case.x, case.y, case.classes, case.clean)
    if result.errors:
        return Audit((met_errors("second-loss", "", result.errors),), cost=result.cost)
    check = _new_breaks(case, "", len(result.broken))
    name = "APGD on the margin" if stage.attack != "apgd-ce" else "APGD"
    message = f"{name} broke {len(result.broken)} of {len(case.x)} checked survivors"
    return Audit((replace(check, indicator="second-loss", message=message),), cost=result.cost)


def _all_breaks(case: Case, found: Audit) -> tuple[Check, ...]:
    """What the stages broke when they ran again is broken whichever of them it was: adequate others do not help."""
    broken = {place for _, result in found.results for place in result.broken}
    stages = sum(ATTACKS[stage.attack].gradient for stage in case.plan.stages)
    return (_new_breaks(case, "", len(broken)),) if stages > 1 else ()


def audit_stage(case: Case, number: int) -> Audit:
    """The indicators of one gradient stage: it runs again on the survivors of ``case``, watched."""
    stage = case.plan.stages[number]
    attack = ATTACKS[stage.attack]
    plan = case.plan.of((again(stage, case.plan),))
    goal = targets(case.plan.threat.target, case.x, case.y, case.clean)
    aim = (case.y if goal is None else goal).to(case.engine.device)
    watch = Watch(aim, attack.loss, towards=goal is not None, mean_of=int(dict(stage.params).get("eot", 1)))
    result = case.engine.run("decide", case.module, plan, 0, case.x, case.y, case.classes, case.clean, watch)
    clean = None
    if attack.loss:
        with seeded(case.engine.seed):
            clean = at_clean(case.module, case.x.to(case.engine.device), aim, attack.loss)
    seen = trace(watch, len(case.x), clean)
    left = torch.ones(len(case.x), dtype=torch.bool)
    left[list(result.broken)] = False
    checks = [met_errors("rerun", stage.attack, result.errors)] if result.errors else []
    if int(left.sum()):
        checks += _loss_checks(stage.attack, seen, left)
        if attack.convergence == "trace":
            checks.append(_rising(stage.attack, seen, left))
        if "step_size" in dict(stage.params):
            checks.append(_reach(stage, case))
    how = "with doubled steps it" if attack.convergence == "doubled" else "run again it"
    how = how if attack.stand_in is None else "PGD in its place"
    checks.append(_new_breaks(case, stage.attack, len(result.broken), how))
    return Audit(tuple(checks), ((number, result),) if result.broken else (),
                 result.cost + (Cost(len(case.x), len(case.x)) if attack.loss else Cost()))  # fmt: skip


def black_box(case: Case) -> Check:
    """Black-box stages must not break what the gradient stages before them missed."""
    stages = [ATTACKS[stage.attack] for stage in case.plan.stages]
    first = next((i for i, attack in enumerate(stages) if attack.gradient), len(stages))
    found = sum(case.broken_by.get(i, 0) for i, attack in enumerate(stages) if i > first and not attack.gradient)
    limit = max(NEW_BREAKS, BLACK_BOX_SHARE * case.n)
    if all(attack.gradient for attack in stages):
        return Check("black-box", "not applicable", "the plan has no black-box stage", limit=limit)
    failed = found >= NEW_BREAKS and found > BLACK_BOX_SHARE * case.n
    message = f"black-box stages broke {found} of {case.n} samples that the gradient stages had missed"
    return Check("black-box", "failed" if failed else "passed", message, value=float(found), limit=limit)


def unstable(case: Case) -> Check:
    """The margin must not jump between random neighbours much nearer than ε."""
    device = case.engine.device
    x, y = case.x.to(device), case.y.to(device)
    radius = NEIGHBOUR * float(case.radius)
    generator = torch.Generator().manual_seed(case.engine.seed)
    before = margin(case.engine.clean(case.module, case.x)[0].to(device), y)
    changes = []
    for _ in range(NEIGHBOURS):
        step = on_sphere(x, case.plan.threat.norm, radius, generator)
        after = margin(case.engine.clean(case.module, (x + step).clamp(0, 1).cpu())[0].to(device), y)
        changes.append((after - before).abs() / before.abs().clamp(min=1e-12))
    value = float(torch.stack(changes).mean(0).median())
    failed = not value <= UNSTABLE
    message = f"at random neighbours {radius:.3g} away the margin changes by {value:.1%} of its size in the median"
    if value != value:
        message = f"at random neighbours {radius:.3g} away the output is not finite"
    return Check("unstable", "failed" if failed else "passed", message, value=value, limit=UNSTABLE)


def on_sphere(x: Tensor, norm: str, radius: float | Tensor, generator: torch.Generator) -> Tensor:
    """Random perturbations of length ``radius``, like ``x`` (N, C, H, W); for Linf corners of the ball.

    ``radius`` is one for all samples, or (N, 1, 1, 1).
    """
    draw = torch.randn(x.shape, generator=generator).to(x)
    flat = draw.flatten(1)
    if norm == "linf":
        return radius * draw.sign()
    length = flat.norm(dim=1) if norm == "l2" else flat.abs().sum(1)
    return radius * draw / length.view(-1, *[1] * (x.ndim - 1))


def met_errors(indicator: str, stage: str, errors: Mapping[int, str]) -> Check:
    """The failed check of an attack that met ``errors``: what it did not break there says nothing."""
    reason = next(iter(errors.values()))
    return Check(indicator, "failed", f"{len(errors)} survivors met an error when it was tried: {reason}", stage)


def _loss_checks(stage: str, seen: Trace, left: Tensor) -> list[Check]:
    many = int(left.sum())
    if not seen.evaluations:
        return [Check("zero-gradient", "failed", "it took no gradient of the model at all", stage, 1.0, BAD_SHARE)]
    found = [_share("zero-gradient", stage, seen.zero(left), many, "had no gradient of its loss")]
    if not len(seen.pooled):
        found.append(_share("flat-loss", stage, seen.flat(left), many, "had a loss that did not move"))
    found.append(_share("non-finite-loss", stage, seen.bad(left), many, "met a loss or a gradient that is not finite"))
    return found


def _share(indicator: str, stage: str, bad: int, many: int, what: str) -> Check:
    outcome = "failed" if bad > BAD_SHARE * many else "passed"
    message = f"{bad} of {many} checked survivors {what}"
    return Check(indicator, outcome, message, stage, bad / many, BAD_SHARE)  # type: ignore[arg-type]


def _rising(stage: str, seen: Trace, left: Tensor) -> Check:
    late = seen.late[left]
    late = late[late.isfinite()]
    value = float(late.median()) if len(late) else 0.0
    message = f"the last quarter of its steps brought {value:.0%} of what its best loss gained"
    return Check("not-converged", "failed" if value > RISING else "passed", message, stage, value, RISING)


def _reach(stage: Stage, case: Case) -> Check:
    """Steps that add up to less than ε never see most of the ball, nor do twice as many where they are tiny."""
    way, radius = stage.integer("steps") * Fraction(str(stage.get("step_size"))), case.radius
    message = f"all its steps together are {float(way):.3g} long, and ε is {float(radius):.3g}"
    outcome: Outcome = "failed" if way < radius else "passed"
    return Check("not-converged", outcome, message, stage.attack, float(way / radius), 1.0)


def _new_breaks(case: Case, stage: str, broken: int, how: str = "run again it") -> Check:
    limit = max(float(NEW_BREAKS), DOUBLED_SHARE * case.n)
    failed = broken >= NEW_BREAKS and case.of_all(broken) > DOUBLED_SHARE * case.n
    message = f"{how} broke {broken} of {len(case.x)} checked survivors"
    return Check("rerun", "failed" if failed else "passed", message, stage, float(broken), limit)
