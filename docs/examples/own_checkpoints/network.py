"""The network of this project. It expects normalised inputs and returns a dictionary, as real code bases do."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A small convolutional network for 8x8 grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map normalised images (N, 1, 8, 8) to {"out": logits (N, 10)}."""
        return {"out": self.head(torch.flatten(self.body(x), 1))}
