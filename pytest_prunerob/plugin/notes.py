"""What xdist workers and the controller tell each other besides reports: notes in a folder that both can read.

The controller must know which tests are cells before any of them reports, or it cannot tell a cell that was lost from
another test; and a worker must know which cell has ended a worker before, or a scheduler that hands it out again runs
it for ever. A worker on another host has no such folder and goes without.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.plugin.collection import grid_of
from pytest_prunerob.plugin.stash import DESELECTED, NOTES

KEY = "prunerob_notes"  # of the worker input


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the worker where the notes are."""
    stash = node.config.stash
    if NOTES not in stash:
        stash[NOTES] = Path(tempfile.mkdtemp(prefix="prunerob-"))
    node.workerinput[KEY] = str(stash[NOTES])


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count what is left out."""
    if items:
        stash = items[0].config.stash
        stash[DESELECTED] = stash.get(DESELECTED, 0) + len(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """In a worker: note the cells, before xdist tells the controller that this worker is ready."""
    folder = _of_worker(session.config)
    if folder is None:
        return
    note = {
        "cells": [item.nodeid for item in session.items if grid_of(item) is not None],
        "deselected": session.config.stash.get(DESELECTED, 0),
    }
    worker = session.config.workerinput["workerid"]  # type: ignore[attr-defined]
    (folder / f"planned-{worker}.json").write_text(json.dumps(note), encoding="utf-8")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """In a worker: refuse a cell that has ended a worker before."""
    folder = _of_worker(item.config)
    if folder is not None and grid_of(item) is not None and _crashed(folder, item.nodeid).exists():
        pytest.fail("this cell ended the worker that ran it, and is not run again", pytrace=False)


def planned(config: pytest.Config, worker: str) -> tuple[list[str], int] | None:
    """On the controller: the cells of a worker and how many tests it left out; ``None`` where it left no note."""
    folder = config.stash.get(NOTES, None)
    path = None if folder is None else folder / f"planned-{worker}.json"
    if path is None or not path.exists():
        return None
    note = json.loads(path.read_text(encoding="utf-8"))
    return list(note["cells"]), int(note["deselected"])


def mark_crashed(config: pytest.Config, nodeid: str) -> None:
    """On the controller: let no worker run ``nodeid`` again."""
    folder = config.stash.get(NOTES, None)
    if folder is not None:
        _crashed(folder, nodeid).touch()


def remove(config: pytest.Config) -> None:
    """On the controller: remove the notes."""
    folder = config.stash.get(NOTES, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _of_worker(config: pytest.Config) -> Path | None:
    given = getattr(config, "workerinput", {}).get(KEY)
    return Path(given) if given is not None and Path(given).is_dir() else None


def _crashed(folder: Path, nodeid: str) -> Path:
    return folder / f"crashed-{hashlib.sha256(nodeid.encode()).hexdigest()}"
