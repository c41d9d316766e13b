"""A run killed, or out of disk, at any write, fsync or rename: resuming gives the outcomes of an uninterrupted run."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.errors import StoreError
from pytest_prunerob.store import TEMPORARY, Store
from pytest_prunerob.store.inventory import check, entries
from tests.faults import tiny
from tests.plugin.conftest import Suite

UNITS = 4  # of the measurement: two stages, two micro-batches
real_write = os.write


def scripted() -> tiny.Scripted:
    return tiny.Scripted("cpu", 250, 0)


def interrupting(number: int, act: Callable[[str, tuple[Any, ...]], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """Call ``act`` before call number ``number`` and every later one."""
    count = iter(range(10**6))

    def before(name: str, given: tuple[Any, ...]) -> None:
        if next(count) >= number:
            act(name, given)

    return before


def die_half_way(name: str, given: tuple[Any, ...]) -> None:
    if name == "write":
        real_write(given[0], bytes(given[1])[: len(given[1]) // 2])
    tiny.die()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def killed_at(number: int, root: Path) -> int:
    """Measure in a forked process that dies at call ``number``; minus the signal, or 0 if it got through."""

    def work() -> None:
        for name, call in tiny.hooked(interrupting(number, die_half_way)).items():
            setattr(os, name, call)
        tiny.measured(tiny.bench(root, engine=scripted()))

    return tiny.ended(tiny.forked(work))


def test_21_killed_at_any_write_fsync_or_rename(tmp_path: Path) -> None:
    number, deaths = 0, 0
    while True:
        root = tmp_path / str(number)
        ended = killed_at(number, root)
        before = len(list(root.rglob("seg-*.json")))
        engine = scripted()
        used = tiny.bench(root, engine=engine)
        found = tiny.measured(used)
        assert tiny.outcomes(found) == tiny.OUTCOMES, number
        # A crash is no damage, and it loses at most the unit in which it happened.
        assert used.store.quarantined == [], number
        assert engine.units == UNITS - max(0, before - 1), number  # one segment is that of the clean forward
        store = Store(root, "ro")
        assert check(store) >= 9, number
        assert store.quarantined == [], number
        assert all(entry.complete for entry in entries(store)), number
        assert {p: w.distance for p, w in used.store.witnesses(found.ledger.key).items()} == found_distances(found)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        deaths, number = deaths + 1, number + 1
    # 2 manifests, 5 segments, 2 files of witnesses: each is opened, written, synced, published, its folder synced.
    assert deaths >= 9 * 5


def found_distances(found: tiny.Measurement) -> dict[int, float]:
    return {p: length for s in found.ledger.segments.values() for p, length in s.broken.items()}


def test_21_killed_twice_in_a_row(tmp_path: Path) -> None:
    for number in (7, 12, 18, 23):
        assert killed_at(number, tmp_path) in (0, -signal.SIGKILL)
    used = tiny.bench(tmp_path, engine=scripted())
    assert tiny.outcomes(tiny.measured(used)) == tiny.OUTCOMES
    assert used.store.quarantined == []


def test_21_disk_full_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, failures = 0, 0
    while True:
        root = tmp_path / str(number)

        def fail(name: str, given: tuple[Any, ...]) -> None:
            if name == "unlink":
                return  # which needs no space
            if name == "write":
                real_write(given[0], bytes(given[1])[: len(given[1]) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        failed = ""
        with monkeypatch.context() as patch:
            for name, call in tiny.hooked(interrupting(number, fail)).items():
                patch.setattr(os, name, call)
            try:
                tiny.measured(tiny.bench(root, engine=scripted()))
            except StoreError as error:
                failed = str(error)
        assert not list(root.rglob(f"{TEMPORARY}*")), number
        used = tiny.bench(root, engine=scripted())
        assert tiny.outcomes(tiny.measured(used)) == tiny.OUTCOMES, number
        assert used.store.quarantined == [], number
        if not failed:
            break
        assert "No space left on device" in failed
        failures, number = failures + 1, number + 1
    assert failures >= 9 * 3


def test_21_a_full_disk_fails_the_claim_and_the_next_run_goes_on(suite: Suite, pytester: pytest.Pytester) -> None:
    run = suite(
        """
        import errno

        @pytest.fixture(autouse=True)
        def full(monkeypatch):
            real = os.write
            def write(handle, payload):
                name = os.readlink(f"/proc/self/fd/{handle}")
                if os.path.exists("full") and ".tmp-" in name:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(handle, payload)
            monkeypatch.setattr(os, "write", write)

        @cells()
        def test_it(pruned):
            assert pruned.robust_accuracy(P) >= 0.5
        """
    )
    assert run.statuses == {"test_it": "passed"}
    (pytester.path / "full").touch()
    full = suite(None, "--prunerob-store=other")
    assert full.ret == 1
    assert [verdict for _, verdict in full.verdicts] in (["error"], [])
    assert "No space left on device" in full.out
    (pytester.path / "full").unlink()
    again = suite(None, "--prunerob-store=other")
    assert (again.ret, again.verdicts) == (0, run.verdicts)
