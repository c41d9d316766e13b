"""Training and fine-tuning of the reference networks: recipes by name, adversaries, augmentation, checkpoints."""

from __future__ import annotations

from pytest_prunerob.training.checkpoints import Keep, Saved
from pytest_prunerob.training.fitting import fit, fresh
from pytest_prunerob.training.recipes import TRAININGS, TUNED, Recipe, fine_tuning, recipe

__all__ = ["TRAININGS", "TUNED", "Keep", "Recipe", "Saved", "fine_tuning", "fit", "fresh", "recipe"]
