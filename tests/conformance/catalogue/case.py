"""How one attack in one norm is held against its library and against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pytest_prunerob.plans import Plan

SEED = 7
# Radii at which an attack breaks some of the samples of the golden network and not all of them.
EPS = {"linf": "0.15", "l2": "0.6", "l1": "2", "l0": "6"}

Library = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One attack in one norm.

    ``plan(eps)`` is a small plan with only this attack (minimum-norm attacks ignore ``eps``), ``strong(eps)`` the one
    for the linear network where the small one would not do; ``library(plan)`` is the
    library's own attack with the same parameters and the seed ``SEED``: (model, x, y) → what it returns, ``None`` for
    attacks that no library has. On a linear network the attack must break whatever is nearer than ε by ``factor``;
    ``one_class`` gives it only samples of one class there (one perturbation cannot push both classes over).
    ``eps`` is the radius for the golden network, ``wrap`` makes of a network what the attack needs. ``linear`` is false
    where no closed form says what the attack must break.
    """

    attack: str
    norm: str
    plan: Callable[[str], Plan]
    library: Callable[[Plan], Library] | None
    factor: float = 1.02
    one_class: bool = False
    eps: str = ""
    strong: Callable[[str], Plan] | None = None
    wrap: Callable[[nn.Module], nn.Module] | None = None
    linear: bool = True

    @property
    def radius(self) -> str:
        """ε on the golden network."""
        return self.eps or EPS[self.norm]

    @property
    def id(self) -> str:
        """The name of the case in test ids."""
        return f"{self.attack}-{self.norm}"
