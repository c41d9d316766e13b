"""One perturbation for a whole set (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401) from ART.

ART draws the order of the samples from Python's ``random``, which is seeded here. Only what it returns is judged.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from torch import Tensor

from pytest_prunerob.attacks.art import LIBRARY, classifier, generated
from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.plans import Stage

ORDER = {"linf": np.inf, "l2": 2}
# ART's own limits for DeepFool: steps, and classes whose gradients it takes.
DEEPFOOL_STEPS = 100
DEEPFOOL_CLASSES = 10


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    wrapped = classifier(model, x, settings.classes)
    from art.attacks.evasion import UniversalPerturbation

    stage, order = settings.stage, ORDER[settings.norm]
    inner: dict[str, object] = {}
    if stage.get("attacker") == "fgsm":  # ART's default is a step of 0.3, whatever ε is
        inner = {"norm": order, "eps": settings.radius, "eps_step": settings.radius}
    else:
        inner = {"verbose": False}
    attack = UniversalPerturbation(
        wrapped,
        attacker=str(stage.get("attacker")),
        attacker_params=inner,
        delta=float(Fraction(str(stage.get("delta")))),
        max_iter=stage.integer("steps"),
        eps=settings.radius,
        norm=order,
        verbose=False,
    )
    seed(settings)
    return generated(attack, x, y)


def _passes(stage: Stage, load: Load) -> Passes:
    """Each time through the set: two looks at a sample and one at the set, and the attacker from where it stands."""
    if stage.get("attacker") == "fgsm":
        forward = backward = 1
    else:
        classes = min(DEEPFOOL_CLASSES, load.classes)
        looks = classes if load.classes > DEEPFOOL_CLASSES else 1  # one forward for all gradients, or one for each
        forward = (1 + DEEPFOOL_STEPS) * (1 + looks)
        backward = (1 + DEEPFOOL_STEPS) * classes
    steps = stage.integer("steps")
    return Passes(1, steps * (3 + forward), steps * backward)


UNIVERSAL = Attack(
    name="universal",
    norms=("linf", "l2"),
    kind="fixed",
    library=LIBRARY,
    source="Moosavi-Dezfooli et al. 2017",
    gradient=False,
    keeps_positions=False,
    perturb=_perturb,
    passes=_passes,
    whole_set=True,
)
