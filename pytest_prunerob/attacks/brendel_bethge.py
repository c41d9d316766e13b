"""The L0 attack of Brendel, Rauber, Kümmerer, Ustyuzhaninov & Bethge 2019 (arXiv:1907.01003) from foolbox.

foolbox solves the step of every sample with numba, whose compiler takes minutes in each process and keeps nothing, so
its module is loaded as it is without numba, and the loops over the features, which are what numba is there for, are
array operations here (``loops``). The search itself is foolbox's, and so are its results.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from functools import cache
from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Pool, Settings, seed
from pytest_prunerob.attacks.gradient import foolbox_model
from pytest_prunerob.attacks.loops import Loops
from pytest_prunerob.errors import PlanError
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Stage

MISSING = "L0 start points missing: the model puts no sample of the data set into the class that the search starts from"
# foolbox counts a feature as changed from here on (its ``L0BrendelBethgeAttack.norms``); below, it is left as it was.
UNCHANGED = 1e-4


@cache
def plain() -> Any:
    """Foolbox's module as it is where numba is missing: the same code, not compiled."""
    spec = find_spec("foolbox.attacks.brendel_bethge")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    modules: dict[str, Any] = sys.modules
    loaded: dict[str, Any] = {name: modules.pop(name) for name in ("numba", "numba.experimental") if name in modules}
    modules["numba"] = None  # importing it fails
    try:
        spec.loader.exec_module(module)
    finally:
        del modules["numba"]
        modules.update(loaded)
    vars(module).update(NUMBA_IMPORT_ERROR=None, numba=SimpleNamespace(__version__=""))
    return module


def _library(stage: Stage) -> Any:
    module = plain()

    class Solver(Loops, module.L0Optimizer):  # type: ignore[misc, name-defined]
        pass

    class Search(module.L0BrendelBethgeAttack):  # type: ignore[misc, name-defined]
        def instantiate_optimizer(self) -> Any:
            return Solver()

    return Search(
        steps=stage.integer("steps"),
        lr=float(Fraction(str(stage.get("step_size")))),
        lr_num_decay=stage.integer("decays"),
        binary_search_steps=stage.integer("binary_search_steps"),
    )


class _Unchanged(torch.autograd.Function):
    """Inputs whose hardly changed features are those of the sample again; the gradient goes through."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor) -> Tensor:
        return torch.where((z - x).abs() > UNCHANGED, z, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def starts(x: Tensor, y: Tensor, pool: Pool | None, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The nearest sample of ``pool`` in L2, of another class than ``y`` (of class ``target``), and who has one.

    ``x``: (N, C, H, W), ``y`` and ``target``: (N,); returns inputs like ``x`` and a mask (N,).
    """
    if pool is None or not len(pool.x):
        return x, torch.zeros(len(x), dtype=torch.bool, device=x.device)
    far = torch.cdist(x.flatten(1), pool.x.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    other = pool.predicted != y[:, None] if target is None else pool.predicted == target[:, None]
    nearest = far.masked_fill(~other, float("inf")).min(1)
    return pool.x[nearest.indices], nearest.values.isfinite()


def _run(model: Model, x: Tensor, y: Tensor, start: Tensor, target: Tensor | None, stage: Stage) -> Tensor:
    import foolbox

    goal = y if target is None else foolbox.criteria.TargetedMisclassification(target)
    wrapped = foolbox_model(lambda z: model(_Unchanged.apply(z, x)), x.device)
    returned: Tensor = _library(stage).run(wrapped, x, goal, starting_points=start)
    return torch.where((returned - x).abs() > UNCHANGED, returned, x)


def _drive(oracle: Oracle, settings: Settings) -> None:
    seed(settings)
    start, has = starts(oracle.x, oracle.y, settings.pool, settings.target)
    rows = has.nonzero().squeeze(1)
    oracle.exclude((~has).nonzero().squeeze(1), MISSING)
    if not len(rows):
        return
    target = None if settings.target is None else settings.target[rows]
    with oracle.call(rows):
        oracle.submit(_run(oracle, oracle.x[rows], oracle.y[rows], start[rows], target, settings.stage), rows)


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """What the search returns; samples without a start have no input, which the engine calls an error."""
    seed(settings)
    start, has = starts(x, y, settings.pool, settings.target)
    if not bool(has.any()):
        raise PlanError(MISSING)
    target = None if settings.target is None else settings.target[has]
    returned = torch.full_like(x, float("nan"))
    returned[has] = _run(model, x[has], y[has], start[has], target, settings.stage)
    return returned


def _passes(stage: Stage, load: Load) -> Passes:
    steps = stage.integer("steps")
    return Passes(1, 1 + stage.integer("binary_search_steps") + steps, steps)


BRENDEL_BETHGE = Attack(
    name="brendel-bethge",
    norms=("l0",),
    kind="minimum",
    library="foolbox",
    source="Brendel et al. 2019",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="margin",
    convergence="doubled",
    drive=_drive,
    passes=_passes,
    starts=True,
    targeted=True,
)
