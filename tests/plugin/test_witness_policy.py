"""``--prunerob-witness=keep|hash``: with "hash" no input is stored, and the results are used like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_prunerob.store import Store
from pytest_prunerob.store.inventory import keys

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
@cells()
def test_it(dense, pruned):
    assert pruned.robust_accuracy(P) <= 0.5
    assert dense.robust_accuracy(P) <= 0.75
"""


def witnesses(root: Path) -> dict[tuple[str, int], Any]:
    store = Store(root, "ro")
    return {(key, position): found for key in keys(root) for position, found in store.witnesses(key).items()}


def test_only_hashes_are_stored_and_they_count_like_inputs(suite: Suite, pytester: pytest.Pytester) -> None:
    kept = suite(SUITE)
    hashed = suite(None, "--prunerob-store=hashed", "--prunerob-witness=hash")
    assert hashed.verdicts == kept.verdicts
    assert hashed.results["options"]["witness"] == "hash"
    arrays, hashes = witnesses(pytester.path / ".prunerob"), witnesses(pytester.path / "hashed")
    assert len(hashes) == 30  # 20 of the pruned model, 10 of the dense one
    assert {name: (found.distance, found.sha256) for name, found in hashes.items()} == {
        name: (found.distance, found.sha256) for name, found in arrays.items()
    }
    assert all(found.array is not None for found in arrays.values())
    assert all(found.array is None for found in hashes.values())
    assert list((pytester.path / ".prunerob").rglob("wit-*.npy"))
    assert not list((pytester.path / "hashed").rglob("*.npy"))
    for policy in ("keep", "hash"):
        again = suite(None, "--prunerob-store=hashed", f"--prunerob-witness={policy}", "--prunerob-store-mode=ro")
        assert again.verdicts == kept.verdicts
        assert (again.results["store"]["misses"], again.results["cost"]["backward"]) == (0, 0)


def test_the_policy_is_no_part_of_the_key(suite: Suite, pytester: pytest.Pytester) -> None:
    suite(SUITE, "--prunerob-witness=hash")
    names = {json.loads(path.read_bytes())["key"] for path in pytester.path.rglob("manifest.json")}
    other = suite(None, "--prunerob-store=kept")
    assert other.ret == 0
    assert {json.loads(path.read_bytes())["key"] for path in (pytester.path / "kept").rglob("manifest.json")} == names


def test_another_policy_is_named(suite: Suite) -> None:
    run = suite(SUITE, "--prunerob-witness=hashes")
    assert "unknown value of --prunerob-witness 'hashes': allowed are hash, keep; did you mean 'hash'?" in run.all
