"""The time a run may spend: what is not begun before it is over stays undone, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_prunerob.errors import BudgetSpentError


@dataclass(frozen=True)
class Budget:
    """``seconds`` from ``started`` (seconds since the epoch, the same for all workers); no limit where ``None``."""

    seconds: float | None = None
    started: float = 0.0
    clock: Callable[[], float] = time.time

    def require(self, what: str) -> None:
        """Allow ``what`` to begin.

        Raises:
            BudgetSpentError: where the time is over.
        """
        if self.seconds is not None and self.clock() >= self.started + self.seconds:
            raise BudgetSpentError(f"the time budget of {duration(self.seconds)} was spent before {what}")


def duration(seconds: float) -> str:
    """Seconds as they are given on the command line: "90s", "30m", "8h"."""
    for unit, size in (("h", 3600.0), ("m", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
