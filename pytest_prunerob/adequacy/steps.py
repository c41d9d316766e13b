"""Subjects that compute in steps or jump: quantised, binarised, or with their largest activations only (design 4.3).

No gradient of theirs is zero, and white-box attacks still miss what a black-box attack finds. So their survivors count
only where a black-box stage took part, and where inputs that break the float twin do not break them. The twin of a
network that jumps is the same network without its jumps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pytest_prunerob.adequacy.check import BLACK_BOX_SHARE, NEW_BREAKS, TWIN_AGREES, Check
from pytest_prunerob.adequacy.discrete import MISMATCH, discrete, gradient_mismatch
from pytest_prunerob.adequacy.jumps import JUMP, jump
from pytest_prunerob.adequacy.stages import Audit, Case, again, on_sphere
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.engine import Result
from pytest_prunerob.ledger import Cost


def audit_steps(case: Case, twin: nn.Module | None) -> Audit:
    """Whether the gradients of the subject are those of its function and, where not, what stands in for them."""
    kind, far = discrete(case.module), _far(case)
    value, limit = _mismatch(case, far), MISMATCH
    if kind or value > limit:
        what = f"the model computes in steps ({kind})" if kind else f"its gradients are off by {value:.0%}"
        another = "the float network, Model(..., twin=float_network)"
    else:
        # Repeated forwards of a model that draws differ everywhere: no jump of its function can be told from them.
        leap = 0.0 if far is None or case.plan.randomised else jump(case.module, case.x.to(case.engine.device), far)
        if leap <= JUMP:
            message = f"gradients differ from the differences they stand for by {value:.1%}, and no jump was seen"
            return Audit((Check("steps", "passed", message, value=value, limit=limit),))
        value, limit = leap, JUMP
        what = f"its output jumps by {leap:.2%} of all its change on the way through the ball"
        another = "the same network without its jumps, Model(..., twin=smooth_network)"
    if case.plan.kind == "minimum":  # there is no black-box search for distances to hold them against
        message = f"{what}: distances found along gradients need not be the smallest; claim robust_accuracy at an ε"
        return Audit((Check("steps", "failed", message, value=value, limit=limit),))
    attacks = [ATTACKS[stage.attack] for stage in case.plan.stages]
    if all(attack.gradient or attack.whole_set for attack in attacks):
        message = f"{what}: survival needs a black-box stage, such as square"
        return Audit((Check("steps", "failed", message, value=value, limit=limit),))
    if twin is None:
        message = f"{what}: survival needs transfer from {another}"
        return Audit((Check("steps", "failed", message, value=value, limit=limit),))
    unfit = _unfit(case, twin)
    if unfit:
        message = f"{what}, and the twin {unfit}: give the float network that it was made from"
        return Audit((Check("steps", "failed", message, value=value, limit=limit),), cost=Cost(len(case.x)))
    return _transferred(case, twin)


def _mismatch(case: Case, far: Tensor | None) -> float:
    """The mismatch at the survivors or, where it is larger, at the points ``far`` from them.

    Attacks take all gradients but the first off the samples.
    """
    found = gradient_mismatch(case.module, case.x.to(case.engine.device))
    return found if far is None else max(found, gradient_mismatch(case.module, far))


def _far(case: Case) -> Tensor | None:
    """Random points on the surface of the balls around the survivors, like these; ``None`` where there are none.

    The ball of a distance is as large as the distance; those in numbers of features are none that a gradient could be
    compared on.
    """
    x, norm = case.x.to(case.engine.device), case.plan.threat.norm
    radius: float | Tensor
    if case.plan.kind != "minimum":
        radius = float(case.plan.threat.radius)
    else:
        lengths = torch.tensor([abs(value) for value in case.found]).nan_to_num(0.0, 0.0).to(x)
        if norm == "l0" or not bool((lengths > 0).any()):
            return None
        radius = lengths.view(-1, *[1] * (x.ndim - 1))
    generator = torch.Generator().manual_seed(case.engine.seed)
    return (x + on_sphere(x, norm, radius, generator)).clamp(0, 1)


def _unfit(case: Case, twin: nn.Module) -> str:
    """Why inputs made on ``twin`` would say nothing about the subject, or the empty string."""
    if kind := discrete(twin):
        return f"computes in steps itself ({kind})"
    if gradient_mismatch(twin, case.x.to(case.engine.device)) > MISMATCH:
        return "computes in steps itself"
    far = _far(case)
    if far is not None and jump(twin, case.x.to(case.engine.device), far) > JUMP:
        return "jumps itself"
    right = int((case.engine.clean(twin, case.x)[0].argmax(1) == case.y).sum())
    if right < TWIN_AGREES * len(case.x):
        return f"classifies {right} of {len(case.x)} samples as the model does"
    return ""


def _transferred(case: Case, twin: nn.Module) -> Audit:
    broken: set[int] = set()
    results: list[tuple[int, Result]] = []
    cost = Cost()
    for number, stage in enumerate(case.plan.stages):
        if not ATTACKS[stage.attack].gradient:
            continue
        plan = case.plan.of((again(stage, case.plan),))
        result = case.engine.transfer(twin, case.module, plan, 0, case.x, case.y, case.classes)
        broken |= set(result.broken)
        results += [(number, result)] if result.broken else []
        cost += result.cost
    failed = len(broken) >= NEW_BREAKS and case.of_all(len(broken)) > BLACK_BOX_SHARE * case.n
    message = f"inputs made on the twin broke {len(broken)} of {len(case.x)} checked survivors"
    limit = max(float(NEW_BREAKS), BLACK_BOX_SHARE * case.n)
    check = Check("steps", "failed" if failed else "passed", message, value=float(len(broken)), limit=limit)
    return Audit((check,), tuple(results), cost)
