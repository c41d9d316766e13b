"""JSMA, the attack on a saliency map (Papernot et al. 2016, arXiv:1511.07528), from ART.

ART's map is the gradient of the target's logit alone, without the paper's product with those of the other classes, and
it draws targets where it is given none: here the most likely other classes are tried, the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor

from pytest_prunerob.attacks.art import LIBRARY, classifier, generated, load_art
from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Stage


def _towards(model: Model, x: Tensor, target: Tensor, settings: Settings) -> Tensor:
    load_art()
    from art.attacks.evasion import SaliencyMapMethod

    # ART goes on while no more than γ of all features are changed, and then changes two more: it must stop at ε - 1.
    gamma = (min(settings.radius, x[0].numel()) - 1.5) / x[0].numel()
    attack = SaliencyMapMethod(
        classifier(model, x, settings.classes),
        theta=float(Fraction(str(settings.stage.get("theta")))),
        gamma=gamma,
        batch_size=len(x),
        verbose=False,
    )
    return generated(attack, x, target)


def _ranked(clean: Tensor, y: Tensor, settings: Settings) -> Iterator[Tensor]:
    """The target classes (N,) of one run after the other."""
    if settings.target is not None:
        yield settings.target
        return
    order = clean.scatter(1, y[:, None], -math.inf).argsort(dim=1, descending=True)
    yield from order.T[: settings.stage.integer("targets")]


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """What the first target gives, replaced by a later one's where that is still classified correctly."""
    seed(settings)
    with torch.no_grad():
        clean = model(x)
    returned = x
    for number, target in enumerate(_ranked(clean, y, settings)):
        candidate = _towards(model, x, target, settings)
        if number == 0:
            returned = candidate
            continue
        with torch.no_grad():
            correct = model(returned).argmax(1) == y
        returned = torch.where(correct.view(-1, *[1] * (x.ndim - 1)), candidate, returned)
    return returned


def _drive(oracle: Oracle, settings: Settings) -> None:
    seed(settings)
    for target in _ranked(oracle.clean, oracle.y, settings):
        rows = oracle.survivors()
        if not len(rows):
            return
        oracle.submit(_towards(oracle, oracle.x[rows], target[rows], settings), rows)


def _passes(stage: Stage, load: Load) -> Passes:
    """Every step brings one feature at least by θ nearer to the end of the box, and ε of them may go there.

    A step takes a prediction and a gradient, and one backward pass for each target class in the batch.
    """
    size = abs(Fraction(str(stage.get("theta"))))
    runs = int(dict(stage.params).get("targets", 1))
    steps = int(min(load.eps, load.features)) * (math.ceil(1 / size) + (size < 1))
    return Passes(runs, 1 + runs * (2 + 2 * steps), runs * steps * min(load.classes, load.samples))


JSMA = Attack(
    name="jsma",
    norms=("l0",),
    kind="fixed",
    library=LIBRARY,
    source="Papernot et al. 2016",
    gradient=True,
    keeps_positions=False,
    perturb=_perturb,
    drive=_drive,
    passes=_passes,
    targeted=True,
)
