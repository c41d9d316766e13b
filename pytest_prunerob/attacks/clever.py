"""The CLEVER score (Weng et al. 2018, arXiv:1801.10578): an estimate of how near the decision boundary can be.

The margin to another class cannot shrink faster than its largest gradient norm around the sample allows. That norm is
estimated as the end of a reverse Weibull distribution, fitted to the maxima of batches of random points.

Own code: the fit of the adversarial-robustness-toolbox (``clever_u``) starts from one shape and often diverges, and
its score is 0 then; where all gradients vanish, its score is the radius, as if the network were robust there. Its
batches are drawn from one pool of points, so that many have the same maximum. Here the batches are fresh, as in the
paper, the fit cannot diverge, and what has no estimate is NaN.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import OWN, Attack, Load, Model, Passes, Settings
from pytest_prunerob.attacks.extremes import upper_end
from pytest_prunerob.plans import Stage

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
ROWS = 256  # points forwarded at once (ours): their graph is kept for the gradients of all classes
# An L2 norm below this is a zero gradient for the audits of attacks, and nothing to divide by here either.
VANISHED = 1e-10


def _perturb(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """Scores (N,) of the samples ``x`` (N, C, H, W) with predicted labels ``y`` (N,); NaN where there is none."""
    scores = [_score(model, z, int(label), settings) for z, label in zip(x, y, strict=True)]
    return torch.tensor(scores, dtype=torch.float64)


def _score(model: Model, x: Tensor, label: int, settings: Settings) -> float:
    """The score of one sample (C, H, W): the smallest of its targets' (Weng et al. 2018, Algorithms 1 and 2)."""
    stage = settings.stage
    radius, batches = float(Fraction(str(stage.get("radius")))), stage.integer("batches")
    with torch.no_grad():
        logits = model(x.unsqueeze(0))[0].double()
    if not bool(logits.isfinite().all()):
        return float("nan")
    ranked = [c for c in logits.argsort(descending=True, stable=True).tolist() if c != label]
    targets = ranked[: stage.integer("targets")]
    points = _points(x, batches * stage.integer("batch_size"), radius, settings)
    norms = torch.cat([_norms(model, part, label, targets, DUAL[settings.norm]) for part in torch.split(points, ROWS)])
    if not bool(norms.isfinite().all()):
        return float("nan")
    maxima = norms.view(batches, -1, len(targets)).amax(1).cpu().numpy()
    scores = [radius]
    for column, target in enumerate(targets):
        end = upper_end(maxima[:, column]) if maxima[:, column].max() > VANISHED else float("nan")
        if end != end:  # a minimum over the others would pass over the class that it is about
            return float("nan")
        scores.append(float(logits[label] - logits[target]) / end)
    return min(scores)


def _norms(model: Model, points: Tensor, label: int, targets: list[int], order: float) -> Tensor:
    """Dual norms (M, T) of the gradients of the margins to ``targets`` at ``points`` (M, C, H, W)."""
    points = points.clone().requires_grad_(True)
    with torch.enable_grad():
        logits = model(points)
        return torch.stack(list(_gradients(logits, points, label, targets, order)), dim=1)


def _gradients(logits: Tensor, points: Tensor, label: int, targets: list[int], order: float) -> Iterator[Tensor]:
    for target in targets:
        margin = (logits[:, label] - logits[:, target]).sum()
        (gradient,) = torch.autograd.grad(margin, points, retain_graph=target != targets[-1])
        yield torch.linalg.vector_norm(gradient.flatten(1).double(), order, dim=1)


def _points(x: Tensor, many: int, radius: float, settings: Settings) -> Tensor:
    """Uniform random points (``many``, C, H, W) of the ball around ``x``, moved into the box.

    They depend on the seed and the sample alone, so that no batch and no device changes a score.
    """
    digest = hashlib.sha256(x.cpu().numpy().tobytes() + settings.seed.to_bytes(16, "big", signed=True)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    shape = (many, x.numel())
    if settings.norm == "linf":
        step = 2 * torch.rand(shape, generator=generator) - 1
    elif settings.norm == "l2":
        step = torch.randn(shape, generator=generator)
        length = torch.rand((many, 1), generator=generator) ** (1 / x.numel())
        step = step / step.norm(dim=1, keepdim=True).clamp(min=1e-12) * length
    else:  # the ends of x.numel() + 1 exponential spacings are uniform in the simplex
        spacing = -torch.log(torch.rand((many, x.numel() + 1), generator=generator).clamp(min=1e-38))
        sign = 1 - 2 * (torch.rand(shape, generator=generator) < 0.5).float()
        step = sign * spacing[:, :-1] / spacing.sum(1, keepdim=True)
    return (x + radius * step.to(x).view(many, *x.shape)).clamp(0, 1)


def _passes(stage: Stage, load: Load) -> Passes:
    """A gradient of every margin at every point."""
    points = stage.integer("batches") * stage.integer("batch_size")
    return Passes(1, points + 1, points * min(stage.integer("targets"), load.classes - 1))


CLEVER = Attack(
    name="clever",
    norms=("linf", "l2", "l1"),
    kind="estimate",
    library=OWN,
    source="Weng et al. 2018",
    gradient=True,
    keeps_positions=False,
    perturb=_perturb,
    passes=_passes,
)
