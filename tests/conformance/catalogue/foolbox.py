"""FGSM, R-FGSM, BIM, PGD and FMN (Linf) against foolbox; momentum in Linf against ART, which has the paper's."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from pytest_prunerob import bim, fgsm, fmn, momentum, pgd, r_fgsm
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


def _bim(plan: Plan, params: dict[str, Any]) -> Any:
    from foolbox import attacks

    family = {"linf": attacks.LinfBasicIterativeAttack, "l2": attacks.L2BasicIterativeAttack}[plan.threat.norm]
    return family(steps=params["steps"], abs_stepsize=float(Fraction(params["step_size"])), random_start=False)


def _r_fgsm(plan: Plan) -> Library:
    """A random step by hand, then foolbox's own call of FGSM; a later restart counts where no earlier one broke."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        params = dict(plan.stages[0].params)
        alpha = float(Fraction(params["alpha"]))
        fast = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}
        made, left = fast[plan.threat.norm](), float(plan.threat.radius) - alpha
        torch.manual_seed(SEED)
        found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool)
        for restart in range(params["restarts"]):
            noise = torch.randn(x.shape)
            way = (
                noise.sign()
                if plan.threat.norm == "linf"
                else noise / noise.square().sum((1, 2, 3), keepdim=True).sqrt()
            )
            _, tried, success = made(wrapped, torch.clip(x + alpha * way, 0, 1), y, epsilons=left)
            new = ~broken if restart == 0 else success & ~broken
            found[new] = tried[new]
            broken |= success
        return found

    return attack


def _momentum_l2(plan: Plan, params: dict[str, Any]) -> Any:
    """foolbox gathers gradients of L2 length 1 and the paper those of L1 length 1; ART projects in another order."""
    from foolbox import attacks

    step, decay = float(Fraction(params["step_size"])), float(Fraction(params["decay"]))
    return attacks.L2MomentumIterativeFastGradientMethod(momentum=decay, steps=params["steps"], abs_stepsize=step)


def _momentum_linf(plan: Plan) -> Library:
    """foolbox gathers the signs of gradients in Linf, the paper and ART their values."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from pytest_prunerob.attacks import art as ours

        ours.load_art()
        from art.attacks.evasion import MomentumIterativeMethod
        from art.estimators.classification import PyTorchClassifier

        loss = nn.CrossEntropyLoss()
        estimator = PyTorchClassifier(model, loss, tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu")
        params = dict(plan.stages[0].params)
        made = MomentumIterativeMethod(
            estimator,
            norm="inf",
            eps=float(plan.threat.radius),
            eps_step=float(Fraction(params["step_size"])),
            decay=float(Fraction(params["decay"])),
            max_iter=params["steps"],
            verbose=False,
        )
        return torch.from_numpy(made.generate(x.numpy(), y.numpy()))

    return attack


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
    *(
        Case(
            "r-fgsm",
            norm,
            lambda eps, norm=norm: r_fgsm(norm=norm, eps=eps, restarts=3),
            _r_fgsm,
            # A random step costs a linear network's attacker what it is long, and at most as much again.
            strong=lambda eps, norm=norm: r_fgsm(norm=norm, eps=eps, alpha=Fraction(eps) / 50),
            factor=1.05,
        )
        for norm in ("linf", "l2")
    ),
    *(
        Case(
            "bim",
            norm,
            lambda eps, norm=norm: bim(norm=norm, eps=eps, steps=10, step_size=_quarter(eps)),
            driven(_bim),
        )
        for norm in ("linf", "l2")
    ),
    *(
        Case(
            "momentum",
            norm,
            lambda eps, norm=norm: momentum(norm=norm, eps=eps, steps=10, step_size=_quarter(eps), decay="0.9"),
            library,
        )
        for norm, library in (("linf", _momentum_linf), ("l2", driven(_momentum_l2)))
    ),
    Case("fmn", "linf", lambda eps: fmn(norm="linf", steps=60), driven(_fmn), factor=1.1),
]
