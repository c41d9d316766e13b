"""Random numbers that belong to single samples, so that no batch changes what a sample draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """One stream of random numbers for each of N samples; the results are on ``device``.

    The streams are drawn on the CPU whatever the device is: a device is no part of what an outcome depends on.
    """

    generators: tuple[torch.Generator, ...]
    device: torch.device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (N, *shape)."""
        return self._each(lambda generator, _: torch.randn(shape, generator=generator))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers (N, *shape) that are uniform between ``low`` and ``high``."""
        drawn = self._each(lambda generator, _: torch.rand(shape, generator=generator))
        return low + (high - low) * drawn

    def integers(self, *shape: int, low: int, high: int) -> Tensor:
        """Whole numbers (N, *shape) from ``low`` to ``high`` − 1."""
        return self._each(lambda generator, _: torch.randint(low, high, shape, generator=generator))

    def poisson(self, rates: Tensor) -> Tensor:
        """Poisson numbers with the ``rates`` (N, ...)."""
        rates = rates.cpu()
        return self._each(lambda generator, place: torch.poisson(rates[place], generator=generator))

    def _each(self, draw: Callable[[torch.Generator, int], Tensor]) -> Tensor:
        return torch.stack([draw(own, place) for place, own in enumerate(self.generators)]).to(self.device)


def draws(x: Tensor, seed: int, name: str) -> Draws:
    """The streams of the samples ``x`` (N, C, H, W): ``seed``, ``name`` and the bytes of a sample decide its own."""
    head = f"{seed}|{name}|{tuple(x.shape[1:])}|".encode()
    generators = []
    for sample in x.detach().cpu().float().contiguous().numpy():
        digest = hashlib.sha256(head + sample.astype("<f4", copy=False).tobytes()).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
    return Draws(tuple(generators), x.device)
