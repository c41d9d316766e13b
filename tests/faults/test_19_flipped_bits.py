"""A bit flipped in any stored file is noticed: the file is set aside and reported, and the outcomes are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pytest_prunerob import cli
from pytest_prunerob.store import Store
from pytest_prunerob.store.files import kind_of
from tests.faults import tiny
from tests.plugin.conftest import CONFTEST, Suite

SUITE = """
@cells(method="global-magnitude", sparsity="0.50")
def test_it(pruned):
    assert pruned.robust_accuracy(P) >= 0.5
"""


def stored(root: Path) -> list[Path]:
    return [root / name for name in tiny.files(root) if "quarantine" not in name]


def flip(path: Path, place: int) -> bytes:
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1 << (place % 8)
    path.write_bytes(damaged)
    return bytes(damaged)


def restore(root: Path, intact: dict[str, bytes]) -> None:
    for path in stored(root):
        path.unlink()
    for name, content in intact.items():
        (root / name).write_bytes(content)


def test_19_a_bit_flipped_in_each_file_changes_no_verdict(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(re.sub(r"(?s)@pytest.fixture\ndef pruned_model.*", "", CONFTEST))
    store = pytester.path / ".prunerob"
    first = suite(SUITE)
    assert [verdict for _, verdict in first.verdicts] == ["supported"]
    intact = tiny.files(store)
    paths = stored(store)
    assert {kind_of(path.name) for path in paths} == {"manifest", "model", "segment", "witnesses"}
    manifests = [json.loads(path.read_bytes())["content"]["kind"] for path in paths if path.name == "manifest.json"]
    assert {"audit", "clean", "decide", "model"} <= set(manifests)
    for number, path in enumerate(paths):
        damaged = flip(path, (11 + 37 * number) % path.stat().st_size)
        again = suite(None)
        assert again.ret == 0
        assert again.verdicts == first.verdicts
        assert any(path.name[:20] in line for line in again.results["store"]["quarantined"]), path
        assert "store: not used, measured again:" in again.out
        assert damaged in [found.read_bytes() for found in (path.parent / "quarantine").iterdir()]
        # Whatever was damaged is there again, and intact.
        assert [kind_of(p.name) for p in stored(store)] == [kind_of(p.name) for p in paths]
        assert cli.main(["store", "verify", "--store", str(store)]) == 0
        restore(store, intact)


def test_19_a_bit_flipped_anywhere_in_a_measurement_changes_no_outcome(tmp_path: Path) -> None:
    for plan in (tiny.PLAN, tiny.NEAREST):
        tiny.measured(tiny.bench(tmp_path, engine=tiny.Scripted("cpu", 250, 0)), plan=plan)
    intact = tiny.files(tmp_path)
    expected = {
        plan: tiny.measured(tiny.bench(tmp_path, "ro", tiny.Scripted("cpu", 250, 0)), plan=plan).ledger.segments
        for plan in (tiny.PLAN, tiny.NEAREST)
    }
    for name, content in intact.items():
        for place in (len(content) // 3, len(content) - 2):
            flip(tmp_path / name, place)
            used = tiny.bench(tmp_path, engine=tiny.Scripted("cpu", 250, 0))
            for plan, segments in expected.items():
                found = tiny.measured(used, plan=plan).ledger.segments
                assert {unit: s.broken for unit, s in found.items()} == {u: s.broken for u, s in segments.items()}
                assert {unit: s.values for unit, s in found.items()} == {u: s.values for u, s in segments.items()}
                assert {unit: s.attacked for unit, s in found.items()} == {u: s.attacked for u, s in segments.items()}
            assert used.store.quarantined, (name, place)
            restore(tmp_path, intact)


def test_19_a_read_only_store_with_damage_answers_nothing_from_it(suite: Suite, pytester: pytest.Pytester) -> None:
    store = pytester.path / ".prunerob"
    suite(
        """
        @cells()
        def test_it(pruned):
            assert pruned.robust_accuracy(P) >= 0.5
        """
    )
    (segment,) = [p for p in store.rglob("seg-*") if json.loads(p.read_bytes())["witnesses"]]
    flip(segment, 20)
    before = tiny.files(store)
    run = suite(None, "--prunerob-store-mode=ro")
    assert run.ret == 1
    assert run.verdicts[0][1] == "error"
    assert "store-mode=ro measures nothing" in run.out
    assert any("not match its name" in line for line in run.results["store"]["quarantined"])
    assert tiny.files(store) == before


def test_19_every_byte_of_a_segment_counts(tmp_path: Path) -> None:
    used = tiny.bench(tmp_path, engine=tiny.Scripted("cpu", 250, 0))
    key = tiny.measured(used).ledger.key
    path = min(used.store.folder(key).glob("seg-*"))
    intact = path.read_bytes()
    others = {found.name for found in path.parent.glob("seg-*")} - {path.name}
    for place in range(len(intact)):
        flip(path, place)
        assert Store(tmp_path, "ro").segments(key, skip=others) == {}
        path.write_bytes(intact)
    assert list(Store(tmp_path, "ro").segments(key, skip=others)) == [path.name]
