"""Threat models and attack plans: what is attacked, how strongly and with which stages.

Plans are frozen and cost nothing to construct: no attack library is imported here. A plan is resolved against the
number of classes of the subject (``resolve``) before it runs, and only the resolved plan enters a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from pytest_prunerob.errors import PlanError, unknown

Number = str | int | float | Fraction
Parameter = int | str | bool
LONGEST = 64  # characters of a number (ours); none needs more, and a giant exponent would fill memory
MICRO_BATCH = 250  # the batch size of the published AutoAttack evaluations, hence the unit of randomness
WHOLE_SET = 0  # the micro-batch of attacks that make one perturbation for all samples
TARGETS = ("least-likely", "next", "random")
LABELS = ("true", "predicted")
# Fewer classes than these leave a loss undefined: the DLR loss is divided by the difference to the third largest logit.
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}

PlanKind = Literal["fixed", "minimum", "corruption", "estimate"]


@dataclass(frozen=True)
class ThreatModel:
    """The set of inputs an adversary may choose: a ball of radius ε around each sample, within the box [0, 1].

    ``eps`` is kept as it was written ("8/255"); ``radius`` is its exact value. ``eps`` is ``None`` for minimum-norm
    attacks, which look for the smallest radius themselves; ``norm`` is "none" for corruptions, which no adversary
    chooses. The goal is misclassification, or with ``target`` the class that this rule gives each sample:
    "least-likely" (the smallest clean logit), "next" (the label plus one) or "random" (one of the others).
    """

    norm: str
    eps: str | None
    target: str = ""

    @property
    def radius(self) -> Fraction:
        """The exact ε; raises ``PlanError`` for a minimum-norm threat model."""
        if self.eps is None:
            raise PlanError("a minimum-norm plan has no ε; use a plan with eps=... here")
        return Fraction(self.eps)

    @property
    def text(self) -> str:
        """The threat model in words, such as ``linf, ε=8/255``."""
        parts = [self.norm] * (self.norm != "none")
        parts += [f"ε={self.eps}"] if self.eps is not None else []
        parts += [f"targeted ({self.target})"] if self.target else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Stage:
    """One attack of a plan with its parameters, by the field's names (steps, restarts, targets, queries)."""

    attack: str
    params: tuple[tuple[str, Parameter], ...] = ()

    def get(self, name: str) -> Parameter:
        """The value of parameter ``name``."""
        return dict(self.params)[name]

    def integer(self, name: str) -> int:
        """The value of the whole-number parameter ``name``."""
        return int(dict(self.params)[name])

    def changed(self, **params: Parameter) -> Stage:
        """This stage with some parameters replaced."""
        return Stage(self.attack, tuple(sorted({**dict(self.params), **params}.items())))


@dataclass(frozen=True)
class Plan:
    """An ordered list of attack stages under one threat model.

    ``kind`` is "fixed" (the attack stays within ε), "minimum" (it looks for the smallest perturbation), "corruption"
    (no adversary) or "estimate" (a score instead of inputs). ``micro_batch`` is ``WHOLE_SET`` where the whole set of
    samples is attacked at once.
    """

    name: str
    kind: PlanKind
    threat: ThreatModel
    stages: tuple[Stage, ...]
    micro_batch: int = MICRO_BATCH

    @property
    def text(self) -> str:
        """The plan in words, such as ``autoattack standard, linf, ε=0.2``."""
        return ", ".join(part for part in (self.name, self.threat.text) if part)

    @property
    def attack_set(self) -> str:
        """The plan with its stages, as a verdict names the attacks it stands on."""
        return f"{self.text}: {', '.join(stage.attack for stage in self.stages)}"

    @property
    def randomised(self) -> bool:
        """Whether this plan is for subjects that draw at inference: its attacks take expectations (stages with "eot").

        What breaks under such a plan is judged by votes, never by a single forward.
        """
        return any("eot" in dict(stage.params) for stage in self.stages)

    def of(self, stages: tuple[Stage, ...]) -> Plan:
        """This plan with other stages."""
        return replace(self, stages=stages)

    def size(self, n: int) -> int:
        """The number of samples in a micro-batch where ``n`` are judged."""
        return n if self.micro_batch == WHOLE_SET else self.micro_batch

    def material(self) -> dict[str, object]:
        """Everything of this plan that decides outcomes, for keys."""
        return {
            "kind": self.kind,
            "norm": self.threat.norm,
            "eps": None if self.threat.eps is None else str(self.threat.radius),
            "target": self.threat.target,
            "stages": [[stage.attack, dict(stage.params)] for stage in self.stages],
            "micro_batch": self.micro_batch,
        }


def resolve(plan: Plan, classes: int) -> Plan:
    """``plan`` for a subject with ``classes`` classes: the number of targets is clamped to the other classes.

    Raises:
        PlanError: where a loss is not defined for so few classes (the DLR loss needs 3, its targeted form 4).
    """
    stages = []
    for stage in plan.stages:
        needed = FEWEST_CLASSES.get(stage.attack, 2)
        if classes < needed:
            if plan.randomised:
                raise PlanError(f"{plan.name} needs at least {needed} classes and the model has {classes}")
            usable = [s.attack for s in plan.stages if FEWEST_CLASSES.get(s.attack, 2) <= classes]
            works = usable or ["apgd-ce", "fab-t", "square"]
            raise PlanError(
                f"{stage.attack} needs at least {needed} classes and the model has {classes}: "
                f"use autoattack({works!r}, ...)"
            )
        if "targets" in dict(stage.params):
            stage = stage.changed(targets=min(stage.integer("targets"), classes - 1))
        stages.append(stage)
    return replace(plan, stages=tuple(stages))


def worst_case(*plans: Plan) -> Plan:
    """One plan with the stages of all ``plans``: a sample survives only what survives every one of them.

    For minimum-norm plans the distance of a sample is the smallest that any of them finds. A plan with one perturbation
    for the whole set goes first, so that it is made for all samples and not for what the others leave; all stages then
    take the set as one micro-batch.

    Raises:
        PlanError: for plans of different kinds or threat models, which have no sample-wise worst case, and for two that
            each make one perturbation for the whole set: the second would be made for what the first leaves.
    """
    if not plans:
        raise PlanError("worst_case() takes at least one plan")
    first = plans[0]
    for other in plans[1:]:
        if (other.kind, other.threat) != (first.kind, first.threat):
            raise PlanError(
                f"worst_case(...) takes plans of one threat model, received {first.text!r} and {other.text!r}"
            )
        if other.randomised != first.randomised:  # one is judged by votes, the other by single forwards
            raise PlanError(
                f"worst_case(...) takes plans for randomised models or others, received {first.text!r} and "
                f"{other.text!r}"
            )
    plans = tuple(sorted(dict.fromkeys(plans), key=lambda plan: plan.micro_batch != WHOLE_SET))
    if len(plans) > 1 and plans[1].micro_batch == WHOLE_SET:
        raise PlanError(
            f"worst_case(...) takes one plan that perturbs the whole set at once, received {plans[0].text!r} and "
            f"{plans[1].text!r}"
        )
    stages = tuple(dict.fromkeys(stage for plan in plans for stage in plan.stages))
    sizes = {plan.micro_batch for plan in plans}
    if len(sizes) > 1 and WHOLE_SET not in sizes:
        raise PlanError(f"worst_case(...) takes plans of one micro_batch, received {sorted(sizes)}")
    return Plan(" + ".join(plan.name for plan in plans), first.kind, first.threat, stages, min(sizes))


def single(
    attack: str,
    threat: ThreatModel,
    micro_batch: int = MICRO_BATCH,
    *,
    name: str = "",
    kind: PlanKind = "fixed",
    **params: Parameter,
) -> Plan:
    """The plan whose only stage is ``attack`` with ``params``."""
    return Plan(name or attack, kind, threat, (Stage(attack, tuple(sorted(params.items()))),), micro_batch)


# ---- what constructors check


def checked_norm(norm: str, allowed: tuple[str, ...]) -> str:
    """``norm`` if it is one of ``allowed``; raises ``PlanError`` else."""
    if norm not in allowed:
        raise PlanError(unknown("norm", norm, allowed))
    return norm


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """``value`` of the parameter ``name`` if it is one of ``allowed``; raises ``PlanError`` else."""
    if value not in allowed:
        raise PlanError(unknown(name, value, allowed))
    return value


def checked_target(target: str | None) -> str:
    """The rule that chooses the target classes, empty for an untargeted attack; raises ``PlanError`` for others."""
    return "" if target is None else one_of("target", target, TARGETS)


def crafted_on(labels: str, plan: Plan) -> Plan:
    """``plan`` crafted on the "true" labels, which needs no parameter, or on the "predicted" ones.

    Raises:
        PlanError: for other labels.
    """
    if one_of("labels", labels, LABELS) == "true":
        return plan
    stages = tuple(stage.changed(labels=labels) for stage in plan.stages)
    return replace(plan, stages=stages, name=f"{plan.name}, on predicted labels")


def number(value: Number, name: str) -> str:
    """``value`` as it was written, any finite number from 0 up; raises ``PlanError`` else."""
    return _written(value, name, least=0)


def positive(value: Number, name: str = "eps") -> str:
    """``value`` as it was written, a positive number; raises ``PlanError`` else."""
    text = _written(value, name, least=None)
    if not 1e-30 < Fraction(text) < 1e30:
        raise PlanError(f"{name}={value!r} is out of range: inputs lie in [0, 1]")
    return text


def count(name: str, value: int) -> int:
    """``value`` of the parameter ``name``, a whole number of at least 1; raises ``PlanError`` else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{name}={value!r} is not a whole number of at least 1")
    return value


def exactly(value: Number, name: str) -> str:
    """``value``, a positive number, as the exact fraction that enters keys; raises ``PlanError`` else."""
    return str(Fraction(positive(value, name)))


def _written(value: Number, name: str, *, least: int | None) -> str:
    text = repr(float(value)) if isinstance(value, float) else str(value).strip()
    try:
        if isinstance(value, bool) or len(text) > LONGEST or re.search(r"[eE][+-]?[0-9_]{4}", text):
            raise ValueError
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise PlanError(f"{name}={value!r} is not a number: write a decimal or a fraction such as '8/255'") from None
    if least is None and found <= 0:
        raise PlanError(f"{name}={value!r} is not positive")
    if least is not None and found < least:
        raise PlanError(f"{name}={value!r} is below {least}")
    return text
