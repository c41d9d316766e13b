"""What an attack is to the engine: a proposer of inputs, never a judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Stage

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """One stage of a plan for one subject. ``eps`` is ``None`` for minimum-norm attacks; ``seed`` seeds torch."""

    stage: Stage
    norm: str
    eps: float | None
    seed: int
    classes: int

    @property
    def radius(self) -> float:
        """ε of a fixed-ε attack."""
        if self.eps is None:
            raise ValueError(f"{self.stage.attack} needs an ε")
        return self.eps


@dataclass(frozen=True)
class Attack:
    """An attack of the catalogue.

    ``perturb(model, x, y, settings)`` is the library's own run on x: (N, C, H, W) in [0, 1], y: (N,); it returns inputs
    of the same shape. ``keeps_positions`` says that row i of every forward is sample i. ``drive`` runs the attack under
    the oracle, restart by restart; an attack that keeps its positions needs none. ``loss`` is the family of its loss,
    ``convergence`` how its audit tells whether it had steps enough: by the "trace" of its loss, or by "doubled" steps.
    """

    name: str
    norms: tuple[str, ...]
    kind: Literal["fixed", "minimum"]
    library: str
    source: str
    gradient: bool
    keeps_positions: bool
    perturb: Callable[[Model, Tensor, Tensor, Settings], Tensor]
    loss: Literal["", "ce", "dlr", "margin"] = ""
    convergence: Literal["", "trace", "doubled"] = ""
    drive: Callable[[Oracle, Settings], None] | None = None


def drive(attack: Attack, oracle: Oracle, settings: Settings) -> None:
    """Run ``attack`` under ``oracle``, seeded as its library would seed this micro-batch alone."""
    if attack.drive is not None:
        attack.drive(oracle, settings)
        return
    seed(settings)
    rows = torch.arange(len(oracle.x), device=oracle.x.device)
    with oracle.call(rows):
        oracle.submit(attack.perturb(oracle, oracle.x, oracle.y, settings), rows)


def seed(settings: Settings) -> None:
    """Seed torch on all devices."""
    torch.manual_seed(settings.seed)
