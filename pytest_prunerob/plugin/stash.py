"""The typed keys under which the plugin keeps its state; there are no module globals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from pytest_prunerob.evaluation import TestEvaluation
    from pytest_prunerob.plugin.options import Options
    from pytest_prunerob.plugin.runtime import Runtime

OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
RUNTIME: pytest.StashKey[Runtime] = pytest.StashKey()
EVALUATION: pytest.StashKey[TestEvaluation] = pytest.StashKey()
COMPRESSED: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
STDERR: pytest.StashKey[int] = pytest.StashKey()
PROFILES: pytest.StashKey[bool] = pytest.StashKey()
STARTED: pytest.StashKey[float] = pytest.StashKey()
NOTES: pytest.StashKey[Path] = pytest.StashKey()
DESELECTED: pytest.StashKey[int] = pytest.StashKey()
