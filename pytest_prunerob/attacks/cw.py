"""The L2 attack of Carlini & Wagner 2017 (arXiv:1608.04644) from foolbox."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.attacks.gradient import foolbox_model
from pytest_prunerob.plans import Stage


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """What foolbox finds; a sample whose search failed, of which foolbox returns a black image, is returned as it was.

    Nothing is aborted early: foolbox decides that by the loss of the whole batch, so that one sample would stop others.
    """
    import foolbox

    seed(settings)
    stage = settings.stage
    size, const, confidence = (
        float(Fraction(str(stage.get(name)))) for name in ("step_size", "initial_const", "confidence")
    )
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=stage.integer("binary_search_steps"),
        steps=stage.integer("steps"),
        stepsize=size,
        confidence=confidence,
        initial_const=const,
        abort_early=False,
    )
    goal = y if settings.target is None else foolbox.criteria.TargetedMisclassification(settings.target)
    returned: Tensor = attack.run(foolbox_model(model, x.device), x, goal)
    failed = (returned == 0).flatten(1).all(1).view(-1, *[1] * (x.ndim - 1))
    return torch.where(failed, x, returned)


def _passes(stage: Stage, load: Load) -> Passes:
    steps = stage.integer("binary_search_steps") * stage.integer("steps")
    return Passes(1, steps, steps)


CW_L2 = Attack(
    name="cw-l2",
    norms=("l2",),
    kind="minimum",
    library="foolbox",
    source="Carlini & Wagner 2017",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="margin",
    convergence="doubled",
    passes=_passes,
    targeted=True,
)
