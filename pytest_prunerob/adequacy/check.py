"""An indicator's outcome, and the limits of all indicators of attacks in one table."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

Outcome = Literal["passed", "failed", "not applicable", "not run"]
CheckLevel = Literal["error", "inconclusive", "information"]


@dataclass(frozen=True)
class Check:
    """One indicator with its outcome.

    ``stage`` is the attack stage it is about (empty: the whole plan), ``value`` what was measured and ``limit`` beyond
    which it fails; ``message`` says what was seen and what to do.
    """

    indicator: str
    outcome: Outcome
    message: str
    stage: str = ""
    value: float | None = None
    limit: float | None = None
    level: CheckLevel = "inconclusive"

    def __post_init__(self) -> None:
        if self.value is not None and not isfinite(self.value):  # no number for a file; the message has it
            object.__setattr__(self, "value", None)


# Survivors that an attack is run again on: as many as the audit of the model has probes (ours).
CHECKED = 64
# The audit costs at most this share of the samples that the plan would forward without the oracle (issue 3) …
SHARE_OF_PLAN = 0.05
# … or this many samples, where that is more: a cheap plan is no reason to look less closely (ours) …
CHEAP = 3000
# … and never looks at fewer survivors than this: fewer show nothing (ours).
FEWEST = 8
# An L2 norm below this is a zero gradient: normalisers of libraries add 1e-12 (design 4.3).
ZERO_GRADIENT = 1e-10
# More survivors than this share without a gradient, with a flat loss or a non-finite one: the stage could not have
# worked on them (design 4.3).
BAD_SHARE = 0.01
# A loss that moves less than this, relative to its size, over the whole run is flat: float32 carries 1e-7 (ours).
FLAT = 1e-6
# APGD's best loss still rises where the last quarter of its steps brings more than this share of all it gained. Steady
# progress would bring 25 %; healthy networks of the suites stay below 12 % (ours; Pintor et al. 2022 compare the last
# with the best loss in the same way).
RISING = 0.20
# Doubled steps (fixed-step plans), black-box stages and transferred inputs: at least this many breaks, and more than
# this share of all samples, that the white-box stages missed (design 4.3).
NEW_BREAKS = 3
DOUBLED_SHARE = 0.01
BLACK_BOX_SHARE = 0.002
# A float twin classifies at least this share of the checked survivors as the model does, else it is another network
# (ours: quantised networks agree with theirs on all but a few samples).
TWIN_AGREES = 0.75
# Relative change of the margin at random neighbours this fraction of ε away. Where the margin of a survivor shrinks
# to nothing no faster than at ε in the worst direction, a random direction changes it by less than 1/20 (ours).
NEIGHBOUR = 0.05
UNSTABLE = 0.10
NEIGHBOURS = 4
# Steps of the attack over the whole box: from any point they cross it several times (ours).
UNBOUNDED_STEPS = 100
# The attack runs with these parts of ε on what survived it with ε: robust accuracy may rise by this share before the
# attack counts as one that does not optimise (design 4.3).
RISE_WITH_EPS = 0.01
SWEEP = ("1/4", "1/2")
# Minimum-norm attacks: a second method or doubled steps that finds the boundary more than 15 % nearer on more than a
# quarter of the samples says that the distances are not the smallest (ours: on dense and pruned digits networks FAB is
# that much nearer than FMN for one sample in five at most).
NEARER = 0.15
NEARER_SHARE = 0.25
# The binarised readout (Zimmermann et al. 2022): inner points per test, tests per audit, and the share of tests in
# which an attack that can work must find the point that is known to be there (their Section 4 uses 95 %).
READOUT_INNER = 99
READOUT_TESTS = 16
READOUT_SUCCESS = 0.95
