"""FMN, the fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827), Linf, from foolbox."""

from __future__ import annotations

from torch import Tensor

from pytest_prunerob.attacks.attack import Attack, Model, Settings, seed
from pytest_prunerob.attacks.gradient import foolbox_model


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    import foolbox

    seed(settings)
    attack = foolbox.attacks.LInfFMNAttack(steps=settings.stage.integer("steps"))
    returned: Tensor = attack.run(foolbox_model(model, x.device), x, y)
    return returned


FMN = Attack(
    name="fmn",
    norms=("linf",),
    kind="minimum",
    library="foolbox",
    source="Pintor et al. 2021",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="margin",
    convergence="doubled",
)
