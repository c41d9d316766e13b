"""FMN, the fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827): Linf from foolbox, L2, L1 and L0 our own.

Why own: foolbox's L2 never projects onto its ball (its factor is a norm over itself), so that its distances are much
too large; its L0 keeps one feature more than its radius allows and fails where that reaches all features; its L1, like
the algorithm as it is printed, gets stuck at the box: what a step moves out of [0, 1] is cut off after the projection,
and what is left shrinks as fast as the radius grows. For 12 of 36 digits it finds nothing. Ours leaves such parts of a
gradient out from the start, and the search fails for none.
Adversarial Library, which has all norms, cannot be installed any more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import OWN, Attack, Model, Settings, seed
from pytest_prunerob.attacks.gradient import foolbox_model

# What the schedules fall to: the step to this share of the first one, the share by which the radius changes to this.
# These are the authors' values in their implementation for foolbox.
LAST_STEP = 0.01
LAST_GAMMA = 0.001
TINY = 1e-12


def _perturb_foolbox(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    import foolbox

    seed(settings)
    stage = settings.stage
    attack = foolbox.attacks.LInfFMNAttack(
        steps=stage.integer("steps"),
        max_stepsize=float(Fraction(str(stage.get("step_size")))),
        gamma=float(Fraction(str(stage.get("gamma")))),
    )
    goal = y if settings.target is None else foolbox.criteria.TargetedMisclassification(settings.target)
    returned: Tensor = attack.run(foolbox_model(model, x.device), x, goal)
    return returned


@dataclass(frozen=True)
class _Seen:
    """What one forward and backward pass says: ``margin`` (N,) above zero where the goal is not reached, and so on."""

    margin: Tensor
    reached: Tensor
    gradient: Tensor


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """Algorithm 1 of the paper for all samples at once; a sample whose search fails is returned as it was."""
    norm, stage = settings.norm, settings.stage
    steps = stage.integer("steps")
    first_step, first_gamma = (float(Fraction(str(stage.get(name)))) for name in ("step_size", "gamma"))
    farthest = lengths(torch.maximum(x, 1 - x), norm)
    if norm == "l0":
        farthest = torch.full_like(farthest, x[0].numel())
    shortest, found = farthest.clone(), torch.zeros_like(farthest, dtype=torch.bool)
    radius = torch.full_like(farthest, 1.0 if norm == "l0" else math.inf)
    z, best = x, x
    for step in range(steps):
        decay = (1 + math.cos(math.pi * step / steps)) / 2
        size = first_step * (LAST_STEP + (1 - LAST_STEP) * decay)
        gamma = LAST_GAMMA + (first_gamma - LAST_GAMMA) * decay
        seen = _look(model, z, y, settings.target)
        length = lengths(z - x, norm)
        better = seen.reached & (length <= shortest)
        best, shortest = torch.where(_wide(better, x), z, best), torch.where(better, length, shortest)
        found = found | seen.reached
        radius = _next_radius(norm, radius, seen, length, shortest, found, gamma).minimum(farthest)
        unit = seen.gradient / _wide(lengths(seen.gradient, "l2").clamp(min=TINY), x)
        z = (x + onto_ball(z - x - size * unit, radius, norm)).clamp(0, 1)
    return best


def _look(model: Model, z: Tensor, y: Tensor, target: Tensor | None) -> _Seen:
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(z)
        goal = y if target is None else target
        chosen = logits.gather(1, goal[:, None]).squeeze(1)
        others = logits.scatter(1, goal[:, None], -math.inf).amax(1)
        margin = chosen - others if target is None else others - chosen
        (gradient,) = torch.autograd.grad(margin.sum(), z)
    z = z.detach()
    gradient = gradient.masked_fill(((z <= 0) & (gradient > 0)) | ((z >= 1) & (gradient < 0)), 0)
    label = logits.detach().argmax(1)
    return _Seen(margin.detach(), label != y if target is None else label == target, gradient)


def _next_radius(
    norm: str, radius: Tensor, seen: _Seen, length: Tensor, shortest: Tensor, found: Tensor, gamma: float
) -> Tensor:
    """Inwards where the goal is reached, outwards where it is not: by a share γ, in L0 by at least one whole feature.

    Until a sample has crossed the boundary, its radius in L1 and L2 is the boundary's distance to first order, and by
    the share γ more (ours): where that is exact, the logits are equal there, and no class changes.
    """
    if norm == "l0":
        inwards = (radius - 1).minimum((radius * (1 - gamma)).floor())
        outwards = (radius + 1).maximum((radius * (1 + gamma)).floor())
    else:
        slope = lengths(seen.gradient, "linf" if norm == "l1" else "l2").clamp(min=TINY)  # in the dual norm
        inwards = radius * (1 - gamma)
        outwards = (1 + gamma) * torch.where(found, radius, length + seen.margin.abs() / slope)
    changed = torch.where(seen.reached, inwards.minimum(shortest), outwards)
    return changed.clamp(min=1) if norm == "l0" else changed


def lengths(delta: Tensor, norm: str) -> Tensor:
    """The norms (N,) of ``delta`` (N, C, H, W)."""
    flat = delta.flatten(1)
    if norm == "l0":
        return (flat != 0).sum(1).to(delta.dtype)
    length: Tensor = torch.linalg.vector_norm(flat, {"l1": 1.0, "l2": 2.0, "linf": math.inf}[norm], dim=1)
    return length


def onto_ball(delta: Tensor, radius: Tensor, norm: str) -> Tensor:
    """The nearest perturbations to ``delta`` (N, C, H, W) whose norm is at most ``radius`` (N,).

    L0 keeps the largest entries; L1 lessens all moduli by one threshold (Duchi et al. 2008, Fig. 1).
    """
    flat = delta.flatten(1)
    if norm == "l2":
        flat = flat * (radius / lengths(delta, "l2").clamp(min=TINY)).clamp(max=1)[:, None]
    elif norm == "l0":
        ranks = flat.abs().argsort(dim=1, descending=True).argsort(dim=1)
        flat = flat * (ranks < radius[:, None])
    else:
        moduli = flat.abs().sort(dim=1, descending=True).values
        count = torch.arange(1, flat.shape[1] + 1, device=flat.device)
        thresholds = (moduli.cumsum(1) - radius[:, None]) / count
        last = (moduli > thresholds).sum(1).clamp(min=1)  # the entries that stay: a leading part of the order
        threshold = thresholds.gather(1, last[:, None] - 1).clamp(min=0)
        flat = flat.sign() * (flat.abs() - threshold).clamp(min=0)
    return flat.view_as(delta)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


FMN = Attack(
    name="fmn",
    norms=("linf",),
    kind="minimum",
    library="foolbox",
    source="Pintor et al. 2021",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb_foolbox,
    loss="margin",
    convergence="doubled",
    targeted=True,
)
FMN_OWN = Attack(
    name="fmn-own",
    norms=("l2", "l1", "l0"),
    kind="minimum",
    library=OWN,
    source="Pintor et al. 2021",
    gradient=True,
    keeps_positions=True,
    perturb=_perturb,
    loss="margin",
    convergence="doubled",
    targeted=True,
)
