"""The binarised readout: an attack is given a task whose solution is known (Zimmermann et al. 2022, arXiv:2206.13991).

The last linear layer is replaced by one with two classes, fitted so that random points well inside the ball are of one
class and one random point on its surface is of the other. An attack that can work finds that point, or another like it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob.adequacy.check import READOUT_INNER, READOUT_SUCCESS, READOUT_TESTS, Check
from pytest_prunerob.adequacy.stages import Audit, Case, again, on_sphere
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.ledger import Cost

# Inner points fill this part of the radius (ours: the paper's η, which keeps them away from the surface).
INNER = 0.5
# The decision threshold lies this far from the highest inner point towards the point on the surface, and the plane
# between them is this soft, so that it leans on many features and not on the kinks of a few (ours: with both, healthy
# networks solve every task and misleading gradients none).
THRESHOLD = 0.8
SOFTNESS = 0.01
# More random points of the ball than this share in the other class: the task is too easy to tell anything (ours).
TOO_EASY = 0.1


class Readout(nn.Module):
    """``module`` with the inputs of its last linear layer mapped to a score s: logits (−s, s, and others below)."""

    def __init__(self, features: Callable[[Tensor], Tensor], weight: Tensor, bias: float, classes: int) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.register_buffer("weight", weight)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x``; class 0 inside, class 1 at the point to be found."""
        assert isinstance(self.weight, Tensor)
        score = self.features(x) @ self.weight + self.bias
        lowest = (-score.abs() - 1).detach()
        return torch.stack([-score, score, *[lowest] * (self.classes - 2)], dim=1)


def features_of(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """What computes the input (N, D) of the last linear layer that a forward of ``x`` runs; ``None`` without one."""
    order: list[nn.Linear] = []
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    try:
        with torch.no_grad():
            module(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not order:
        return None
    last = order[-1]

    def features(z: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            module(z)
        finally:
            hook.remove()
        return seen[-1].flatten(1)

    return features


def audit_readout(case: Case) -> Audit:
    """Run the gradient stages of the plan on up to 16 such tasks."""
    x = case.x[:READOUT_TESTS].to(case.engine.device)
    features = features_of(case.module, x)
    if features is None:
        message = "the model has no linear layer at its end: the test cannot be set up"
        return Audit((Check("binarised-readout", "not applicable", message),))
    generator = torch.Generator().manual_seed(case.engine.seed)
    solved, failed_setups, invalid, cost = 0, 0, 0, Cost()
    for sample in torch.split(x, 1):
        task = _task(case, features, sample, generator)
        if task == "invalid":
            invalid += 1
        elif isinstance(task, str):
            failed_setups += 1
        else:
            found, spent = _solved(case, task, sample)
            solved, cost = solved + found, cost + spent
    valid = len(x) - invalid
    message = f"the attack solved {solved} of {valid} tasks with a known solution"
    message += f", {failed_setups} of which could not be set up" if failed_setups else ""
    message += f"; {invalid} more were too easy to tell" if invalid else ""
    if not valid:
        return Audit((Check("binarised-readout", "not applicable", message),), cost=cost)
    share = solved / valid
    outcome = "passed" if share >= READOUT_SUCCESS else "failed"
    return Audit((Check("binarised-readout", outcome, message, "", share, READOUT_SUCCESS),), cost=cost)  # type: ignore[arg-type]


def _task(case: Case, features: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator) -> Readout | str:
    """The two-class network around ``x`` (1, C, H, W); "failed" where no plane parts the points, else "invalid"."""
    from sklearn.svm import LinearSVC

    norm, radius = case.plan.threat.norm, float(case.radius)

    def ball(many: int, part: float) -> Tensor:
        around = x.expand(many, *x.shape[1:])
        length = torch.rand(many, generator=generator).to(x).view(-1, *[1] * (x.ndim - 1))
        return (around + part * length * on_sphere(around, norm, radius, generator)).clamp(0, 1)

    surface = (x + on_sphere(x, norm, radius, generator)).clamp(0, 1)
    with torch.no_grad():
        points = features(torch.cat([x, ball(READOUT_INNER, INNER), surface])).double().cpu().numpy()
    label = np.r_[np.zeros(len(points) - 1), 1.0]
    spread = points.std(axis=0) + 1e-12
    plane = LinearSVC(C=SOFTNESS, class_weight="balanced", max_iter=20_000, random_state=0)
    try:
        plane.fit((points - points.mean(axis=0)) / spread, label)
    except ValueError:  # features that are not finite
        return "failed"
    weight = plane.coef_[0] / spread
    scores = points @ weight
    highest, target = scores[:-1].max(), scores[-1]
    if not target - highest > 1e-9 * max(1.0, abs(target)):
        return "failed"
    scale = 1.0 / (target - highest)
    bias = -(highest + THRESHOLD * (target - highest)) * scale
    task = Readout(features, torch.tensor(weight * scale).to(x), float(bias), max(case.classes, 4)).eval()
    with torch.no_grad():
        easy = float((task(ball(READOUT_INNER, 1.0)).argmax(1) == 1).double().mean())
    return "invalid" if easy > TOO_EASY else task


def _solved(case: Case, task: Readout, x: Tensor) -> tuple[bool, Cost]:
    label, cost = torch.zeros(1, dtype=torch.long), Cost()
    for stage in case.plan.stages:
        if not ATTACKS[stage.attack].gradient:
            continue
        plan = case.plan.of((again(stage, case.plan),))
        if plan.threat.target:  # the class behind the label is the one to be found; the others are beyond all gradients
            plan = replace(plan, threat=replace(plan.threat, target="next"))
        result = case.engine.run("decide", task, plan, 0, x.cpu(), label, task.classes)
        cost += result.cost
        if result.broken:
            return True, cost
    return False, cost
