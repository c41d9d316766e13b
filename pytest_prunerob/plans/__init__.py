"""Attack plans: threat models and the constructors of all attacks, one file per attack or family.

Plans are frozen and cost nothing to construct: neither torch nor an attack library is imported here.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_prunerob.plans.autoattack import autoattack
from pytest_prunerob.plans.fab import fab
from pytest_prunerob.plans.fmn import fmn
from pytest_prunerob.plans.gradient import fgsm, pgd
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    TARGETS,
    WHOLE_SET,
    Number,
    Parameter,
    Plan,
    PlanKind,
    Stage,
    ThreatModel,
    resolve,
    worst_case,
)

# The constructors by the name that claims files give them.
PLANS: dict[str, Callable[..., Plan]] = {
    constructor.__name__: constructor for constructor in (autoattack, fab, fgsm, pgd, fmn)
}

__all__ = [
    "MICRO_BATCH",
    "PLANS",
    "TARGETS",
    "WHOLE_SET",
    "Number",
    "Parameter",
    "Plan",
    "PlanKind",
    "Stage",
    "ThreatModel",
    "autoattack",
    "fab",
    "fgsm",
    "fmn",
    "pgd",
    "resolve",
    "worst_case",
]
