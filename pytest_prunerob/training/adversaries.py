"""The adversaries of training: inputs that raise the loss within the Linf ball around a batch and the box [0, 1]."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.training.recipes import Recipe

# The standard deviation of the start of TRADES, whose loss has no gradient at the clean input (its Alg. 1).
NEARBY = 0.001


def crafted(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Inputs near ``x: (N, C, H, W)`` that raise the loss, clipped after every step; ``x`` itself without an adversary.

    The start is the clean input (FGSM), anywhere in ball and box (PGD; Madry et al. 2018, Sec. 2.1), anywhere in the
    ball and clipped (fast), or beside the clean input (TRADES). The loss is the cross-entropy with ``y``, for TRADES
    the divergence from the output on ``x``. Drawn from ``generator``, which lives on the CPU.

    The model is in eval mode, so that crafting moves no batch statistics and attacks the network as it is used. Wong
    et al. craft in train mode, which pulls the statistics towards inputs that are never trained on. Free training
    crafts in train mode, because its one backward pass serves weights and inputs: see :func:`nudged`.
    """
    if recipe.eps is None or recipe.step_size is None or recipe.adversary in ("none", "free"):
        return x
    eps, size = float(Fraction(recipe.eps)), float(Fraction(recipe.step_size))
    low, high = bounds(x, eps)
    adversarial = _start(x, recipe, eps, low, high, generator)
    model.eval()
    clean = None
    if recipe.adversary == "trades":
        with torch.no_grad():
            clean = functional.log_softmax(model(x), dim=1)
    for _ in range(recipe.steps):
        adversarial.requires_grad_()
        logits = model(adversarial)
        if clean is None:
            loss = functional.cross_entropy(logits, y, reduction="sum")
        else:
            loss = functional.kl_div(functional.log_softmax(logits, dim=1), clean, reduction="sum", log_target=True)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        # Clipped outside the graph: gradients through a clamp vanish at the border of the box.
        adversarial = torch.clamp(adversarial.detach() + size * gradient.sign(), low, high)
    return adversarial


def bounds(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The lowest and highest values within ``eps`` of ``x`` and within [0, 1]."""
    return (x - eps).clamp(min=0), (x + eps).clamp(max=1)


def nudged(noise: Tensor, gradient: Tensor, recipe: Recipe) -> Tensor:
    """The perturbation (N, C, H, W) of free training after a step along ``gradient``, within ε.

    Shafahi et al. 2019, Alg. 1. What it is added to is clipped to the box each time: the next batch inherits it.
    """
    assert recipe.eps is not None  # as every recipe with an adversary
    assert recipe.step_size is not None
    eps = float(Fraction(recipe.eps))
    return (noise + float(Fraction(recipe.step_size)) * gradient.sign()).clamp(-eps, eps)


def _start(x: Tensor, recipe: Recipe, eps: float, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    if recipe.adversary == "fgsm":
        return x.clone()
    if recipe.adversary == "trades":
        drawn = torch.randn(x.shape, generator=generator).to(x.device)
        return torch.clamp(x + NEARBY * drawn, low, high)
    drawn = torch.rand(x.shape, generator=generator).to(x.device)
    if recipe.adversary == "fast":
        return torch.clamp(x + (2 * drawn - 1) * eps, low, high)
    return low + drawn * (high - low)
