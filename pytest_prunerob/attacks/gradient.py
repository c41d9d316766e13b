"""Attacks that follow the gradient of the cross-entropy for a fixed number of steps, from foolbox.

FGSM (Goodfellow et al. 2015), R-FGSM (Tramèr et al. 2018), BIM (Kurakin et al. 2017), PGD (Madry et al. 2018) and the
momentum method (Dong et al. 2018). foolbox clips the iterate to ball and box after each step and takes its gradient
there; a network that clamps its own input inside the graph has no gradient where a pixel has left the box.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Model, Settings, seed
from pytest_prunerob.oracle import Oracle

# One run from one start, given the network as foolbox takes it, the samples and what foolbox calls the criterion.
Run = Callable[[Any, Tensor, Any], Tensor]


def foolbox_model(model: Model, device: torch.device) -> Any:
    """``model`` as foolbox takes it: a module in eval mode on inputs in [0, 1]."""
    import foolbox

    class Wrapped(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x)

    return foolbox.PyTorchModel(Wrapped().eval(), bounds=(0, 1), device=device)


def foolbox_goal(y: Tensor, settings: Settings) -> Any:
    """What foolbox takes as the criterion: the labels to move away from, or the classes to move to."""
    import foolbox

    return y if settings.target is None else foolbox.TargetedMisclassification(settings.target)


def _family(settings: Settings, name: str) -> Any:
    """Foolbox's class for the norm, whose names differ in nothing else."""
    from foolbox import attacks

    return getattr(attacks, {"linf": "Linf", "l2": "L2"}[settings.norm] + name)


def _length(settings: Settings, name: str) -> float:
    return float(Fraction(str(settings.stage.get(name))))


def _pgd(settings: Settings) -> Run:
    stage = settings.stage
    attack = _family(settings, "ProjectedGradientDescentAttack")(
        steps=stage.integer("steps"),
        abs_stepsize=_length(settings, "step_size"),
        random_start=bool(stage.get("random_start")),
    )
    return lambda model, x, goal: attack.run(model, x, goal, epsilon=settings.radius)


def _bim(settings: Settings) -> Run:
    steps, length = settings.stage.integer("steps"), _length(settings, "step_size")
    attack = _family(settings, "BasicIterativeAttack")(steps=steps, abs_stepsize=length, random_start=False)
    return lambda model, x, goal: attack.run(model, x, goal, epsilon=settings.radius)


def _fgsm(settings: Settings) -> Run:
    attack = _family(settings, "FastGradientAttack")(random_start=bool(settings.stage.get("random_start")))
    return lambda model, x, goal: attack.run(model, x, goal, epsilon=settings.radius)


def _momentum(settings: Settings) -> Run:
    """Foolbox's loop and optimiser with the paper's gradients.

    The paper gathers gradients of L1 length 1 (Dong et al. 2018, Eq. 6); foolbox gathers their signs in Linf, so that
    a pixel which turns round once stands still.
    """
    attack = _family(settings, "MomentumIterativeFastGradientMethod")(
        momentum=_length(settings, "decay"),
        steps=settings.stage.integer("steps"),
        abs_stepsize=_length(settings, "step_size"),
        random_start=False,
    )
    attack.normalize = _of_length_one
    return lambda model, x, goal: attack.run(model, x, goal, epsilon=settings.radius)


def _of_length_one(gradients: Any, *, x: Any, bounds: Any) -> Any:
    """Gradients (N, C, H, W), in foolbox's wrapping of tensors, divided by their L1 norms; zero stays zero."""
    norms = gradients.abs().flatten(start=1).sum(axis=1)
    return gradients / norms.maximum(torch.finfo(torch.float32).tiny).reshape((-1, *[1] * (gradients.ndim - 1)))


def _r_fgsm(settings: Settings) -> Run:
    """A random step, which no library takes, and foolbox's FGSM for the rest of ε.

    In L2, where the paper has none, the random direction is uniform on the sphere. The sum of the two lengths is ε, and
    clipping to the box only moves towards the sample, so that no projection is needed.
    """
    alpha = _length(settings, "alpha")
    attack = _family(settings, "FastGradientAttack")(random_start=False)

    def run(model: Any, x: Tensor, goal: Any) -> Tensor:
        draw = torch.randn(x.shape, device=x.device, dtype=x.dtype)
        if settings.norm == "linf":
            step = draw.sign()
        else:
            step = draw / draw.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
        start = (x + alpha * step).clamp(0, 1)
        returned: Tensor = attack.run(model, start, goal, epsilon=settings.radius - alpha)
        return returned

    return run


MAKE: dict[str, Callable[[Settings], Run]] = {
    "fgsm": _fgsm,
    "r-fgsm": _r_fgsm,
    "bim": _bim,
    "momentum": _momentum,
    "pgd": _pgd,
}


def _restarts(settings: Settings) -> int:
    return int(dict(settings.stage.params).get("restarts", 1))


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """The first restart's inputs, replaced by a later restart's where they do not reach the goal."""
    seed(settings)
    run, wrapped, goal = (
        MAKE[settings.stage.attack](settings),
        foolbox_model(model, x.device),
        foolbox_goal(y, settings),
    )
    returned = run(wrapped, x, goal)
    for _ in range(_restarts(settings) - 1):
        candidate = run(wrapped, x, goal)
        with torch.no_grad():
            predicted = model(returned).argmax(1)
        missed = predicted == y if settings.target is None else predicted != settings.target
        returned = torch.where(missed.view(-1, *[1] * (x.ndim - 1)), candidate, returned)
    return returned


def _drive(oracle: Oracle, settings: Settings) -> None:
    seed(settings)
    run, goal = MAKE[settings.stage.attack](settings), foolbox_goal(oracle.y, settings)
    rows = torch.arange(len(oracle.x), device=oracle.x.device)
    for _ in range(_restarts(settings)):
        done = ~torch.isin(rows, oracle.survivors())
        if bool(done.all()):
            return
        # foolbox draws every restart for the whole batch.
        with oracle.call(rows, frozen=done):
            returned = run(foolbox_model(oracle, oracle.x.device), oracle.x, goal)
            left = oracle.survivors()
            oracle.submit(returned[left], left)


def _attack(name: str, source: str, *, targeted: bool) -> Attack:
    return Attack(
        name=name,
        norms=("linf", "l2"),
        kind="fixed",
        library="foolbox",
        source=source,
        gradient=True,
        keeps_positions=True,
        perturb=_perturb,
        loss="ce",
        convergence="doubled",
        drive=_drive,
        targeted=targeted,
    )


FGSM = _attack("fgsm", "Goodfellow et al. 2015", targeted=False)
R_FGSM = _attack("r-fgsm", "Tramèr et al. 2018", targeted=False)
BIM = _attack("bim", "Kurakin et al. 2017", targeted=True)
MOMENTUM = _attack("momentum", "Dong et al. 2018", targeted=True)
PGD = _attack("pgd", "Madry et al. 2018", targeted=True)
