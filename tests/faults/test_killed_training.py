"""A training that is killed is continued by the next run, and gives the model of an undisturbed one."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.cells import Cell
from pytest_prunerob.models import Builder
from pytest_prunerob.store import Store
from pytest_prunerob.training import TUNED

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# Six short epochs, each kept and noted; the third takes long, so that there is a middle in which to be killed.
CONFTEST = """
import dataclasses, os, pathlib, time
import pytest
from pytest_prunerob import resuming
from pytest_prunerob.training import TUNED

@pytest.fixture(autouse=True)
def _kept(monkeypatch):
    monkeypatch.setitem(TUNED["digits"], "standard", dataclasses.replace(TUNED["digits"]["standard"], epochs=6))
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    save = resuming.Slot.save

    def noting(self, saved):
        save(self, saved)
        with open("epochs", "a") as file:
            file.write(f"{saved.facts['epoch']} ")
        while saved.facts["epoch"] == 3 and os.path.exists("wait"):
            time.sleep(0.01)

    monkeypatch.setattr(resuming.Slot, "save", noting)
"""
SUITE = """
@cells(dataset="digits", network="cnn", training="standard", samples=20)
def test_it(dense):
    assert dense.accuracy() >= 0.1
"""


def weights(store: Path) -> list[str]:
    """The published models, whose names are what they contain."""
    return sorted(path.name for path in store.rglob("model-*"))


def test_a_training_killed_between_two_epochs(
    suite: Suite, pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite(SUITE, "--collect-only")
    pytester.makeconftest(CONFTEST)
    noted, store = pytester.path / "epochs", pytester.path / ".prunerob"
    (pytester.path / "wait").touch()
    process = pytester.popen([*pytester._getpytestargs(), "-q"], stdout=DEVNULL, stderr=DEVNULL, cwd=pytester.path)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if noted.exists() and "3 " in noted.read_text():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert noted.read_text() == "1 2 3 "
    assert (weights(store), len(list(store.rglob("checkpoint-*")))) == ([], 1)
    (pytester.path / "wait").unlink()
    run = suite(None)
    assert run.statuses == {"test_it": "passed"}
    assert noted.read_text() == "1 2 3 4 5 6 6 "
    assert list(store.rglob("checkpoint-*")) == []
    monkeypatch.setitem(TUNED["digits"], "standard", replace(TUNED["digits"]["standard"], epochs=6))
    builder = Builder(Store(tmp_path / "undisturbed"), "cpu", False, lambda _: None, tmp_path)
    builder.dense(Cell("it", {"dataset": "digits", "network": "cnn", "training": "standard"}))
    assert weights(tmp_path / "undisturbed") == weights(store)
    assert len(weights(store)) == 1
