"""PGD on networks with several exits, in the attack forms of RDI-Nets (Hu et al. 2020, arXiv:2002.10025).

Own code: no library attacks a network that gives several logits. What a network with several exits is judged by is its
own output, so what each step reaches is forwarded a second time, and the audit runs PGD on that output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pytest_prunerob.attacks.ascent import ascent
from pytest_prunerob.attacks.attack import OWN, Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.errors import PlanError
from pytest_prunerob.oracle import Network, Oracle
from pytest_prunerob.plans import Stage, ThreatModel, pgd

Exits = Callable[[Tensor], Tensor]


def _losses(exits: Exits, z: Tensor, y: Tensor, stage: Stage) -> Tensor:
    """Cross-entropies (N, E) of all exits for ``z``: (N, C, H, W)."""
    logits = exits(z)
    many = stage.integer("exits")
    if logits.shape[1] != many:
        raise PlanError(f"the plan says exits={many}, the model has {logits.shape[1]}")
    return torch.stack([cross_entropy(part, y, reduction="none") for part in logits.unbind(1)], dim=1)


def _climbs(exits: Exits, x: Tensor, y: Tensor, settings: Settings) -> Iterator[Iterator[Tensor]]:
    """The points of one ascent after another: one of each restart or, in form "max-average", one for each exit."""
    stage = settings.stage
    climbed: list[int | None] = [None]  # the mean of all
    if stage.get("form") != "average":
        climbed = [stage.integer("exit")] if stage.get("form") == "single" else [*range(stage.integer("exits"))]

    def loss(exit: int | None) -> Callable[[Tensor], Tensor]:
        def total(z: Tensor) -> Tensor:
            losses = _losses(exits, z, y, stage)
            return (losses.mean(1) if exit is None else losses[:, exit]).sum()

        return total

    for exit in climbed:
        yield ascent(
            loss(exit),
            x,
            norm=settings.norm,
            eps=settings.radius,
            steps=stage.integer("steps"),
            step_size=float(Fraction(str(stage.get("step_size")))),
            random_start=bool(stage.get("random_start")),
        )


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """The first restart's inputs, replaced by a later restart's where they are still classified correctly."""
    seed(settings)
    exits = _exits(model)
    returned = x
    for restart in range(settings.stage.integer("restarts")):
        ends = [list(points)[-1] for points in _climbs(exits, x, y, settings)]
        candidate = _largest_mean(exits, ends, y, settings.stage)
        if restart == 0:
            returned = candidate
        else:
            with torch.no_grad():
                correct = model(returned).argmax(1) == y
            returned = torch.where(correct.view(-1, *[1] * (x.ndim - 1)), candidate, returned)
    return returned


def _largest_mean(exits: Exits, candidates: list[Tensor], y: Tensor, stage: Stage) -> Tensor:
    """Of several inputs for each sample the one with the largest mean loss over all exits."""
    if len(candidates) == 1:
        return candidates[0]
    with torch.no_grad():
        means = torch.stack([_losses(exits, z, y, stage).mean(1) for z in candidates])
    return torch.stack(candidates)[means.argmax(0), torch.arange(len(y), device=y.device)]


def _drive(oracle: Oracle, settings: Settings) -> None:
    """Every point of every ascent is judged: in form "max-average" those of all exits."""
    seed(settings)
    rows = torch.arange(len(oracle.x), device=oracle.x.device)
    for _ in range(settings.stage.integer("restarts")):
        for points in _climbs(oracle.exits, oracle.x, oracle.y, settings):
            done = ~torch.isin(rows, oracle.survivors())
            if bool(done.all()):
                return
            with oracle.call(rows, frozen=done):
                for z in points:
                    with torch.no_grad():
                        oracle(z)


def _exits(model: Model) -> Exits:
    if not isinstance(model, Network | Oracle):
        raise TypeError(f"a {type(model).__name__} has no exits")
    return model.exits


def _passes(stage: Stage, load: Load) -> Passes:
    several = stage.get("form") == "max-average"
    runs = stage.integer("restarts") * (stage.integer("exits") if several else 1)
    # Each step takes a gradient and is judged; "max-average" looks at the mean losses of what it found.
    return Passes(runs, runs * (2 * stage.integer("steps") + several), runs * stage.integer("steps"))


def _stand_in(stage: Stage, threat: ThreatModel) -> Stage:
    """PGD with doubled steps on the output that counts: attacks on exits show nothing of its loss and gradients."""
    plan = pgd(norm=threat.norm, eps=str(threat.eps), steps=2 * stage.integer("steps"),
               step_size=str(stage.get("step_size")))  # fmt: skip
    return plan.stages[0]


MULTI_EXIT_PGD = Attack(
    name="multi-exit-pgd",
    norms=("linf",),
    kind="fixed",
    library=OWN,
    source="Hu et al. 2020",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="ce",
    convergence="doubled",
    drive=_drive,
    passes=_passes,
    exits=True,
    stand_in=_stand_in,
)
