"""What an attack is to the engine: a proposer of inputs, never a judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from torch import Tensor

from pytest_prunerob.errors import PlanError
from pytest_prunerob.oracle import Oracle, exits_of
from pytest_prunerob.plans import PlanKind, Stage, ThreatModel
from pytest_prunerob.randomness import seed_all
from pytest_prunerob.votes import Jury

Model = Callable[[Tensor], Tensor]
OWN = "pytest-prunerob"  # the library of attacks that no library has, or none that works
# Libraries that are not installed by default, with the extra that installs them.
OPTIONAL = {"adversarial-robustness-toolbox": "art"}


@dataclass(frozen=True)
class Pool:
    """The samples that an attack may start from: ``x`` (M, C, H, W) and the labels ``predicted`` (M,) of the model."""

    x: Tensor
    predicted: Tensor


@dataclass(frozen=True)
class Settings:
    """One stage of a plan for one subject. ``eps`` is ``None`` for minimum-norm attacks; ``seed`` seeds all libraries.

    ``target`` (N,) are the classes of a targeted attack, ``pool`` what an attack that ``starts`` elsewhere starts from.
    """

    stage: Stage
    norm: str
    eps: float | None
    seed: int
    classes: int
    target: Tensor | None = None
    pool: Pool | None = None

    @property
    def radius(self) -> float:
        """ε of a fixed-ε attack."""
        if self.eps is None:
            raise ValueError(f"{self.stage.attack} needs an ε")
        return self.eps


@dataclass(frozen=True)
class Load:
    """What a stage is given at once: samples, the classes of the model, the features (C·H·W) of a sample, and ε."""

    samples: int
    classes: int
    features: int
    eps: float = float("inf")


@dataclass(frozen=True)
class Passes:
    """The most passes of one sample through the network, over all ``runs`` (restarts, targets) of a stage.

    What the engine adds by itself (clean logits, judging what is returned) is not counted here.
    """

    runs: int
    forward: int
    backward: int


def per_step(stage: Stage, load: Load) -> Passes:
    """One forward and one backward pass for each step of each restart."""
    runs = int(dict(stage.params).get("restarts", 1))
    steps = runs * int(dict(stage.params).get("steps", 1))
    return Passes(runs, steps, steps)


@dataclass(frozen=True)
class Attack:
    """An attack of the catalogue.

    ``perturb(model, x, y, settings)`` is the library's own run on x: (N, C, H, W) in [0, 1], y: (N,); it returns inputs
    of the same shape (an attack of kind "estimate" scores (N,) instead). ``keeps_positions`` says that row i of every
    forward is sample i. ``drive`` runs the attack under the oracle, restart by restart; an attack that keeps its
    positions needs none; ``drive_voted`` runs it where votes judge (stages with "eot"). ``loss`` is the family of its
    loss, ``convergence`` how its audit tells whether it had steps enough: by the "trace" of its loss, or by "doubled"
    steps. ``passes`` bounds its cost. ``starts`` says that it needs a :class:`Pool`, ``targeted`` that it can be
    steered to a class, ``exits`` that it attacks networks with several. ``stand_in`` gives the stage that the audit
    runs in its place, where its own run would not show whether it could have worked. ``check(stage, (C, H, W))`` raises
    ``PlanError`` for images that it makes no sense on. ``whole_set`` says that it makes one perturbation for all
    samples, so that survivors of it may fall to one of their own; such an attack is none that takes a ``gradient``
    for each of them.
    """

    name: str
    norms: tuple[str, ...]
    kind: PlanKind
    library: str
    source: str
    gradient: bool
    keeps_positions: bool
    perturb: Callable[[Model, Tensor, Tensor, Settings], Tensor]
    loss: Literal["", "ce", "dlr", "margin"] = ""
    convergence: Literal["", "trace", "doubled"] = ""
    drive: Callable[[Oracle, Settings], None] | None = None
    drive_voted: Callable[[Jury, Settings], None] | None = None
    passes: Callable[[Stage, Load], Passes] = per_step
    starts: bool = False
    targeted: bool = False
    exits: bool = False
    stand_in: Callable[[Stage, ThreatModel], Stage] | None = None
    check: Callable[[Stage, tuple[int, int, int]], None] | None = None
    whole_set: bool = False

    def require(self, norm: str, *, target: str = "", module: object = None) -> None:
        """Refuse what this attack cannot do.

        Raises:
            PlanError: for a norm or a goal that it does not have, or a library that is not installed.
            ModelError: for a ``module`` without the exits that it attacks.
        """
        if norm not in self.norms:
            raise PlanError(f"{self.name} has no norm {norm!r}: allowed are {', '.join(self.norms)}")
        if target and not self.targeted:
            raise PlanError(f"{self.name} has no targeted variant: leave target={target!r} out")
        if self.exits and module is not None:
            exits_of(module)
        if self.library in OPTIONAL:
            try:
                version(self.library)  # by its distribution: another one has a package called art as well
            except PackageNotFoundError:
                install = f"pip install 'pytest-prunerob[{OPTIONAL[self.library]}]'"
                raise PlanError(f"{self.name} needs {self.library}: {install}") from None


def drive(attack: Attack, oracle: Oracle, settings: Settings) -> None:
    """Run ``attack`` under ``oracle``, seeded as its library would seed this micro-batch alone.

    What an attack forwards is judged only where it keeps its positions; of the others, what they return.
    """
    if attack.drive is not None:
        attack.drive(oracle, settings)
        return
    seed(settings)
    rows = torch.arange(len(oracle.x), device=oracle.x.device)
    if not attack.keeps_positions:
        oracle.submit(attack.perturb(oracle, oracle.x, oracle.y, settings), rows)
        return
    with oracle.call(rows):
        oracle.submit(attack.perturb(oracle, oracle.x, oracle.y, settings), rows)


def drive_voted(attack: Attack, jury: Jury, settings: Settings) -> None:
    """Run ``attack`` on a subject that draws, and have votes judge what it ends with."""
    if attack.drive_voted is not None:
        attack.drive_voted(jury, settings)
        return
    seed(settings)
    rows = torch.arange(len(jury.x), device=jury.x.device)
    jury.submit(attack.perturb(jury, jury.x, jury.y, settings), rows)


def seed(settings: Settings) -> None:
    """Seed torch on all devices, NumPy and Python; the engine puts their states back."""
    seed_all(settings.seed)
