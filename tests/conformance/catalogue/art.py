"""JSMA against the adversarial-robustness-toolbox."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob import jsma
from pytest_prunerob.plans import Plan
from tests.conformance.catalogue.case import SEED, Case, Library


def _jsma(plan: Plan) -> Library:
    """Towards the most likely other classes, one after the other: the first that is not classified correctly stays."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import SaliencyMapMethod
        from art.estimators.classification import PyTorchClassifier

        with torch.no_grad():
            clean = model(x)
        classes, features = clean.shape[1], x[0].numel()
        wrapped = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1), device_type="cpu"
        )
        # γ is one pair less than ε, since ART changes a last pair when it has reached γ.
        gamma = (float(plan.threat.radius) - 2) / features
        made = SaliencyMapMethod(wrapped, theta=1.0, gamma=gamma, batch_size=len(x), verbose=False)
        ranking = clean.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True)
        np.random.seed(SEED)  # noqa: NPY002 - what ART would draw targets from
        returned = torch.from_numpy(made.generate(x.numpy(), ranking[:, 0].numpy()))
        for rank in range(1, plan.stages[0].integer("targets")):
            with torch.no_grad():
                right = model(returned).argmax(1) == y
            other = torch.from_numpy(made.generate(x.numpy(), ranking[:, rank].numpy()))
            returned = torch.where(right.view(-1, 1, 1, 1), other, returned)
        return returned

    return attack


CASES = [
    # It goes one way in the box, and the nearest change goes both ways.
    Case("jsma", "l0", lambda eps: jsma(eps=eps, targets=3), _jsma, factor=3),
]
