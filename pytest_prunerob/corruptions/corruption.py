"""What a corruption is: a function of images, its constants for five severities, and the images it makes sense on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pytest_prunerob.corruptions.draws import draws

Constants = tuple[tuple[float, ...], ...]
LARGEST_CIFAR = 64  # pixels on the shorter side up to which the CIFAR-10-C constants are the default (ours)


@dataclass(frozen=True)
class Corruption:
    """A corruption of the benchmark.

    ``apply(x, draws, *constants)`` takes x: (N, C, H, W) in [0, 1]. ``cifar`` and ``imagenet`` are its constants for
    the severities 1 to 5 (Hendrycks & Dietterich 2019, as published in the code that made CIFAR-10-C and ImageNet-C).
    ``smallest`` is the shortest side it makes sense on (ours), ``channels`` the numbers of channels it is defined for
    (empty: all). ``textures`` says that it needs photographs.
    """

    name: str
    apply: Callable[..., Tensor]
    cifar: Constants
    imagenet: Constants
    smallest: int = 1
    channels: tuple[int, ...] = ()
    textures: bool = False

    def suits(self, inputs: tuple[int, int, int]) -> bool:
        """Whether images (C, H, W) are large enough and have the right channels."""
        channels, height, width = inputs
        return min(height, width) >= self.smallest and (not self.channels or channels in self.channels)


def corrupt(
    x: Tensor,
    corruption: Corruption,
    severity: int,
    *,
    seed: int,
    constants: str | None = None,
    textures: Sequence[Tensor] = (),
) -> Tensor:
    """``x`` (N, C, H, W) in [0, 1], corrupted with ``severity`` 1 to 5; same shape, in [0, 1], not rounded to 8 bits.

    Each sample draws what ``seed``, the kind of corruption and its own bytes decide: no batch changes it, and all
    severities of a sample draw the same numbers. ``constants`` is "cifar", "imagenet" or ``None``, by image size.
    """
    by_size = "cifar" if min(x.shape[-2:]) <= LARGEST_CIFAR else "imagenet"
    chosen = {"cifar": corruption.cifar, "imagenet": corruption.imagenet}[constants or by_size][severity - 1]
    more = {"textures": textures} if corruption.textures else {}
    return corruption.apply(x, draws(x, seed, corruption.name), *chosen, **more).clamp(0, 1)
