"""FGSM, PGD and FMN (Linf) against foolbox."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from pytest_prunerob import fgsm, fmn, pgd
from pytest_prunerob.plans import Plan
from tests.conformance.catalogue.case import SEED, Case, Library


def driven(make: Callable[[Plan, dict[str, Any]], Any]) -> Callable[[Plan], Library]:
    """The library driver of the foolbox attack that ``make(plan, parameters)`` constructs."""

    def library(plan: Plan) -> Library:
        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            import foolbox

            wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
            made = make(plan, dict(plan.stages[0].params))
            eps = None if plan.threat.eps is None else float(plan.threat.radius)
            torch.manual_seed(SEED)
            # Its second output is clipped to ε, its first is what a minimum-norm attack found.
            returned: Tensor = made(wrapped, x, y, epsilons=eps)[0 if eps is None else 1]
            return returned

        return attack

    return library


def _fgsm(plan: Plan, params: dict[str, Any]) -> Any:
    from foolbox import attacks

    family = {"linf": attacks.LinfFastGradientAttack, "l2": attacks.L2FastGradientAttack}
    return family[plan.threat.norm](random_start=params["random_start"])


def _pgd(plan: Plan, params: dict[str, Any]) -> Any:
    from foolbox import attacks

    family = {
        "linf": attacks.LinfProjectedGradientDescentAttack,
        "l2": attacks.L2ProjectedGradientDescentAttack,
    }[plan.threat.norm]
    step = float(Fraction(params["step_size"]))
    made = family(steps=params["steps"], abs_stepsize=step, random_start=params["random_start"])
    return made.repeat(params["restarts"])


def _fmn(plan: Plan, params: dict[str, Any]) -> Any:
    from foolbox import attacks

    return attacks.LInfFMNAttack(steps=params["steps"])


def _quarter(eps: str) -> str:
    return str(Fraction(eps) / 4)


CASES = [
    *(Case("fgsm", norm, lambda eps, norm=norm: fgsm(norm=norm, eps=eps), driven(_fgsm)) for norm in ("linf", "l2")),
    *(
        Case(
            "pgd",
            norm,
            lambda eps, norm=norm: pgd(norm=norm, eps=eps, steps=10, step_size=_quarter(eps), restarts=3),
            driven(_pgd),
        )
        for norm in ("linf", "l2")
    ),
    Case("fmn", "linf", lambda eps: fmn(norm="linf", steps=60), driven(_fmn), factor=1.1),
]
