"""How the model of a cell is trained while it is compressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from torch import Tensor, nn

from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import AfterStep, Penalty
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.training import Keep, Recipe, fine_tuning, fit, fresh, recipe


@dataclass(frozen=True)
class CellTrainer:
    """Trains by the recipe ``training`` on ``data``; ``steps`` says what follows a pruning step.

    ``dense_early`` gives the state of the dense model after a share of its training. ``report`` is told what is being
    done, ``label`` names it. ``keep()`` is the place for the checkpoint of the next training.
    """

    data: Dataset
    dataset: str
    training: str
    seed: int
    steps: Literal["fine-tuning", "adversarial", "none"]
    device: str
    progress: bool
    label: str
    report: Callable[[str], None]
    dense_early: Callable[[Fraction], Mapping[str, Tensor]]
    keep: Callable[[], Keep | None] = lambda: None

    def recipes(self) -> dict[str, Recipe]:
        """The recipes that this trainer uses, by what they are for."""
        whole, adversarial = (recipe(name, dataset=self.dataset) for name in (self.training, "pgd"))
        steps = {"fine-tuning": fine_tuning(whole), "adversarial": fine_tuning(adversarial)}
        found = {"training": whole, "adversarial": adversarial}
        return {**found, "steps": steps[self.steps]} if self.steps in steps else found

    def fine_tune(
        self, model: nn.Module, masks: Masks, *, penalty: Penalty | None = None, after_step: AfterStep | None = None
    ) -> None:
        """Train as it follows a pruning step, or not at all."""
        how = self.recipes().get("steps")
        if how is not None:
            self._fit(model, masks, how, penalty, after_step)

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
        """Train for ``epochs`` times the epochs of the recipe; its milestones move with them."""
        how = self.recipes()["adversarial" if adversarial else "training"]
        count, milestones = max(1, round(how.epochs * epochs)), tuple(round(at * epochs) for at in how.milestones)
        self._fit(model, masks, replace(how, epochs=count, milestones=milestones), penalty, after_step)

    def fresh(self, model: nn.Module) -> None:
        """New random weights by the seed."""
        fresh(model, seed=self.seed)

    def early(self, share: Fraction) -> Mapping[str, Tensor]:
        """The state of the dense model after ``share`` of its training."""
        if not 0 <= share <= 1:
            raise CompressionError(f"the dense model after {float(share):.4g} of its training: allowed is 0 to 1")
        return self.dense_early(share)

    def _fit(
        self, model: nn.Module, masks: Masks, how: Recipe, penalty: Penalty | None, after_step: AfterStep | None
    ) -> None:
        label = f"{self.label} ({how.name}, {self.dataset}, seed {self.seed})"
        self.report(label)
        fit(
            model,
            self.data,
            how,
            seed=self.seed,
            device=self.device,
            masks=masks,
            penalty=penalty,
            after_step=after_step,
            progress=self.progress,
            label=label,
            keep=self.keep(),
        )
