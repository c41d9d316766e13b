"""Carlini & Wagner's attacks in Linf and L0 (2017, arXiv:1608.04644, Sections VI-C and VI-B).

Ours, because foolbox only has L2 and ART's two (1.20.1) are not the attacks of the paper on images: the gradient of its
Linf loss leaves the constant out, and its L0 loop drops one feature for each *channel*, so that nearly all stay
changed. Both work sample by sample there; here the whole batch moves at once, and every sample has its own constant.

Three things differ from the paper. The box is kept by clipping the iterates (its "projected gradient descent", Section
V-B): a pixel at 0 or 1, as most are in digits, has almost no gradient under tanh. A sample goes on from where it is as
soon as it is adversarial, instead of starting a round anew, so that ``steps`` bounds the whole search. And L0 drops
several features at once, as the authors' code does: one by one takes a search for each pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import OWN, Attack, Model, Settings

# Adam as everywhere (Kingma & Ba 2015).
BETAS = (0.9, 0.999)
TINY = 1e-8
LAST_STEP = 0.01  # what the step size falls to, as a share of the first (ours, as in FMN)
FINE = 0.1  # the largest step in Linf once a distance is known, as a share of it (ours: 0.01 is far on CIFAR-10)
LARGEST = 20.0  # the constant in Linf (the authors' code)
PATIENCE = 10  # steps without a success before the constant grows (ours: the published 1000 are for whole rounds)
FACTOR = 2.0  # by which the constant grows where it was too small (the authors' code)
SHRINK = 0.9  # τ after a success, as a share of the distance reached (the paper, VI-C)
# How far beyond the boundary the search aims, as a share of the margin of the sample itself (ours): right on it, the
# rounding of another batch size decides.
SLACK = 0.001
DROPPED = 0.3  # share of the features left that L0 drops at once (the authors' code drops several too; the paper one)


@dataclass
class Search:
    """The state of a batch: ``z`` (N, C, H, W) with Adam's moments, and for each sample constant and patience left."""

    z: Tensor
    first: Tensor
    second: Tensor
    constant: Tensor
    waited: Tensor
    best: Tensor
    length: Tensor
    size: Tensor

    @classmethod
    def at(cls, x: Tensor, constant: float, size: float) -> Search:
        """Starting at the samples ``x`` themselves."""
        rows = torch.zeros(len(x), device=x.device)
        return cls(
            x.clone(), torch.zeros_like(x), torch.zeros_like(x), rows + constant, rows.clone(), x.clone(),
            rows + float("inf"), rows + size,
        )  # fmt: skip

    def move(self, gradient: Tensor, step: int, decay: float) -> None:
        """One step of Adam down ``gradient``, of ``decay`` times its size, clipped to the box."""
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        mean, spread = self.first / (1 - BETAS[0] ** step), self.second / (1 - BETAS[1] ** step)
        size = _each(decay * self.size, self.z)
        self.z = (self.z - size * mean / (spread.sqrt() + TINY)).clamp(0, 1)

    def keep(self, found: Tensor, length: Tensor) -> None:
        """Remember where the samples ``found`` (N,) are, which is ``length`` (N,) away."""
        self.best[found] = self.z[found]
        self.length[found] = length[found]
        self.waited[found] = 0


def _margins(model: Model, z: Tensor, y: Tensor, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """How far (N,) the logits are from the goal, the gradient of that, and which of ``z`` are there."""
    target, confidence = settings.target, float(Fraction(str(settings.stage.get("confidence"))))
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(z)
        wanted = y if target is None else target
        own = logits.gather(1, wanted[:, None]).squeeze(1)
        other = logits.scatter(1, wanted[:, None], float("-inf")).amax(1)
        margin = own - other if target is None else other - own
        (gradient,) = torch.autograd.grad(margin.sum(), z)
    margin = margin.detach() + confidence
    reached = ((logits.argmax(1) == wanted) == (target is not None)) & (margin <= 0)
    return margin, gradient.nan_to_num(0.0), reached


def _each(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))


def _searched(settings: Settings, x: Tensor, step: Callable[[Search, int], Tensor]) -> Tensor:
    stage = settings.stage
    constant, size = (float(Fraction(str(stage.get(name)))) for name in ("initial_const", "step_size"))
    state = Search.at(x, constant, size)
    steps = stage.integer("steps")
    for number in range(1, steps + 1):
        decay = LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * number / steps)) / 2
        state.move(step(state, number), number, decay)
    return state.best


def _linf(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """Min c·max(margin, 0) + Σ max(|δ| − τ, 0), where τ is a share of the smallest distance that was found.

    Where no constant reaches a share, a larger one is tried.
    """
    share = torch.full((len(x),), SHRINK, device=x.device)

    slack = torch.zeros(len(x), device=x.device)

    def step(state: Search, number: int) -> Tensor:
        margin, gradient, reached = _margins(model, state.z, y, settings)
        if number == 1:
            slack.copy_(SLACK * margin.abs())
        delta = state.z - x
        length = delta.flatten(1).abs().amax(1)
        state.waited += 1
        better = reached & (length < state.length)
        state.keep(better, length)
        state.size = state.size.minimum((FINE * state.length).clamp(min=TINY))
        late = state.waited >= PATIENCE
        state.waited[late] = 0
        state.constant[late] *= FACTOR
        over = late & state.length.isfinite() & (state.constant >= 1)
        share[over] = (1 + share[over]) / 2
        state.constant.clamp_(max=LARGEST)
        tau = _each((share * state.length).clamp(max=1), x)
        weight = state.constant * (margin > -slack)
        return _each(weight, x) * gradient + delta.sign() * (delta.abs() > tau)

    return _searched(settings, x, step)


def _l0(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """Min c·max(margin, 0) + ‖δ‖² over fewer and fewer features: a success drops those that matter least, |g·δ|.

    Where too many were dropped at once, the sample goes back to its last success and drops half as many.
    """
    allowed = torch.ones_like(x)
    kept = allowed.clone()
    share = torch.full((len(x),), DROPPED, device=x.device)

    slack = torch.zeros(len(x), device=x.device)

    def step(state: Search, number: int) -> Tensor:
        state.z = torch.where(allowed > 0, state.z, x)
        margin, gradient, reached = _margins(model, state.z, y, settings)
        if number == 1:
            slack.copy_(SLACK * margin.abs())
        delta = state.z - x
        length = (delta != 0).flatten(1).sum(1).to(x.dtype)
        state.waited += 1
        better = reached & (length < state.length)
        state.keep(better, length)
        kept[better] = (delta[better] != 0).to(x.dtype)
        late = state.waited >= PATIENCE
        state.constant[late] *= FACTOR
        state.waited[late] = 0
        back = late & state.length.isfinite()
        state.z[back] = state.best[back]
        share[back] /= 2
        changed = better | back
        allowed[changed] = _without_least((gradient * (state.best - x)).abs()[changed], kept[changed], share[changed])
        weight = state.constant * (margin > -slack)
        return (_each(weight, x) * gradient + 2 * delta) * allowed

    return _searched(settings, x, step)


def _without_least(saliency: Tensor, kept: Tensor, share: Tensor) -> Tensor:
    """``kept`` (n, C, H, W) without the ``share`` (n,) of its features that matters least, one at least."""
    score = saliency.masked_fill(kept == 0, float("inf")).flatten(1)
    count = (share * kept.flatten(1).sum(1)).floor().clamp(min=1)
    ranks = score.argsort(dim=1).argsort(dim=1)
    return kept * (ranks >= count[:, None]).view_as(kept)


def _attack(name: str, norm: str, perturb: Callable[[Model, Tensor, Tensor, Settings], Tensor]) -> Attack:
    return Attack(
        name=name,
        norms=(norm,),
        kind="minimum",
        library=OWN,
        source="Carlini & Wagner 2017",
        gradient=True,
        keeps_positions=True,
        perturb=perturb,
        loss="margin",
        convergence="doubled",
        targeted=True,
    )


CW_LINF = _attack("cw-linf", "linf", _linf)
CW_L0 = _attack("cw-l0", "l0", _l0)
