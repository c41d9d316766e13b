"""Small deterministic networks with their samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

Subject = tuple[nn.Module, Tensor, Tensor]
GOLDEN = Path(__file__).parent.parent / "data" / "golden.safetensors"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On batches this small a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden() -> Subject:
    """A small convolutional network that was trained for a moment, and 36 digits; three of them are clean errors."""
    from sklearn.datasets import load_digits

    source = load_digits()
    x = torch.from_numpy(source.images).float().unsqueeze(1) / 16
    y = torch.from_numpy(source.target).long()
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    module = nn.Sequential(*layers).eval()
    module.load_state_dict(load_file(GOLDEN), strict=True)
    with torch.no_grad():
        wrong = (module(x[900:]).argmax(1) != y[900:]).nonzero().flatten() + 900
    chosen = torch.cat([wrong[:3], torch.arange(1000, 1033)])
    return module, x[chosen], y[chosen]


@pytest.fixture(scope="session")
def linear() -> Subject:
    """Two classes that a hyperplane separates, and two that are always far below; inputs well inside the box.

    The distances of the samples to the hyperplane are |w·x + b| over the dual norm of w, whatever the attack.
    """
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(64, generator=generator)
    x = 0.5 + 0.02 * torch.randn(12, 1, 8, 8, generator=generator)
    # Every sample is moved along w to a distance of its own.
    score = torch.linspace(0.2, 0.9, 12) * torch.tensor([1.0, -1.0]).repeat(6)
    flat = x.flatten(1)
    flat = flat + ((score - (flat - 0.5) @ weight) / weight.square().sum()).unsqueeze(1) * weight
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        zero = torch.zeros(64)
        module[1].weight.copy_(torch.stack([weight / 2, -weight / 2, zero, zero]))  # type: ignore[operator, union-attr]
        shift = 0.5 * weight.sum() / 2
        module[1].bias.copy_(torch.tensor([-shift, shift, -20.0, -21.0]))  # type: ignore[operator, union-attr]
    return module.eval(), flat.view(-1, 1, 8, 8), (score < 0).long()
