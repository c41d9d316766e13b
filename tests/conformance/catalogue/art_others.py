"""Universal perturbations and ZOO against the adversarial-robustness-toolbox."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob import universal, zoo
from pytest_prunerob.attacks.art import load_art
from pytest_prunerob.plans import Plan
from tests.conformance.catalogue.case import SEED, Case, Library

ORDER = {"linf": np.inf, "l2": 2}


def driven(make: Callable[[nn.Module, Tensor, Plan, dict[str, Any]], Any]) -> Callable[[Plan], Library]:
    """The library driver of the ART attack that ``make(model, x, plan, parameters)`` constructs."""

    def library(plan: Plan) -> Library:
        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            load_art()
            made = make(model, x, plan, dict(plan.stages[0].params))
            random.seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002 - what ART draws from
            return torch.from_numpy(made.generate(x.numpy(), y.numpy())).float()

        return attack

    return library


def classifier(model: nn.Module, x: Tensor, *, clip: tuple[float, float]) -> Any:
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    shape = tuple(x.shape[1:])
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, classes, clip_values=clip, device_type="cpu")


def _universal(model: nn.Module, x: Tensor, plan: Plan, params: dict[str, Any]) -> Any:
    from art.attacks.evasion import UniversalPerturbation

    eps, order = float(plan.threat.radius), ORDER[plan.threat.norm]
    inner = {"verbose": False} if params["attacker"] == "deepfool" else {"eps": eps, "eps_step": eps, "norm": order}
    return UniversalPerturbation(
        classifier(model, x, clip=(0, 1)),
        attacker=params["attacker"],
        attacker_params=inner,
        delta=float(Fraction(params["delta"])),
        max_iter=params["steps"],
        eps=eps,
        norm=order,
        verbose=False,
    )


class Clipped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.inner(z.clamp(0, 1))
        return logits


def _zoo(model: nn.Module, x: Tensor, plan: Plan, params: dict[str, Any]) -> Any:
    """ART's class with the repairs that ``attacks/zoo.py`` tells of, made in the way of a derived class."""
    from art.attacks.evasion import ZooAttack

    class Repaired(ZooAttack):  # type: ignore[misc]
        def _optimizer(self, z: Any, targets: Any, constants: Any) -> Any:
            return super()._optimizer(z - self._current_noise, targets, constants)

    wrapped = classifier(Clipped(model), x, clip=(-1, 1))
    one_by_one = wrapped.predict
    wrapped.predict = lambda z, batch_size=1: one_by_one(z, batch_size=len(z))
    return Repaired(
        wrapped,
        learning_rate=float(Fraction(params["step_size"])),
        max_iter=params["steps"],
        binary_search_steps=params["search_steps"],
        initial_const=float(Fraction(params["initial_const"])),
        abort_early=False,
        use_resize=False,
        use_importance=False,
        nb_parallel=min(params["coordinates"], x[0].numel()),
        verbose=False,
    )


def small_universal(norm: str) -> Callable[[str], Plan]:
    return lambda eps: universal(norm=norm, eps=eps, steps=2, delta=0, attacker="fgsm")


CASES = [
    *(
        Case("universal", norm, small_universal(norm), driven(_universal), one_class=True, eps=eps)
        for norm, eps in (("linf", "0.25"), ("l2", "1.2"))
    ),
    Case(
        "zoo",
        "l2",
        lambda eps: zoo(norm="l2", steps=3, search_steps=2, step_size="0.2", coordinates=32),
        driven(_zoo),
        factor=1.5,
        strong=lambda eps: zoo(norm="l2", steps=20, search_steps=2, step_size="0.001"),
    ),
]
