"""Auto-PGD (Croce & Hein 2020, arXiv:2003.01690; L1: Croce & Hein 2021, arXiv:2103.01208) from pyautoattack."""

from __future__ import annotations

import logging
import math
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Stage
from pytest_prunerob.votes import Jury

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# Rows up to which several targets are attacked in one call: few rows cost the overhead of an iteration, not their own
# work. As many as a micro-batch has, so that they fit where that fits (ours).
STACKED_ROWS = 250
# What the library remarks on its way is no outcome: the indicators of ``adequacy`` say it where it counts.
_LOG = logging.getLogger("pytest_prunerob.pyautoattack")
_LOG.setLevel(logging.CRITICAL + 1)


def _library(model: Model, settings: Settings, device: torch.device) -> Any:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    stage = settings.stage
    params = dict(stage.params)
    shared = {
        "n_restarts": stage.integer("restarts"),
        "n_iter": stage.integer("steps"),
        "verbose": False,
        "eps": settings.radius,
        "norm": NORMS[settings.norm],
        "eot_iter": int(params.get("eot", 1)),
        "rho": float(Fraction(str(params["rho"]))),
        "seed": settings.seed,
        "device": device,
        "use_largereps": "schedule" in params,
        "logger": _LOG,
    }
    if "targets" in params:
        return APGDAttack_targeted(model, n_target_classes=stage.integer("targets"), **shared)
    return APGDAttack(model, loss=stage.attack.removeprefix("apgd-"), **shared)


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    attack = _library(model, settings, x.device)
    if settings.target is not None:
        return _towards(attack, model, x, y, settings)
    returned: Tensor = attack.perturb(x, y)
    return returned


def _towards(attack: Any, model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """The inputs of the largest loss towards the target classes; a later restart's where no earlier one got there."""
    assert settings.target is not None
    attack.init_hyperparam(x)
    seed(settings)
    returned = x.clone()
    rows = torch.arange(len(x), device=x.device)
    for _ in range(attack.n_restarts):
        attack.y_target = settings.target[rows]
        returned[rows] = attack.attack_single_run(x[rows], y[rows])[0].detach()
        with torch.no_grad():
            rows = (model(returned).argmax(1) != settings.target).nonzero().flatten()
        if not len(rows):
            break
    return returned


def _single(attack: Any, x: Tensor, y: Tensor, start: Tensor | None = None) -> None:
    """One restart of the library's loop; with the L1 schedule, a third of the steps each at 3ε, 2ε and ε."""
    if not attack.use_largereps:
        attack.attack_single_run(x, y, x_init=start)
        return
    early = math.ceil(0.3 * attack.n_iter_orig)
    radii = [factor * attack.eps_orig for factor in (3.0, 2.0, 1.0)]
    attack.decr_eps_pgd(x, y, radii, [early, early, attack.n_iter_orig - 2 * early])


def _drive_untargeted(oracle: Oracle, settings: Settings) -> None:
    attack = _library(oracle, settings, oracle.x.device)
    attack.init_hyperparam(oracle.x)
    seed(settings)
    for _ in range(attack.n_restarts):
        rows = oracle.survivors()
        if not len(rows):
            return
        with oracle.call(rows):
            clean = dict(settings.stage.params).get("start") == "clean"  # only audits ask for it
            _single(attack, oracle.x[rows], oracle.y[rows], oracle.x[rows] if clean else None)


def _drive_voted(jury: Jury, settings: Settings) -> None:
    """The untargeted driver for subjects that draw: nothing is frozen, and votes judge what a run ends with.

    That is the library's own result, the last iterate that was wrong in one forward, and the iterate of the largest
    loss, which the library also keeps and of which it does not know whether it was ever wrong.
    """
    attack = _library(jury, settings, jury.x.device)
    attack.init_hyperparam(jury.x)
    seed(settings)
    for _ in range(attack.n_restarts):
        rows = jury.survivors()
        if not len(rows):
            return
        x, y = jury.x[rows], jury.y[rows]
        clean = dict(settings.stage.params).get("start") == "clean"  # only audits ask for it
        with jury.call(rows):
            best, _, _, last = attack.attack_single_run(x, y, x_init=x if clean else None)
        for candidate in (last, best):
            left = ~jury.broken[rows]
            jury.submit(candidate[left], rows[left])


def _drive_targeted(oracle: Oracle, settings: Settings) -> None:
    """One run per target class, several targets stacked into one call where few samples are left.

    ``view`` are the samples that the library itself would still attack. A stacked call draws the random starts of its
    targets as the library would if none of them broke a sample; after the first target that does, the random state is
    set back to behind that target and the later ones are run again. What they broke in between stays broken.
    """
    attack = _library(oracle, settings, oracle.x.device)
    attack.init_hyperparam(oracle.x)
    seed(settings)
    if settings.target is not None:
        _drive_to_target(attack, oracle, settings.target)
        return
    ranks = list(range(2, attack.n_target_classes + 2))
    view, stack = oracle.survivors(), 1
    while ranks and len(view) and not bool(oracle.broken[view].all()):
        room = 1 if attack.use_largereps else max(1, STACKED_ROWS // len(view))
        group = ranks[: min(stack, room)]
        first = _stacked(attack, oracle, view, group)
        if first is None:
            ranks, stack = ranks[len(group) :], len(ranks)
        else:
            index, broken = first
            ranks, stack = ranks[index + 1 :], 1 if index == 0 else 2
            view = view[~broken]
        if oracle.errors:
            view = view[~torch.isin(view, torch.tensor(list(oracle.errors), device=view.device))]


def _drive_to_target(attack: Any, oracle: Oracle, target: Tensor) -> None:
    """Towards the class that the plan gives each sample, where the library takes the most likely ones in turn."""
    for _ in range(attack.n_restarts):
        rows = oracle.survivors()
        if not len(rows):
            return
        attack.y_target = target[rows]
        with oracle.call(rows):
            _single(attack, oracle.x[rows], oracle.y[rows])


def _stacked(attack: Any, oracle: Oracle, view: Tensor, group: list[int]) -> tuple[int, Tensor] | None:
    """Attack the ``view`` samples towards each rank of ``group``; the first index that broke any, and which ones."""
    x, y, n = oracle.x[view], oracle.y[view], len(group)
    ranking = oracle.clean[view].sort(dim=1)[1]
    attack.y_target = torch.cat([ranking[:, -rank] for rank in group])
    starts, states = [], []
    if n > 1:
        for _ in group:
            starts.append(_start(attack, x))
            states.append(_random_state())
    with oracle.call(view, repeats=n) as call:
        _single(attack, x.repeat(n, 1, 1, 1), y.repeat(n), torch.cat(starts) if starts else None)
    broken = call.broken.view(n, -1)
    hit = broken.any(1).nonzero().flatten()
    index = int(hit[0]) if len(hit) else n - 1
    if states:
        _restore(states[index])
    return (index, broken[index]) if len(hit) else None


def _start(attack: Any, x: Tensor) -> Tensor:
    """A random start as the library draws it: a point on the sphere of radius ε (Linf, L2)."""
    draw = (2 * torch.rand(x.shape) - 1 if attack.norm == "Linf" else torch.randn(x.shape)).to(x.device)
    start: Tensor = x + attack.eps * torch.ones_like(x) * attack.normalize(draw)
    return start


def _random_state() -> Tensor:
    return torch.get_rng_state()  # the library draws its starts on the CPU whatever the device


def _restore(state: Tensor) -> None:
    torch.set_rng_state(state)


def _passes(stage: Stage, load: Load) -> Passes:
    params = dict(stage.params)
    restarts, targets = stage.integer("restarts"), int(params.get("targets", 1))
    steps = stage.integer("steps") + (3 if "schedule" in params else 1)  # a start in each part of the schedule
    steps *= int(params.get("eot", 1))
    runs = restarts * targets
    if targets > 1 and "schedule" not in params:
        runs = restarts * math.ceil(_most_stacked(load.samples, targets, 1) / load.samples)
    return Passes(runs, runs * steps, runs * steps)


@cache
def _most_stacked(samples: int, targets: int, stack: int) -> int:
    """The most rows that the stacked driver of APGD-T attacks, whichever targets break whichever samples.

    A target that breaks a sample makes the targets behind it, which ran in the same call, run again on the rest.
    """
    if targets == 0 or samples == 0:
        return 0
    group = min(stack, targets, max(1, STACKED_ROWS // samples))
    rest = targets - group
    worst = _most_stacked(samples, rest, rest)
    for index in range(group):
        left = targets - index - 1
        worst = max(worst, _fewer(samples - 1, left, 1 if index == 0 else 2))
    return samples * group + worst


@cache
def _fewer(samples: int, targets: int, stack: int) -> int:
    """The most over at most ``samples`` of them."""
    if samples <= 0:
        return 0
    return max(_most_stacked(samples, targets, stack), _fewer(samples - 1, targets, stack))


def _attack(
    name: str, drive: Any, loss: Literal["ce", "dlr", "margin"], drive_voted: Any = None, *, targeted: bool = False
) -> Attack:
    return Attack(
        name=name,
        norms=("linf", "l2", "l1"),
        kind="fixed",
        library="pyautoattack",
        source="Croce & Hein 2020",
        gradient=True,
        keeps_positions=True,
        perturb=_perturb,
        loss=loss,
        convergence="trace",
        drive=drive,
        drive_voted=drive_voted,
        passes=_passes,
        targeted=targeted,
    )


APGD_CE = _attack("apgd-ce", _drive_untargeted, "ce", _drive_voted)
APGD_DLR = _attack("apgd-dlr", _drive_untargeted, "dlr", _drive_voted)
APGD_T = _attack("apgd-t", _drive_targeted, "margin", targeted=True)
