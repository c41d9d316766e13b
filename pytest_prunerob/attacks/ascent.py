"""Projected gradient ascent on any loss of an input (Madry et al. 2018), for losses that no library's PGD takes.

foolbox and the others climb a loss of the logits of one model; several exits have one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pytest_prunerob.oracle import projected

# Added to an L2 norm before it divides, as libraries do.
TINY = 1e-12


def ascent(
    loss: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    norm: str,
    eps: float,
    steps: int,
    step_size: float,
    random_start: bool,
) -> Iterator[Tensor]:
    """The points after each step from ``x: (N, C, H, W)``, all in the Linf or L2 ball of radius ``eps`` and the box.

    ``loss`` maps inputs to the sum of a loss over them. A sample whose gradient is not finite stays where it is.
    """
    z = projected(x, x + _start(x, norm, eps), norm, eps) if random_start else x
    for _ in range(steps):
        z = z.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(z), z)
        step = step_size * _direction(gradient.nan_to_num(0.0, 0.0, 0.0), norm)
        z = projected(x, z.detach() + step, norm, eps)
        yield z


def _direction(gradient: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    return gradient / _lengths(gradient).clamp(min=TINY)


def _start(x: Tensor, norm: str, eps: float) -> Tensor:
    """Uniform in the ball."""
    if norm == "linf":
        return eps * (2 * torch.rand_like(x) - 1)
    draw = torch.randn_like(x)
    share = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype)
    return eps * share.pow(1 / x[0].numel()) * draw / _lengths(draw).clamp(min=TINY)


def _lengths(value: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(value.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (value.ndim - 1))
