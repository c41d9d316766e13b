"""The suites of ``tests/plugin``, for faults that are made on purpose."""

from __future__ import annotations

from tests.plugin.conftest import Run, Suite, _imported, _libraries_stay, _one_thread, suite

__all__ = ["Run", "Suite", "_imported", "_libraries_stay", "_one_thread", "suite"]
