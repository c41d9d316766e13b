"""What a stage of a plan can cost at most, before it runs: samples forwarded and samples whose gradient is taken.

The bound is the cost where every sample survives, plus what the breaks of a stacked run can make it repeat. Counted as
the engine counts: one sample through the network once is one.
"""

from __future__ import annotations

from pytest_prunerob.attacks import ATTACKS, Load
from pytest_prunerob.ledger import Cost, Kind
from pytest_prunerob.plans import Stage
from pytest_prunerob.votes import CANDIDATES, LOOKS


def stage_bound(stage: Stage, norm: str, kind: Kind, load: Load) -> Cost:
    """The most that ``stage`` costs on one micro-batch, ``load``; seconds are not known here.

    A proposal that leaves the ball or the box is projected and forwarded once more (``oracle``): in L1 and L2 that may
    be any of them, in Linf only the witness itself.
    """
    if load.samples == 0:
        return Cost()
    passes = ATTACKS[stage.attack].passes(stage, load)
    again = passes.forward if norm != "linf" else 0
    # Clean logits, each run's own look at its inputs, what it returns, and the projection of that.
    around = 1 + 4 * passes.runs
    if kind in ("returned", "crafted", "transferred"):
        around += 2 * passes.runs
    if "eot" in dict(stage.params):  # votes judge what each run ends with
        again, around = 0, 1 + CANDIDATES * passes.runs * LOOKS[-1]
    return Cost(load.samples * (passes.forward + again + around), load.samples * passes.backward)
