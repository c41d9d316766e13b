"""WRM, the ascent of distributionally robust training (Sinha, Namkoong & Duchi 2018, arXiv:1710.10571), L2.

Own code: no library has it. It climbs the loss minus γ‖z − x‖², Eq. 2 with the squared distance as the transport cost;
step t, from 1 on, has length 1/√t in units of 1/(2γ), as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pytest_prunerob.attacks.attack import OWN, Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.oracle import Oracle, projected
from pytest_prunerob.plans import Stage, ThreatModel, pgd

# The audit's PGD may go this many times ε in all (Madry et al. 2018).
REACH = Fraction(5, 2)


def _ascent(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Iterator[Tensor]:
    """The points after each step, clipped to the box and wherever the ascent takes them."""
    stage = settings.stage
    gamma, rate = (float(Fraction(str(stage.get(name)))) for name in ("gamma", "rate"))
    z = x
    for t in range(1, stage.integer("steps") + 1):
        z = z.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = cross_entropy(model(z), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, z)
        z = z.detach()
        z = (z + rate / sqrt(t) * (gradient / (2 * gamma) - (z - x))).clamp(0, 1)
        yield z


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """The last point, projected onto the ball."""
    seed(settings)
    *_, last = _ascent(model, x, y, settings)
    return projected(x, last, settings.norm, settings.radius)


def _drive(oracle: Oracle, settings: Settings) -> None:
    """The points inside the ball are judged as the ascent forwards them; for those outside their projections are."""
    seed(settings)
    x, steps = oracle.x, settings.stage.integer("steps")
    with oracle.call(torch.arange(len(x), device=x.device)):
        for t, z in enumerate(_ascent(oracle, x, oracle.y, settings), start=1):
            inside = projected(x, z, settings.norm, settings.radius)
            if t == steps or not torch.equal(inside, z):
                with torch.no_grad():
                    oracle(inside)


def _passes(stage: Stage, load: Load) -> Passes:
    steps = stage.integer("steps")
    return Passes(1, 2 * steps, steps)


def _stand_in(stage: Stage, threat: ThreatModel) -> Stage:
    """PGD with doubled steps: a large γ keeps the ascent well inside the ball, which its own loss does not show."""
    steps = 2 * stage.integer("steps")
    size = str(REACH * threat.radius / steps)
    return pgd(norm=threat.norm, eps=str(threat.eps), steps=steps, step_size=size).stages[0]


WRM = Attack(
    name="wrm",
    norms=("l2",),
    kind="fixed",
    library=OWN,
    source="Sinha et al. 2018",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="ce",
    convergence="doubled",
    drive=_drive,
    passes=_passes,
    stand_in=_stand_in,
)
