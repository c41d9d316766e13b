"""C&W (L2), DeepFool and Brendel-Bethge (L0) against foolbox; FMN in L2, L1 and L0, which is our own."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from pytest_prunerob import brendel_bethge, cw, deepfool, fmn
from pytest_prunerob.attacks.brendel_bethge import plain
from pytest_prunerob.plans import Plan
from tests.conformance.catalogue.case import Case, Library
from tests.conformance.catalogue.foolbox import driven


def _cw(plan: Plan, params: dict[str, Any]) -> Any:
    from foolbox import attacks

    return attacks.L2CarliniWagnerAttack(
        binary_search_steps=params["binary_search_steps"],
        steps=params["steps"],
        stepsize=float(Fraction(params["step_size"])),
        confidence=float(params["confidence"]),
        initial_const=float(Fraction(params["initial_const"])),
        abort_early=False,
    )


def _deepfool(plan: Plan, params: dict[str, Any]) -> Any:
    from foolbox import attacks

    family = {"l2": attacks.L2DeepFoolAttack, "linf": attacks.LinfDeepFoolAttack}[plan.threat.norm]
    overshoot = float(Fraction(params["overshoot"]))
    return family(steps=params["steps"], candidates=params["candidates"], overshoot=overshoot, loss=params["loss"])


def _brendel_bethge(plan: Plan) -> Library:
    """foolbox's attack with its own solver, in plain Python, from the nearest of the samples in another class."""
    params: dict[str, Any] = dict(plan.stages[0].params)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        with torch.no_grad():
            predicted = model(x).argmax(1)
        start = x.clone()
        for row in range(len(x)):
            others = (predicted != y[row]).nonzero().flatten()
            start[row] = x[others[(x[others] - x[row]).square().flatten(1).sum(1).argmin()]]
        made = plain().L0BrendelBethgeAttack(
            steps=params["steps"],
            lr=float(Fraction(params["step_size"])),
            lr_num_decay=params["decays"],
            binary_search_steps=params["binary_search_steps"],
        )
        returned: Tensor = made.run(
            foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, starting_points=start
        )
        return returned

    return attack


CASES = [
    *(Case("fmn-own", norm, lambda eps, norm=norm: fmn(norm=norm, steps=30), None) for norm in ("l2", "l1", "l0")),
    Case(
        "cw-l2",
        "l2",
        lambda eps: cw(steps=20, binary_search_steps=2, step_size="0.1", initial_const=10),
        driven(_cw),
        factor=1.1,
        strong=lambda eps: cw(steps=30, binary_search_steps=2, initial_const="0.05"),
    ),
    *(
        Case(
            "deepfool",
            norm,
            lambda eps, norm=norm: deepfool(norm=norm, steps=5, candidates=4),
            driven(_deepfool),
            factor=1.05,  # its overshoot is 1.02
        )
        for norm in ("l2", "linf")
    ),
    Case("brendel-bethge", "l0", lambda eps: brendel_bethge(steps=12, binary_search_steps=6), _brendel_bethge),
]
