"""Runs of real suites. They share the default store of the checkout, so that each model is trained once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def python(*arguments: str, cwd: Path = ROOT, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` in a folder, as a user would: no xdist worker, no inherited pytest settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:  # the other workers need the cores as well
        environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture
def run() -> Run:
    """``python(...)`` as a fixture."""
    return python
