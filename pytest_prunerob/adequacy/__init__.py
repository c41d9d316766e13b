"""When may survival count? The indicators of design 4.3: of a subject, of an attack stage, of a plan, of distances."""

from __future__ import annotations

from pytest_prunerob.adequacy.subject import INDICATORS, PROBES, Finding, Level, audit

__all__ = ["INDICATORS", "PROBES", "Finding", "Level", "audit"]
