from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_prunerob.errors import StoreError
from pytest_prunerob.store import Store
from pytest_prunerob.store.inventory import LEFT_BEHIND, check, delete, entries, keys, prunable
from tests.unit.store.samples import DONE, MODEL, STARTED, WITNESSES, content, files, filled, one

NOW = time.time()
LATER = NOW + 1e6


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (NOW - seconds, NOW - seconds))


def test_entries_say_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    found = {entry.key: entry for entry in entries(filled(tmp_path, "ro"))}
    assert list(found) == [DONE, STARTED, MODEL] == keys(tmp_path)
    done, started, model = found.values()
    assert (done.kind, done.subject, done.samples) == ("decide", "pruned 555555555555", 4)
    assert done.plan == "pgd 2 steps, linf, ε=0.1"
    assert (done.state, done.complete) == ("complete", True)
    assert (started.state, started.complete) == ("1/2", False)
    assert (model.kind, model.subject, model.plan) == ("model", "cnn, pgd training, seed 3", "")
    assert (model.samples, model.state) == (None, "complete")
    folder = tmp_path / "v1" / "ab" / DONE
    assert done.size == sum(path.stat().st_size for path in folder.iterdir())
    assert done.written == max(path.stat().st_mtime for path in folder.iterdir())


def test_an_entry_counts_only_what_fits_it(tmp_path: Path) -> None:
    store = filled(tmp_path, "ro")
    second = max(store.folder(DONE).glob("seg-*"), key=lambda path: json.loads(path.read_bytes())["unit"])
    payload = second.read_bytes()
    second.write_bytes(payload[:-1])
    assert entries(store)[0].state == "1/2"
    second.unlink()
    assert entries(store)[0].state == "1/2"
    one(tmp_path, STARTED, "manifest.json").write_bytes(b"{")
    damaged = entries(store)[1]
    assert (damaged.state, damaged.complete, damaged.kind) == ("damaged", False, "?")
    assert store.quarantined == []


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store '.*none'"):
        entries(Store(tmp_path / "none", "ro"))
    assert entries(Store(tmp_path, "ro")) == []


@pytest.mark.parametrize("pattern", ["manifest.json", "seg-*", "wit-*", "model-*"])
def test_check_hashes_every_file_and_moves_nothing_unasked(pattern: str, tmp_path: Path) -> None:
    filled(tmp_path)
    intact = Store(tmp_path, "ro")
    assert check(intact) == len(files(tmp_path)) == 9
    assert intact.quarantined == []
    key = MODEL if pattern.startswith("model") else DONE
    path = one(tmp_path, key, pattern)
    path.write_bytes(path.read_bytes()[:-2] + b"!}")
    before = files(tmp_path)
    store = Store(tmp_path, "ro")
    check(store)
    assert any(line.startswith(f"{key[:12]}/{path.name[:20]}: ") for line in store.quarantined)
    assert files(tmp_path) == before
    store = Store(tmp_path, "rw")
    check(store)
    assert not path.exists()
    assert any("quarantine" in name for name in files(tmp_path))
    assert check(Store(tmp_path, "ro")) < 9
    again = Store(tmp_path, "ro")
    check(again)
    assert again.quarantined == []


def test_check_looks_at_what_nothing_names(tmp_path: Path) -> None:
    store = filled(tmp_path, "ro")
    (store.folder(DONE) / "notes.txt").write_text("mine")
    (store.folder(DONE) / f"wit-{'0' * 64}.npy").write_bytes(b"")
    (store.folder(DONE) / ".tmp-killed").write_bytes(b"half")
    (store.folder(DONE) / "0-0.lock").touch()
    lost = "99" + "0" * 62
    Store(tmp_path).add_witnesses(lost, [0], [0.1], WITNESSES[:1])
    path = one(tmp_path, lost, "wit-*")
    path.write_bytes(b"damaged")
    check(store)
    assert [line.split(": ", 1)[1] for line in store.quarantined] == [
        "its content does not match its name",
        "it is no file of a store",
        "its content does not match its name",
    ]


def test_check_compares_segments_with_their_measurement(tmp_path: Path) -> None:
    filled(tmp_path)
    store = Store(tmp_path, "ro")
    path = one(tmp_path, DONE, "manifest.json")
    path.unlink()
    Store(tmp_path).create(DONE, content(DONE, shape={**content(DONE)["shape"], "size": 1}))
    check(store)
    assert [line.split(": ", 1)[1] for line in store.quarantined] == [
        "sample 1 is not of micro-batch 0",
        "sample 3 is not of micro-batch 1",
    ]
    path.unlink()
    Store(tmp_path).create(DONE, content(DONE, shape={"kind": "decide"}))
    check(store)
    assert any("no measurement: KeyError('n')" in line for line in store.quarantined)


def whys(store: Store, **chosen: object) -> list[str]:
    return [what.why.split(": ", 1)[1] for what in prunable(store, NOW, **chosen)]  # type: ignore[arg-type]


def test_what_is_old_is_prunable(tmp_path: Path) -> None:
    store = filled(tmp_path, "ro")
    assert whys(store, older_than=3600.0) == []
    for path in store.folder(DONE).iterdir():
        aged(path, 3 * 86400)
    assert whys(store, older_than=2 * 86400.0) == ["3 days old"]
    aged(one(tmp_path, DONE, "seg-*"), 60)  # of an entry that is still being written to
    assert whys(store, older_than=2 * 86400.0) == []


def test_what_is_unfinished_is_prunable(tmp_path: Path) -> None:
    store = filled(tmp_path, "ro")
    assert whys(store) == []
    assert whys(store, incomplete=True) == ["1/2"]
    (store.folder(DONE) / ".tmp-killed").write_bytes(b"half")
    assert whys(store, incomplete=True) == ["1/2"]  # it may be another worker's
    aged(store.folder(DONE) / ".tmp-killed", LEFT_BEHIND + 60)
    assert whys(store, incomplete=True) == ["1 files of a killed run", "1/2"]
    for what in prunable(store, NOW, incomplete=True):
        delete(what)
    assert keys(tmp_path) == [DONE, MODEL]
    assert not (tmp_path / "v1" / "cd").exists()
    assert check(store) == 6
    assert store.quarantined == []


def test_quarantine_and_other_schemas_are_prunable(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert whys(store, quarantine=True, other_versions=True) == []
    store.refuse(DONE, one(tmp_path, DONE, "seg-*").name, "test")
    (tmp_path / "v0" / "ab").mkdir(parents=True)
    (tmp_path / "v0" / "ab" / "old").write_bytes(b"12345")
    (tmp_path / "vacation").mkdir()
    (tmp_path / "notes").mkdir()
    found = prunable(store, NOW, quarantine=True, other_versions=True)
    assert [what.why.split(": ", 1)[1] for what in found] == ["quarantine", "results in another schema"]
    assert found[1].size == 5
    for what in found:
        delete(what)
    assert not list(tmp_path.rglob("quarantine"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "v1", "vacation"]
    assert keys(tmp_path) == [DONE, STARTED, MODEL]


def test_deleting_can_be_cut_short_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "store", "ro")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (store.folder(DONE) / "link").symlink_to(outside)
    (what, *_) = prunable(store, LATER, older_than=0.0)
    names = [path.name for path in what.paths]
    assert [name[:4] for name in names] == ["seg-", "seg-", "mani", "link", "wit-"]
    for cut in range(4):
        store = filled(tmp_path / str(cut), "ro")
        (what, *_) = prunable(store, LATER, older_than=0.0)
        for path in what.paths[:cut]:
            path.unlink()
        check(store)
        assert store.quarantined == []
    delete(prunable(Store(tmp_path / "store", "ro"), LATER, older_than=0.0)[0])
    assert (outside / "mine").read_text() == "mine"

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "not permitted", path.name)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(StoreError, match=r"cannot delete 'wit-.*': not permitted"):
        delete(prunable(store, LATER, older_than=0.0)[0])


def test_looking_into_a_store_loads_no_torch(tmp_path: Path) -> None:
    filled(tmp_path)
    script = (
        "import sys; from pytest_prunerob import cli\n"
        f"assert cli.main(['store', 'list', '--store', {str(tmp_path)!r}]) == 0\n"
        f"assert cli.main(['store', 'verify', '--store', {str(tmp_path)!r}]) == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'scipy', 'sklearn', 'foolbox'}))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
    assert done.stderr == ""
