"""A run that is killed loses no finished micro-batch, and its outcomes are those of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# Each forward takes a moment while the file "slow" is there, so that there is a middle in which to be killed.
SUITE = """
import time
import conftest
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = conftest.classifier(2)

    def forward(self, x):
        if os.path.exists("slow"):
            time.sleep(0.05)
        return self.module(x)

@pytest.fixture
def pruned_model():
    return Slow().eval()

@cells()
def test_it(pruned):
    plan = pgd(norm="linf", eps="0.0525", steps=10, step_size="0.01", micro_batch=4)
    assert within(pruned.robust_accuracy(plan), 0.5, 0.01)
"""


def segments(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("seg-*.json")}


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, id="kill -9"), pytest.param(signal.SIGINT, id="Ctrl-C", marks=pytest.mark.slow)],
)
def test_resuming(suite: Suite, pytester: pytest.Pytester, number: signal.Signals) -> None:
    (pytester.path / "slow").touch()
    suite(SUITE, "--collect-only")
    store = pytester.path / ".prunerob"
    results = pytester.path / "results.json"
    process = pytester.popen(
        [*pytester._getpytestargs(), f"--prunerob-results={results}"], stdout=-1, stderr=-2, cwd=pytester.path
    )
    deadline = time.monotonic() + 120
    while len(segments(store)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, number)
    assert process.stdout is not None
    output = process.stdout.read().decode()
    process.stdout.close()
    process.wait()
    (pytester.path / "slow").unlink()
    before = segments(store)
    assert 3 <= len(before) < 11, output  # the clean forward and ten micro-batches
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert '"status": "running"' in results.read_text()
    else:
        assert process.returncode == 2, output
        assert '"status": "incomplete"' in results.read_text()
    resumed = suite(None)
    uninterrupted = suite(None, "--prunerob-store=other")
    assert (resumed.ret, uninterrupted.ret) == (0, 0)
    after = segments(store)
    assert len(after) == 11
    assert before.items() <= after.items()
    first, second = resumed.results, uninterrupted.results
    assert first["claims"] == second["claims"]
    assert 0 < first["cost"]["backward"] < second["cost"]["backward"]
    assert {key: entry["broken"] for key, entry in first["measurements"].items()} == {
        key: entry["broken"] for key, entry in second["measurements"].items()
    }
    assert not list(store.rglob(".tmp-*"))
