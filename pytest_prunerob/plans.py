"""Threat models and attack plans: what is attacked, how strongly and with which stages.

Plans are frozen and cost nothing to construct: no attack library is imported here. A plan is resolved against the
number of classes of the subject (``resolve``) before it runs, and only the resolved plan enters a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from pytest_prunerob.errors import PlanError, unknown

Number = str | int | float | Fraction
Parameter = int | str | bool
LONGEST = 64  # characters of a number (ours); none needs more, and a giant exponent would fill memory
MICRO_BATCH = 250  # the batch size of the published AutoAttack evaluations, hence the unit of randomness


@dataclass(frozen=True)
class ThreatModel:
    """The set of inputs an adversary may choose: a ball of radius ε around each sample, within the box [0, 1].

    ``eps`` is kept as it was written ("8/255"); ``radius`` is its exact value. ``eps`` is ``None`` for minimum-norm
    attacks, which look for the smallest radius themselves. The goal is untargeted misclassification.
    """

    norm: str
    eps: str | None

    @property
    def radius(self) -> Fraction:
        """The exact ε; raises ``PlanError`` for a minimum-norm threat model."""
        if self.eps is None:
            raise PlanError("a minimum-norm plan has no ε; use a plan with eps=... here")
        return Fraction(self.eps)

    @property
    def text(self) -> str:
        """The threat model in words, such as ``linf, ε=8/255``."""
        return self.norm if self.eps is None else f"{self.norm}, ε={self.eps}"


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

    ``kind`` is "fixed" (the attack stays within ε) or "minimum" (it looks for the smallest perturbation).
    """

    name: str
    kind: Literal["fixed", "minimum"]
    threat: ThreatModel
    stages: tuple[Stage, ...]
    micro_batch: int = MICRO_BATCH

    @property
    def text(self) -> str:
        """The plan in words, such as ``autoattack standard, linf, ε=0.2``."""
        return f"{self.name}, {self.threat.text}"

    @property
    def attack_set(self) -> str:
        """The plan with its stages, as a verdict names the attacks it stands on."""
        return f"{self.text}: {', '.join(stage.attack for stage in self.stages)}"

    def of(self, stages: tuple[Stage, ...]) -> Plan:
        """This plan with other stages."""
        return replace(self, stages=stages)

    def material(self) -> dict[str, object]:
        """Everything of this plan that decides outcomes, for keys."""
        return {
            "kind": self.kind,
            "norm": self.threat.norm,
            "eps": None if self.threat.eps is None else str(self.threat.radius),
            "stages": [[stage.attack, dict(stage.params)] for stage in self.stages],
            "micro_batch": self.micro_batch,
        }


def autoattack(
    stages: str | Sequence[str] = "standard",
    *,
    norm: str,
    eps: Number,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """AutoAttack (Croce & Hein 2020, arXiv:2003.01690): version "standard" or "plus", or a list of its stages.

    Versions and stage lists have the parameters that pyautoattack gives them; a list of stages is its version
    "custom" (5 restarts of the untargeted attacks). ``norm`` is "linf", "l2" or "l1", ``eps`` a number or a string
    such as "8/255". L1 "standard" has its own schedule (3ε, 2ε, ε; 5 restarts; 5 targets of APGD-T; Croce & Hein 2021).

    Raises:
        PlanError: for an unknown version, stage or norm, or an ε that is no positive number.
    """
    norm = _norm(norm, ("linf", "l2", "l1"))
    threat = ThreatModel(norm, _eps(eps))
    if isinstance(stages, str):
        if stages not in ("standard", "plus"):
            raise PlanError(unknown("AutoAttack version", stages, ("standard", "plus")))
        name, chosen = stages, _version(stages, norm)
    else:
        if not stages:
            raise PlanError("autoattack([]) has no stages: allowed are " + ", ".join(_custom()))
        for stage in stages:
            if stage not in _custom():
                raise PlanError(unknown("AutoAttack stage", stage, _custom()))
        if len(set(stages)) != len(stages):
            raise PlanError(f"autoattack({list(stages)!r}) names a stage twice")
        name, chosen = "+".join(stages), tuple(_custom()[stage] for stage in stages)
    return Plan(f"autoattack {name}", "fixed", threat, chosen, _micro_batch(micro_batch))


def pgd(
    *,
    norm: str,
    eps: Number,
    steps: int,
    step_size: Number,
    restarts: int = 1,
    random_start: bool = True,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Projected gradient descent (Madry et al. 2018) from foolbox; ``step_size`` is absolute, in units of the input.

    Raises:
        PlanError: for an unknown norm, a bad ε, step size, number of steps or of restarts.
    """
    params: dict[str, Parameter] = {
        "steps": _count("steps", steps),
        "step_size": str(Fraction(_eps(step_size, "step_size"))),
        "restarts": _count("restarts", restarts),
        "random_start": bool(random_start),
    }
    threat = ThreatModel(_norm(norm, ("linf", "l2")), _eps(eps))
    stage = Stage("pgd", tuple(sorted(params.items())))
    name = f"pgd {steps} steps of {_eps(step_size, 'step_size')}"
    name += f", {restarts} restarts" if restarts > 1 else ""
    name += "" if random_start else ", no random start"
    return Plan(name, "fixed", threat, (stage,), _micro_batch(micro_batch))


def fgsm(*, norm: str, eps: Number, random_start: bool = False, micro_batch: int = MICRO_BATCH) -> Plan:
    """Fast gradient sign method (Goodfellow et al. 2015) from foolbox: one step of length ε.

    Raises:
        PlanError: for an unknown norm or a bad ε.
    """
    threat = ThreatModel(_norm(norm, ("linf", "l2")), _eps(eps))
    stage = Stage("fgsm", (("random_start", bool(random_start)),))
    return Plan("fgsm, random start" if random_start else "fgsm", "fixed", threat, (stage,), _micro_batch(micro_batch))


def fmn(*, norm: str = "linf", steps: int = 100, micro_batch: int = MICRO_BATCH) -> Plan:
    """Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827) from foolbox, Linf only.

    foolbox's L2 version never projects onto its ball and finds distances that are much too large.

    Raises:
        PlanError: for another norm or a bad number of steps.
    """
    if norm == "l2":
        raise PlanError("fmn(norm='l2') is not offered: foolbox's version does not project; use 'linf'")
    threat = ThreatModel(_norm(norm, ("linf",)), None)
    stage = Stage("fmn", (("steps", _count("steps", steps)),))
    return Plan(f"fmn {steps} steps", "minimum", threat, (stage,), _micro_batch(micro_batch))


def resolve(plan: Plan, classes: int) -> Plan:
    """``plan`` for a subject with ``classes`` classes: the number of targets is clamped to the other classes.

    Raises:
        PlanError: where a loss is not defined for so few classes (the DLR loss needs 3, its targeted form 4).
    """
    stages = []
    for stage in plan.stages:
        needed = {"apgd-dlr": 3, "apgd-t": 4}.get(stage.attack, 2)
        if classes < needed:
            usable = [s.attack for s in plan.stages if {"apgd-dlr": 3, "apgd-t": 4}.get(s.attack, 2) <= classes]
            works = usable or ["apgd-ce", "fab-t", "square"]
            raise PlanError(
                f"{stage.attack} needs at least {needed} classes and the model has {classes}: "
                f"use autoattack({works!r}, ...)"
            )
        if "targets" in dict(stage.params):
            stage = stage.changed(targets=min(stage.integer("targets"), classes - 1))
        stages.append(stage)
    return replace(plan, stages=tuple(stages))


def _apgd(attack: str, restarts: int, **more: Parameter) -> Stage:
    params: dict[str, Parameter] = {"steps": 100, "restarts": restarts, "rho": "3/4", **more}
    return Stage(attack, tuple(sorted(params.items())))


def _fab(attack: str, restarts: int, **more: Parameter) -> Stage:
    return Stage(attack, tuple(sorted({"steps": 100, "restarts": restarts, **more}.items())))


def _square() -> Stage:
    return Stage("square", (("p_init", "4/5"), ("queries", 5000), ("restarts", 1)))


def _version(version: str, norm: str) -> tuple[Stage, ...]:
    if version == "plus":
        untargeted = (_apgd("apgd-ce", 5), _apgd("apgd-dlr", 5), _fab("fab", 5), _square())
        return (*untargeted, _apgd("apgd-t", 1, targets=9), _fab("fab-t", 1, targets=9))
    if norm == "l1":
        first = (_apgd("apgd-ce", 5, schedule="3-2-1"), _apgd("apgd-t", 1, targets=5, schedule="3-2-1"))
    else:
        first = (_apgd("apgd-ce", 1), _apgd("apgd-t", 1, targets=9))
    return (*first, _fab("fab-t", 1, targets=9), _square())


def _custom() -> dict[str, Stage]:
    return {
        "apgd-ce": _apgd("apgd-ce", 5),
        "apgd-dlr": _apgd("apgd-dlr", 5),
        "apgd-t": _apgd("apgd-t", 1, targets=9),
        "fab": _fab("fab", 5),
        "fab-t": _fab("fab-t", 1, targets=9),
        "square": _square(),
    }


def _norm(norm: str, allowed: tuple[str, ...]) -> str:
    if norm not in allowed:
        raise PlanError(unknown("norm", norm, allowed))
    return norm


def _eps(value: Number, name: str = "eps") -> str:
    text = repr(float(value)) if isinstance(value, float) else str(value).strip()
    try:
        if isinstance(value, bool) or len(text) > LONGEST or re.search(r"[eE][+-]?[0-9_]{4}", text):
            raise ValueError
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise PlanError(f"{name}={value!r} is not a number: write a decimal or a fraction such as '8/255'") from None
    if number <= 0:
        raise PlanError(f"{name}={value!r} is not positive")
    if not 1e-30 < number < 1e30:
        raise PlanError(f"{name}={value!r} is out of range: inputs lie in [0, 1]")
    return text


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanError(f"{name}={value!r} is not a whole number of at least 1")
    return value


def _micro_batch(value: int) -> int:
    return _count("micro_batch", value)
