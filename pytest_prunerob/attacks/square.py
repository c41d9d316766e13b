"""Square, the black-box random search (Andriushchenko et al. 2020, arXiv:1912.00049) from pyautoattack."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from pytest_prunerob.attacks.apgd import NORMS
from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Stage


def _library(model: Model, settings: Settings, device: torch.device) -> Any:
    from pyautoattack.square import SquareAttack

    stage = settings.stage
    return SquareAttack(
        model,
        p_init=float(Fraction(str(stage.get("p_init")))),
        n_queries=stage.integer("queries"),
        eps=settings.radius,
        norm=NORMS[settings.norm],
        n_restarts=stage.integer("restarts"),
        seed=settings.seed,
        verbose=False,
        device=device,
        resc_schedule=False,
    )


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    returned: Tensor = _library(model, settings, x.device).perturb(x, y)
    return returned


def _drive(oracle: Oracle, settings: Settings) -> None:
    attack = _library(oracle, settings, oracle.x.device)
    attack.init_hyperparam(oracle.x)
    seed(settings)
    for _ in range(attack.n_restarts):
        rows = oracle.survivors()
        if not len(rows):
            return
        _, returned = attack.attack_single_run(oracle.x[rows], oracle.y[rows])
        oracle.submit(returned, rows)


def _passes(stage: Stage, load: Load) -> Passes:
    restarts = stage.integer("restarts")
    return Passes(restarts, restarts * (stage.integer("queries") + 1), 0)


SQUARE = Attack(
    name="square",
    norms=("linf", "l2", "l1"),
    kind="fixed",
    library="pyautoattack",
    source="Andriushchenko et al. 2020",
    gradient=False,
    keeps_positions=False,
    perturb=_perturb,
    drive=_drive,
    passes=_passes,
)
