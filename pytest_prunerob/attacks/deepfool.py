"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599) from foolbox."""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Load, Model, Passes, Settings, seed
from pytest_prunerob.attacks.gradient import foolbox_model
from pytest_prunerob.plans import Stage


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    import foolbox

    seed(settings)
    stage = settings.stage
    family = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[settings.norm]
    attack = family(
        steps=stage.integer("steps"),
        candidates=stage.integer("candidates"),
        overshoot=float(Fraction(str(stage.get("overshoot")))),
        loss=str(stage.get("loss")),
    )
    returned: Tensor = attack.run(foolbox_model(model, x.device), x, y)
    return returned


def _passes(stage: Stage, load: Load) -> Passes:
    """One forward and one backward pass for each boundary and step: foolbox shares no forward between them."""
    boundaries = stage.integer("steps") * (min(stage.integer("candidates"), load.classes) - 1)
    return Passes(1, 1 + boundaries, boundaries)


DEEPFOOL = Attack(
    name="deepfool",
    norms=("l2", "linf"),
    kind="minimum",
    library="foolbox",
    source="Moosavi-Dezfooli et al. 2016",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="margin",
    convergence="doubled",
    passes=_passes,
)
