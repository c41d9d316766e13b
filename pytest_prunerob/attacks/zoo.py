"""ZOO, zeroth-order optimisation (Chen et al. 2017, arXiv:1708.03999), from ART with three repairs.

ART clips the perturbation itself to the box, so that no pixel ever becomes darker: here it may lie in [-1, 1], and the
network is shown the input clipped to the box. ART also adds the perturbation of each step to that of the steps before;
here it is added to the sample. And ART forwards its points one by one; here they are forwarded together.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_prunerob.attacks.art import LIBRARY, Array, array, classifier, generated
from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.plans import Stage


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    attack = _library(model, x, settings)
    seed(settings)
    return generated(attack, x, y).clamp(0, 1)


def _library(model: Model, x: Tensor, settings: Settings) -> Any:
    stage = settings.stage

    def predict(z: Array, **_: object) -> Array:
        """Logits (N, K), at once whatever batch size ART asks for."""
        with torch.no_grad():
            return array(model(torch.from_numpy(np.ascontiguousarray(z, dtype=np.float32)).to(x).clamp(0, 1)))

    wrapped = classifier(model, x, settings.classes)
    wrapped.predict = predict
    wrapped.set_params(clip_values=(-1.0, 1.0))
    from art.attacks.evasion import ZooAttack

    attack = ZooAttack(
        wrapped,
        learning_rate=float(Fraction(str(stage.get("step_size")))),
        max_iter=stage.integer("steps"),
        binary_search_steps=stage.integer("search_steps"),
        initial_const=float(Fraction(str(stage.get("initial_const")))),
        abort_early=False,
        use_resize=False,  # it enlarges an input to 32 pixels and more before it reduces anything
        use_importance=False,  # a strategy for the enlarged ones
        nb_parallel=min(stage.integer("coordinates"), x[0].numel()),
        verbose=False,
    )
    step = attack._optimizer
    # What it returns becomes the next z; less the perturbation so far that is the sample again.
    attack._optimizer = lambda z, targets, constants: step(z - attack._current_noise, targets, constants)
    return attack


def _passes(stage: Stage, load: Load) -> Passes:
    """Two forwards for each coordinate and one of the new point, in each step of each constant."""
    points = 2 * min(stage.integer("coordinates"), load.features) + 1
    # ART ends with a look at the samples and at what it returns, for its log.
    return Passes(1, stage.integer("search_steps") * stage.integer("steps") * points + 2, 0)


ZOO = Attack(
    name="zoo",
    norms=("l2",),
    kind="minimum",
    library=LIBRARY,
    source="Chen et al. 2017",
    gradient=False,
    keeps_positions=False,
    perturb=_perturb,
    convergence="doubled",
    passes=_passes,
)
