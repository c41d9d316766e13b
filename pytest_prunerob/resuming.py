"""Trainings that are continued after their process was killed: their checkpoints in the store of the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_prunerob.store import Store, checkpoints
from pytest_prunerob.training import Saved

# Seconds between two checkpoints amid one training, at the end of an epoch (ours): what a kill costs at most besides
# the epoch. The end of a training is always kept, until the model is published.
EVERY = 30.0


@dataclass
class Slots:
    """The checkpoints of all trainings behind one model, numbered in the order in which they happen.

    ``report`` is told what is continued.
    """

    store: Store
    key: str
    report: Callable[[str], None]
    count: int = 0

    def next(self) -> Slot:
        """The place for the checkpoint of the next training."""
        self.count += 1
        return Slot(self, self.count - 1)

    def clear(self) -> None:
        """Delete them: the model is published."""
        checkpoints.drop(self.store, self.key)


@dataclass
class Slot:
    """The place for the checkpoint of training ``number``; ``written`` is when the last one was (monotonic, s)."""

    slots: Slots
    number: int
    written: float = field(default_factory=time.monotonic)

    def load(self, of: str) -> Saved | None:
        """The checkpoint of the training ``of``, if there is one; another's is set aside."""
        found = checkpoints.load(self.slots.store, self.slots.key, self.number, of)
        if found is None:
            return None
        tensors, facts = found
        where = "was over" if facts["finished"] else f"is continued after epoch {facts['epoch']} of {facts['last']}"
        self.slots.report(f"{facts['label']}: {where}")
        return Saved(tensors, facts)

    def due(self) -> bool:
        """Whether the last checkpoint is EVERY seconds old."""
        return time.monotonic() - self.written >= EVERY

    def save(self, saved: Saved) -> None:
        """Put ``saved`` in the place of the last one."""
        checkpoints.save(self.slots.store, self.slots.key, self.number, saved.tensors, saved.facts)
        self.written = time.monotonic()
