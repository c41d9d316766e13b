"""Noise that is drawn for every pixel and channel by itself (Hendrycks & Dietterich 2019, Section 4.1).

``x``: (N, C, H, W) in [0, 1]; results are clipped to [0, 1] by the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pytest_prunerob.corruptions.draws import Draws


def gaussian_noise(x: Tensor, draws: Draws, scale: float) -> Tensor:
    """Normal noise of standard deviation ``scale``."""
    return x + scale * draws.normal(*x.shape[1:])


def shot_noise(x: Tensor, draws: Draws, photons: float) -> Tensor:
    """Counts of photons, Poisson with mean ``photons`` where a pixel is 1."""
    return draws.poisson(x * photons) / photons


def impulse_noise(x: Tensor, draws: Draws, amount: float) -> Tensor:
    """Salt and pepper: the share ``amount`` of the values becomes 0 or 1."""
    drawn = draws.uniform(*x.shape[1:])
    pepper = torch.where(drawn < amount / 2, torch.zeros_like(x), x)
    return torch.where((drawn >= amount / 2) & (drawn < amount), torch.ones_like(x), pepper)


def speckle_noise(x: Tensor, draws: Draws, scale: float) -> Tensor:
    """Normal noise whose standard deviation is ``scale`` times the value."""
    return x + scale * x * draws.normal(*x.shape[1:])
