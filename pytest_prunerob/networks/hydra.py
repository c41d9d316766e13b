"""CNN-small and CNN-large, on which HYDRA prunes verifiably robust networks (Sehwag et al. 2020, arXiv:2002.10509).

They come from Wong et al. 2018 (arXiv:1805.12514). State-dict names are those of both repositories: positions in a
``Sequential``.
"""

from __future__ import annotations

from torch import nn


def cnn_small(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Two 4×4 convolutions of stride 2 and two dense layers: ``x: (N, C, H, W) in [0, 1]`` → logits ``(N, classes)``.

    Not normalised inside.
    """
    channels, height, width = inputs
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def cnn_large(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Four convolutions, two of them of stride 2, and three dense layers, for inputs and outputs as ``cnn_small``."""
    channels, height, width = inputs
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )
