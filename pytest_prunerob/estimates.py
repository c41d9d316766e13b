"""What a stage of a plan can cost at most, before it runs: samples forwarded and samples whose gradient is taken.

The bound is the cost where every sample survives, plus what the breaks of a stacked run can make it repeat. Counted as
the engine counts: one sample through the network once is one.
"""

from __future__ import annotations

import math
from functools import cache

from pytest_prunerob.attacks.apgd import STACKED_ROWS
from pytest_prunerob.ledger import Cost, Kind
from pytest_prunerob.plans import Stage


def stage_bound(stage: Stage, norm: str, kind: Kind, samples: int, classes: int) -> Cost:
    """The most that ``stage`` costs on ``samples`` of one micro-batch; seconds are not known here.

    A proposal that leaves the ball or the box is projected and forwarded once more (``oracle``): in L1 and L2 that may
    be any of them, in Linf only the witness itself.
    """
    if samples == 0:
        return Cost()
    runs, forward, backward = _passes(stage, samples, classes)
    again = forward if norm != "linf" else 0
    # Clean logits, each run's own look at its inputs, what it returns, and the projection of that.
    around = 1 + 4 * runs
    if kind == "returned":
        around += 2 * runs
    return Cost(samples * (forward + again + around), samples * backward)


def _passes(stage: Stage, samples: int, classes: int) -> tuple[int, int, int]:
    """Runs of an attack (restarts and targets), and passes of each sample forward and backward over all of them."""
    params = dict(stage.params)
    restarts = int(params.get("restarts", 1))
    if stage.attack in ("apgd-ce", "apgd-dlr", "apgd-t"):
        steps = stage.integer("steps") + (3 if "schedule" in params else 1)  # a start in each part of the schedule
        targets = int(params.get("targets", 1))
        if targets == 1 or "schedule" in params:
            runs = restarts * targets
        else:
            runs = restarts * math.ceil(_stacked(samples, targets, 1) / samples)
        return runs, runs * steps, runs * steps
    if stage.attack == "fab-t":
        runs = restarts * stage.integer("targets")
        return runs, runs * (2 * stage.integer("steps") + 3), runs * stage.integer("steps")
    if stage.attack in ("fab", "fab-min"):
        steps = stage.integer("steps")
        return restarts, restarts * (2 * steps + 3), restarts * steps * classes
    if stage.attack == "square":
        return restarts, restarts * (stage.integer("queries") + 1), 0
    if stage.attack == "fgsm":
        return 1, 1, 1
    steps = stage.integer("steps")
    return restarts, restarts * steps, restarts * steps


@cache
def _stacked(samples: int, targets: int, stack: int) -> int:
    """The most rows that the stacked driver of APGD-T attacks, whichever targets break whichever samples.

    A target that breaks a sample makes the targets behind it, which ran in the same call, run again on the rest.
    """
    if targets == 0 or samples == 0:
        return 0
    group = min(stack, targets, max(1, STACKED_ROWS // samples))
    rest = targets - group
    worst = _stacked(samples, rest, rest)
    for index in range(group):
        left = targets - index - 1
        worst = max(worst, _fewer(samples - 1, left, 1 if index == 0 else 2))
    return samples * group + worst


@cache
def _fewer(samples: int, targets: int, stack: int) -> int:
    """The most over at most ``samples`` of them."""
    if samples <= 0:
        return 0
    return max(_stacked(samples, targets, stack), _fewer(samples - 1, targets, stack))
