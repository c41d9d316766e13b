"""The store outlives ``--cache-clear``, is not written in read-only mode, and never answers from another schema."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.store import SCHEMA
from tests.faults import tiny
from tests.plugin.conftest import Suite

SUITE = """
@cells()
def test_it(pruned):
    assert pruned.robust_accuracy(P) >= 0.5
"""


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {name: (content, (root / name).stat().st_mtime_ns) for name, content in tiny.files(root).items()}


def test_23_cache_clear_leaves_the_store(suite: Suite, pytester: pytest.Pytester) -> None:
    first = suite(SUITE)
    before = state(pytester.path / ".prunerob")
    assert before
    again = suite(None, "--cache-clear")
    assert again.verdicts == first.verdicts
    assert (again.results["store"]["misses"], again.results["cost"]["backward"]) == (0, 0)
    assert state(pytester.path / ".prunerob") == before


def test_23_read_only_answers_what_is_there_and_writes_nothing(
    suite: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = suite(SUITE)
    store = pytester.path / ".prunerob"
    before = state(store)
    with monkeypatch.context() as patch:
        # A medium that cannot be written: for root the permissions of a directory would not do.
        for name, call in tiny.hooked(refuse_below(store)).items():
            patch.setattr(os, name, call)
        again = suite(None, "--prunerob-store-mode=ro")
        assert (again.ret, again.verdicts) == (0, first.verdicts)
        assert again.results["store"]["misses"] == 0
        # Measuring on it fails at once and says why; nothing is supported.
        other = suite(SUITE.replace(">= 0.5", ">= 0.4"), "--prunerob-seed=1")
        assert other.ret == 1
        assert "is not writable: Read-only file system" in other.all
        assert "supported" not in [verdict for _, verdict in other.verdicts]
    assert state(store) == before


def refuse_below(root: Path) -> Any:
    def refuse(name: str, given: tuple[Any, ...]) -> None:
        if any(isinstance(part, str | Path) and str(part).startswith(str(root)) for part in given):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(given[0]))

    return refuse


def test_23_read_only_does_not_measure_what_is_missing(suite: Suite, pytester: pytest.Pytester) -> None:
    suite(SUITE)
    store = pytester.path / ".prunerob"
    before = state(store)
    run = suite(None, "--prunerob-store-mode=ro", "--prunerob-seed=1")
    assert run.ret == 1
    assert [verdict for _, verdict in run.verdicts] == ["error"]
    assert "store-mode=ro measures nothing: run the same command with --prunerob-store-mode=rw once" in run.out
    assert state(store) == before


@pytest.mark.parametrize(("version", "age"), [(SCHEMA - 1, "an older"), (SCHEMA + 1, "a newer")])
def test_23_the_directory_of_another_schema_is_named_and_never_read(
    version: int, age: str, suite: Suite, pytester: pytest.Pytester
) -> None:
    first = suite(SUITE)
    store = pytester.path / ".prunerob"
    (store / f"v{SCHEMA}").rename(store / f"v{version}")
    before = state(store)
    again = suite(None)
    assert again.verdicts == first.verdicts
    assert again.results["cost"]["backward"] == first.results["cost"]["backward"] > 0
    sentence = f"v{version}: results in schema {version}, which is that of {age} version of pytest-prunerob"
    assert any(line.startswith(sentence) for line in again.results["store"]["quarantined"])
    assert sentence in again.out
    after = state(store)
    assert {name: found for name, found in after.items() if name in before} == before
    missing = suite(None, "--prunerob-store-mode=ro", "--prunerob-seed=1")
    assert [verdict for _, verdict in missing.verdicts] == ["error"]


@pytest.mark.parametrize(("schema", "age"), [(SCHEMA - 1, "an older"), (SCHEMA + 1, "a newer")])
def test_23_a_manifest_in_another_schema_is_named_and_its_results_measured_again(
    schema: int, age: str, tmp_path: Path
) -> None:
    used = tiny.bench(tmp_path)
    key = tiny.measured(used).ledger.key
    path = used.store.folder(key) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema": schema}))
    again = tiny.bench(tmp_path)
    assert tiny.outcomes(tiny.measured(again)) == tiny.OUTCOMES
    assert again.cost.backward > 0
    sentence = f"its schema {schema} is that of {age} version of pytest-prunerob; this one reads schema {SCHEMA} only"
    assert any(sentence in line for line in again.store.quarantined)
