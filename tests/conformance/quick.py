"""A small residual network and a training of seconds, for tests that iterate over the methods of compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression import Masks
from pytest_prunerob.compression.method import AfterStep, Penalty
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.training import TRAININGS, fit, fresh

INPUTS = (1, 8, 8)
RECIPE = replace(TRAININGS["standard"], epochs=2, batch_size=16, lr=3e-3)
ADVERSARIAL = replace(TRAININGS["pgd"], epochs=2, batch_size=16, eps="0.1", steps=1, step_size="0.1")


class Block(nn.Module):
    """Two convolutions with batch normalisation, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        summed: Tensor = self.relu2(inner + x)
        return summed


class Residual(nn.Module):
    """A stem, five residual blocks and a linear layer: ``x: (N, 1, 8, 8)`` → logits ``(N, 10)``."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(Block(width) for _ in range(5)))
        self.pool = nn.AvgPool2d(4)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.flatten(self.pool(self.blocks(self.relu(self.bn(self.conv(x)))))))
        return logits


def residual() -> nn.Module:
    """The network with the weights of seed 0, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Residual().eval()


@dataclass
class QuickTrainer:
    """Trains by ``RECIPE`` on ``data``, between steps by ``ADVERSARIAL`` where ``hardened``.

    ``tuned`` collects the masks of every fine-tuning.
    """

    data: Dataset
    steps: bool = True
    hardened: bool = False
    tuned: list[Masks] = field(default_factory=list)

    def fine_tune(
        self, model: nn.Module, masks: Masks, *, penalty: Penalty | None = None, after_step: AfterStep | None = None
    ) -> None:
        self.tuned.append(masks)
        if self.steps:
            half, how = Fraction(1, 2), self.hardened
            self.train(model, masks, epochs=half, penalty=penalty, after_step=after_step, adversarial=how)

    def train(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        epochs: Fraction = Fraction(1),
        penalty: Penalty | None = None,
        after_step: AfterStep | None = None,
        adversarial: bool = False,
    ) -> None:
        how = ADVERSARIAL if adversarial else RECIPE
        count = max(1, round(how.epochs * epochs))
        show = {"penalty": penalty, "after_step": after_step, "epochs": count, "masks": masks}
        fit(model, self.data, how, seed=0, device="cpu", progress=False, **show)  # type: ignore[arg-type]

    def fresh(self, model: nn.Module) -> None:
        fresh(model, seed=0)

    def early(self, share: Fraction) -> Mapping[str, Tensor]:
        model = residual()
        if round(RECIPE.epochs * share):
            fit(model, self.data, RECIPE, seed=0, device="cpu", until=round(RECIPE.epochs * share), progress=False)
        return model.state_dict()


def trained(data: Dataset) -> nn.Module:
    """The network after the training of ``QuickTrainer``."""
    model = residual()
    fit(model, data, RECIPE, seed=0, device="cpu", progress=False)
    return model
