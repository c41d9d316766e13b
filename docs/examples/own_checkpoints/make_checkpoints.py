"""Stands in for your training: writes a dense and a pruned checkpoint and a test set into ``checkpoints/``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from network import Classifier
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy


def train(model: Classifier, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    """Plain training, followed by keeping what is zero at zero."""
    zero = {name: parameter == 0 for name, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model((x - 0.3) / 0.4)["out"], y).backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if steps < 100:
                    parameter[zero[name]] = 0


def main() -> None:
    """Write ``dense.safetensors``, ``pruned.safetensors`` and ``test.npz``."""
    torch.manual_seed(0)
    folder = Path(__file__).parent / "checkpoints"
    folder.mkdir(exist_ok=True)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    model = Classifier()
    train(model, x[:1200], y[:1200], 120)
    save_file(model.state_dict(), folder / "dense.safetensors")
    weight = model.head.weight.data
    weight[weight.abs() < weight.abs().flatten().median()] = 0
    train(model, x[:1200], y[:1200], 30)
    save_file(model.state_dict(), folder / "pruned.safetensors")
    np.savez(folder / "test.npz", x=x[1200:].numpy(), y=y[1200:].numpy())


if __name__ == "__main__":
    main()
