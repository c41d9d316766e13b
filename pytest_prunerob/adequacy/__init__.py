"""When may survival count? The indicators of design 4.3: of a subject, of an attack stage, of a plan, of distances."""

from __future__ import annotations

from pytest_prunerob.adequacy.check import Check
from pytest_prunerob.adequacy.distances import audit_distances, how_many_distances
from pytest_prunerob.adequacy.full import FULL, audit_fully
from pytest_prunerob.adequacy.stages import Audit, Case, audit_plan, how_many
from pytest_prunerob.adequacy.steps import audit_steps
from pytest_prunerob.adequacy.subject import INDICATORS, PROBES, Finding, Level, audit, off_declared, outcomes

__all__ = [
    "FULL",
    "INDICATORS",
    "PROBES",
    "Audit",
    "Case",
    "Check",
    "Finding",
    "Level",
    "audit",
    "audit_distances",
    "audit_fully",
    "audit_plan",
    "audit_steps",
    "how_many",
    "how_many_distances",
    "off_declared",
    "outcomes",
]  # fmt: skip
