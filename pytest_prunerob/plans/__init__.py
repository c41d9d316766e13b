"""Attack plans: threat models and the constructors of all attacks, one file per attack or family.

Plans are frozen and cost nothing to construct: neither torch nor an attack library is imported here.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_prunerob.plans.autoattack import apgd, autoattack
from pytest_prunerob.plans.brendel_bethge import brendel_bethge
from pytest_prunerob.plans.corruption import corruption, occlusion
from pytest_prunerob.plans.cw import cw
from pytest_prunerob.plans.deepfool import deepfool
from pytest_prunerob.plans.exits import multi_exit_pgd
from pytest_prunerob.plans.fab import fab
from pytest_prunerob.plans.fmn import fmn
from pytest_prunerob.plans.gradient import bim, fgsm, momentum, pgd, r_fgsm
from pytest_prunerob.plans.jsma import jsma
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
from pytest_prunerob.plans.substitute import substitute
from pytest_prunerob.plans.universal import universal
from pytest_prunerob.plans.wrm import wrm
from pytest_prunerob.plans.zoo import zoo

# The constructors by the name that claims files give them.
PLANS: dict[str, Callable[..., Plan]] = {
    constructor.__name__: constructor
    for constructor in (
        autoattack,
        apgd,
        fab,
        fgsm,
        r_fgsm,
        bim,
        momentum,
        pgd,
        fmn,
        cw,
        deepfool,
        brendel_bethge,
        jsma,
        wrm,
        multi_exit_pgd,
        substitute,
        universal,
        zoo,
        corruption,
        occlusion,
    )
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
    "apgd",
    "autoattack",
    "bim",
    "brendel_bethge",
    "corruption",
    "cw",
    "deepfool",
    "fab",
    "fgsm",
    "fmn",
    "jsma",
    "momentum",
    "multi_exit_pgd",
    "occlusion",
    "pgd",
    "r_fgsm",
    "resolve",
    "substitute",
    "universal",
    "worst_case",
    "wrm",
    "zoo",
]
