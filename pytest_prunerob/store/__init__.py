"""What is kept between runs: measurements, trained models and their integrity (design 4.2)."""

from __future__ import annotations

from pytest_prunerob.store.files import SCHEMA, TEMPORARY
from pytest_prunerob.store.store import MODES, PROBE_TOLERANCE, Mode, Store
from pytest_prunerob.store.witnesses import POLICIES, Policy, Witness

__all__ = ["MODES", "POLICIES", "PROBE_TOLERANCE", "SCHEMA", "TEMPORARY", "Mode", "Policy", "Store", "Witness"]
