from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.commands.diff import Difference, Pair, difference
from pytest_prunerob.ledger import Ledger, Segment
from pytest_prunerob.statistics import paired_lower_bound
from pytest_prunerob.store import Store
from tests.unit.commands.conftest import CONTROL, PAIRED, Command, Write, entry


@pytest.fixture
def new(results: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(results)


def test_two_equal_runs(results: dict[str, Any], write: Write, prunerob: Command) -> None:
    path = write("results.json", results)
    assert prunerob("diff", path, path) == (0, "nothing changed\n", "")


def test_a_supported_claim_that_no_longer_is(
    results: dict[str, Any], new: dict[str, Any], write: Write, prunerob: Command
) -> None:
    entry(new["claims"], PAIRED).update(verdict="inconclusive", reason="outputs are probabilities")
    entry(new["claims"], CONTROL).update(verdict="supported")
    code, out, _ = prunerob("diff", write("old.json", results), write("new.json", new))
    assert code == 1
    assert out == (
        "1 claim no longer supported:\n"
        f"  ✗ {PAIRED}: inconclusive: outputs are probabilities\n"
        "other verdicts:\n"
        f"  {CONTROL}: refuted → supported\n"
    )


@pytest.mark.parametrize("missing", [True, False])
def test_a_supported_claim_that_is_gone_or_says_less(
    results: dict[str, Any], new: dict[str, Any], missing: bool
) -> None:
    if missing:
        new["claims"].remove(entry(new["claims"], PAIRED))
    else:
        entry(new["claims"], PAIRED)["text"] = "pruned.accuracy() >= 0"
    found = difference(results, new)
    assert found.lost == {PAIRED: "it is not there" if missing else "it claims 'pruned.accuracy() >= 0' instead"}
    assert list(found.removed) == [PAIRED] * missing


def test_claims_that_were_not_supported_may_change(
    results: dict[str, Any], new: dict[str, Any], write: Write, prunerob: Command
) -> None:
    new["claims"].remove(entry(new["claims"], CONTROL))
    entry(new["cells"], CONTROL.rpartition("#")[0])["claims"].clear()
    entry(results["claims"], PAIRED)["verdict"] = "inconclusive"
    entry(new["claims"], PAIRED)["n"] = 100
    code, out, _ = prunerob("diff", write("old.json", results), write("new.json", new), "--json")
    assert code == 0
    found = json.loads(out)
    assert found["verdicts"] == {PAIRED: ["inconclusive", "supported"]}
    assert found["samples"] == {PAIRED: [200, 100]}
    assert found["removed"] == {CONTROL: "refuted"}
    assert difference(new, results).added == {CONTROL: "refuted"}


def test_numbers_come_with_their_intervals(
    results: dict[str, Any], new: dict[str, Any], write: Write, prunerob: Command
) -> None:
    first, second = entry(new["claims"], PAIRED)["terms"]
    first.update(low=0.6, high=0.6, value=0.6, interval={"low": 0.52, "high": 0.67, "confidence": 0.95})
    second.update(low=0.6, high=0.7, value=None, interval=None)
    code, out, _ = prunerob("diff", write("old.json", results), write("new.json", new))
    assert code == 0
    old = entry(results["claims"], PAIRED)["terms"][0]["interval"]
    assert f"  {PAIRED}: {first['text']}\n" in out
    assert f"    0.65 [{old['low']:.4f}, {old['high']:.4f}] → 0.6 [0.5200, 0.6700]\n" in out
    assert "→ 0.6 to 0.7\n" in out


def test_what_surrounds_the_run(results: dict[str, Any], new: dict[str, Any], write: Write, prunerob: Command) -> None:
    new["environment"]["packages"]["torch"] = "2.11.0"
    del new["environment"]["packages"]["foolbox"]
    new["environment"]["precision"]["tf32"] = True
    new["environment"]["device"] = "cuda"
    new["environment"]["git"]["revision"] = "0123456"
    new["options"].update(confidence=0.9, report="elsewhere.html")
    found = difference(results, new)
    assert found.environment == {
        "device": ("cpu", "cuda"),
        "package foolbox": ("3.3.4", None),
        "package torch": ("2.10.0", "2.11.0"),
        "precision tf32": (False, True),
        "git revision": (results["environment"]["git"]["revision"], "0123456"),
        "option confidence": (0.95, 0.9),
    }
    assert difference(results, results) == Difference()
    code, out, _ = prunerob("diff", write("old.json", results), write("new.json", new))
    assert code == 0
    assert "environment:\n  device: cpu → cuda\n" in out
    assert "  package foolbox: 3.3.4 → none\n" in out


def _stored(store: Store, key: str, broken: set[int], *, data: str = "d1", done: int = 2, errors: bool = False) -> None:
    """A measurement of 20 samples in two micro-batches; sample 19 is a clean error."""
    ledger = Ledger(key, "returned", 20, 10, ("pgd",), frozenset(range(20)))
    store.create(key, {"kind": "returned", "dataset": data, "shape": ledger.shape()})
    for number in range(done):
        positions = tuple(ledger.positions(number))
        hit = {position: 0.1 for position in positions if position in broken}
        store.add(Segment(key, 0, number, positions, hit, {5: "not finite"} if errors and number == 0 else {}))


@pytest.fixture
def paired(results: dict[str, Any], new: dict[str, Any], tmp_path: Path) -> tuple[Store, str, str]:
    term = entry(new["claims"], PAIRED)["terms"][0]
    old_key = term["measurement"]
    new_key = "ab" * 32
    new["measurements"][new_key] = {**new["measurements"][old_key], "key": new_key}
    term.update(measurement=new_key, low=0.6, high=0.6, value=0.6)
    return Store(tmp_path / "store"), old_key, new_key


def test_ledgers_compare_sample_by_sample(
    results: dict[str, Any],
    new: dict[str, Any],
    paired: tuple[Store, str, str],
    write: Write,
    prunerob: Command,
) -> None:
    store, old_key, new_key = paired
    _stored(store, old_key, {0, 1, 2, 12})
    _stored(store, new_key, {2, 3, 4, 5, 6, 12, 13})
    pair = Pair(20, 2, 5, paired_lower_bound(2, 5, 20, 0.975), -paired_lower_bound(5, 2, 20, 0.975), 0.95)
    (number,) = difference(results, new, store).numbers
    assert number.pair == pair
    assert pair.low < -3 / 20 < pair.high
    files = write("old.json", results), write("new.json", new)
    out = prunerob("diff", *files, "--store", store.root)[1]
    assert f"2 gained, 5 lost of 20; new − old in [{pair.low:+.4f}, {pair.high:+.4f}] at 95%" in out
    assert "sample by sample" not in prunerob("diff", *files)[1]


@pytest.mark.parametrize("how", [{"data": "d2"}, {"done": 1}, {"errors": True}])
def test_ledgers_that_cannot_be_compared_are_not(
    results: dict[str, Any], new: dict[str, Any], paired: tuple[Store, str, str], how: dict[str, Any]
) -> None:
    store, old_key, new_key = paired
    _stored(store, old_key, {0, 1, 2, 12})
    _stored(store, new_key, {2, 3, 4, 13}, **how)
    (number,) = difference(results, new, store).numbers
    assert number.pair is None
