"""FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018) from foolbox."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Model, Settings, seed
from pytest_prunerob.oracle import Oracle


def foolbox_model(model: Model, device: torch.device) -> Any:
    """``model`` as foolbox takes it: a module in eval mode on inputs in [0, 1]."""
    import foolbox

    class Wrapped(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x)

    return foolbox.PyTorchModel(Wrapped().eval(), bounds=(0, 1), device=device)


def _pgd(settings: Settings) -> Any:
    import foolbox

    stage = settings.stage
    family = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[settings.norm]
    return family(
        steps=stage.integer("steps"),
        abs_stepsize=float(Fraction(str(stage.get("step_size")))),
        random_start=bool(stage.get("random_start")),
    )


def _fgsm(settings: Settings) -> Any:
    import foolbox

    family = {
        "linf": foolbox.attacks.LinfFastGradientAttack,
        "l2": foolbox.attacks.L2FastGradientAttack,
    }[settings.norm]
    return family(random_start=bool(settings.stage.get("random_start")))


def _restarts(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Iterator[Tensor]:
    attack = _pgd(settings)
    for _ in range(settings.stage.integer("restarts")):
        yield attack.run(foolbox_model(model, x.device), x, y, epsilon=settings.radius)


def _perturb_pgd(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """The first restart's inputs, replaced by a later restart's where they are still classified correctly."""
    seed(settings)
    returned = x
    for restart, candidate in enumerate(_restarts(model, x, y, settings)):
        if restart == 0:
            returned = candidate
        else:
            with torch.no_grad():
                correct = model(returned).argmax(1) == y
            returned = torch.where(correct.view(-1, *[1] * (x.ndim - 1)), candidate, returned)
    return returned


def _drive_pgd(oracle: Oracle, settings: Settings) -> None:
    seed(settings)
    attack = _pgd(settings)
    rows = torch.arange(len(oracle.x), device=oracle.x.device)
    for _ in range(settings.stage.integer("restarts")):
        done = ~torch.isin(rows, oracle.survivors())
        if bool(done.all()):
            return
        # foolbox draws every restart for the whole batch.
        with oracle.call(rows, frozen=done):
            model = foolbox_model(oracle, oracle.x.device)
            returned = attack.run(model, oracle.x, oracle.y, epsilon=settings.radius)
            left = oracle.survivors()
            oracle.submit(returned[left], left)


def _perturb_fgsm(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    seed(settings)
    returned: Tensor = _fgsm(settings).run(foolbox_model(model, x.device), x, y, epsilon=settings.radius)
    return returned


PGD = Attack(
    name="pgd",
    norms=("linf", "l2"),
    kind="fixed",
    library="foolbox",
    source="Madry et al. 2018",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb_pgd,
    loss="ce",
    convergence="doubled",
    drive=_drive_pgd,
)
FGSM = Attack(
    name="fgsm",
    norms=("linf", "l2"),
    kind="fixed",
    library="foolbox",
    source="Goodfellow et al. 2015",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb_fgsm,
    loss="ce",
    convergence="doubled",
)
