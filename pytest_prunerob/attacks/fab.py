"""FAB, the fast adaptive boundary attack (Croce & Hein 2020, arXiv:1907.02044) from pyautoattack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pytest_prunerob.attacks.apgd import NORMS, STACKED_ROWS
from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Stage


def _library(model: Model, settings: Settings, device: torch.device) -> Any:
    from pyautoattack.fab_pt import FABAttack_PT

    stage = settings.stage
    targeted = "targets" in dict(stage.params)
    return FABAttack_PT(
        model,
        n_restarts=stage.integer("restarts"),
        n_iter=stage.integer("steps"),
        eps=1.0 if settings.eps is None else settings.eps,  # as a minimum-norm attack: only random starts use it
        seed=settings.seed,
        norm=NORMS[settings.norm],
        verbose=False,
        device=device,
        targeted=targeted,
        n_target_classes=stage.integer("targets") if targeted else 9,
    )


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    returned: Tensor = _library(model, settings, x.device).perturb(x, y)
    return returned


class _Prompted:
    """Answers FAB's first forwards, which are of the clean batch, with given logits; passes the others through."""

    def __init__(self, oracle: Oracle, answers: list[Tensor]) -> None:
        self.oracle = oracle
        self.answers = answers

    def __call__(self, x: Tensor) -> Tensor:
        return self.answers.pop(0) if self.answers else self.oracle(x)


def _drive_untargeted(oracle: Oracle, settings: Settings) -> None:
    attack = _library(oracle, settings, oracle.x.device)
    seed(settings)
    for restart in range(attack.n_restarts):
        rows = oracle.survivors()
        if not len(rows):
            return
        attack.predict = _Prompted(oracle, [oracle.clean[rows]])
        with torch.no_grad():
            returned = attack.attack_single_run(oracle.x[rows], oracle.y[rows], use_rand_start=restart > 0)
        oracle.submit(returned, rows)


def _drive_targeted(oracle: Oracle, settings: Settings) -> None:
    """The library's single-restart loop over target classes, as many targets to a call as fit.

    The library ranks the classes of the clean batch and takes one rank per run. Here each row has its own target: the
    ranking that FAB sees has the row's label first and its target second.
    """
    attack = _library(oracle, settings, oracle.x.device)
    attack.target_class = 2
    seed(settings)
    ranks = list(range(2, attack.n_target_classes + 2))
    while ranks:
        rows = oracle.survivors()
        if not len(rows):
            return
        group = ranks[: max(1, STACKED_ROWS // len(rows))]
        ranks = ranks[len(group) :]
        clean, stacked = oracle.clean[rows], rows.repeat(len(group))
        ranking = clean.sort(dim=-1)[1]
        target = torch.cat([ranking[:, -rank] for rank in group])
        label = oracle.y[stacked]
        first = one_hot(label, clean.shape[1]).to(clean.dtype)
        attack.predict = _Prompted(oracle, [first, 2 * first + one_hot(target, clean.shape[1])])
        with torch.no_grad():
            returned = attack.attack_single_run(oracle.x[stacked], label, use_rand_start=False, is_targeted=True)
        oracle.submit(returned, stacked)


def _drive_minimum(oracle: Oracle, settings: Settings) -> None:
    attack = _library(oracle, settings, oracle.x.device)
    seed(settings)
    rows = torch.arange(len(oracle.x), device=oracle.x.device)
    with torch.no_grad():
        returned = attack.attack_single_run(oracle.x, oracle.y, use_rand_start=False)
    oracle.submit(returned, rows)


def _perturb_minimum(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    attack = _library(model, settings, x.device)
    seed(settings)
    with torch.no_grad():
        returned: Tensor = attack.attack_single_run(x, y, use_rand_start=False)
    return returned


def _passes(stage: Stage, load: Load) -> Passes:
    restarts, steps = stage.integer("restarts"), stage.integer("steps")
    if "targets" in dict(stage.params):
        runs = restarts * stage.integer("targets")
        return Passes(runs, runs * (2 * steps + 3), runs * steps)
    return Passes(restarts, restarts * (2 * steps + 3), restarts * steps * load.classes)


def _attack(name: str, drive: Any) -> Attack:
    return Attack(
        name=name,
        norms=("linf", "l2", "l1"),
        kind="fixed",
        library="pyautoattack",
        source="Croce & Hein 2020 (FAB)",
        gradient=True,
        keeps_positions=False,
        perturb=_perturb,
        loss="margin",
        drive=drive,
        passes=_passes,
    )


FAB = _attack("fab", _drive_untargeted)
FAB_T = _attack("fab-t", _drive_targeted)
# FAB is a minimum-norm attack by nature: the nearest boundary point that one run finds, whatever its distance.
FAB_MIN = Attack(
    name="fab-min",
    norms=("linf", "l2", "l1"),
    kind="minimum",
    library="pyautoattack",
    source="Croce & Hein 2020 (FAB)",
    gradient=True,
    keeps_positions=False,
    perturb=_perturb_minimum,
    loss="margin",
    convergence="doubled",
    drive=_drive_minimum,
    passes=_passes,
)
