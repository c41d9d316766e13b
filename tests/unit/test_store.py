from __future__ import annotations

import hashlib
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_prunerob.errors import StoreError, StoreMissError
from pytest_prunerob.ledger import Segment, WitnessSet, segment_from_json
from pytest_prunerob.store import MODES, SCHEMA, Mode, Store
from pytest_prunerob.store.witnesses import decoded

KEY, OTHER = "ab" + "0" * 62, "cd" + "0" * 62
CONTENT = {"kind": "decide", "probes": [[0.5, -1.25]]}
WITNESS = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2) / 8


def filled(root: Path) -> Store:
    store = Store(root)
    store.create(KEY, CONTENT)
    witnesses = (store.add_witnesses(KEY, [0, 2], [0.1, 0.2], WITNESS),)
    store.add(Segment(KEY, 0, 0, (0, 1, 2), {0: 0.1, 2: 0.2}, witnesses=witnesses))
    store.add(Segment(KEY, 0, 1, (3, 4)))
    return store


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def units(store: Store, key: str = KEY) -> list[tuple[int, int]]:
    return sorted((s.stage, s.micro_batch) for s in store.segments(key).values())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    filled(tmp_path)
    store = Store(tmp_path)
    assert store.manifest(KEY) == CONTENT
    assert units(store) == [(0, 0), (0, 1)]
    found = store.witnesses(KEY)
    assert [(position, witness.distance) for position, witness in found.items()] == [(0, 0.1), (2, 0.2)]
    assert np.array_equal(np.stack([found[0].array, found[2].array]), WITNESS)  # type: ignore[arg-type]
    assert found[2].sha256 == hashlib.sha256(WITNESS[1].tobytes()).hexdigest()
    assert store.segments(KEY, skip=set(store.segments(KEY))) == {}
    assert (store.manifest(OTHER), store.segments(OTHER), store.model(OTHER)) == (None, {}, None)
    assert sorted(name.split("/")[-1][:4] for name in files(tmp_path)) == ["mani", "seg-", "seg-", "wit-"]
    assert all(name.startswith(f"v1/ab/{KEY}/") for name in files(tmp_path))
    assert store.quarantined == []


@pytest.mark.parametrize("name", ["manifest", "seg-0", "seg-1", "wit-"])
@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_one_flipped_bit_anywhere_is_found_reported_and_never_used(tmp_path: Path, name: str, mode: Mode) -> None:
    filled(tmp_path)
    folder = tmp_path / "v1" / "ab" / KEY
    paths = {"manifest": folder / "manifest.json", "wit-": next(folder.glob("wit-*"))}
    segments = sorted(folder.glob("seg-*"), key=lambda p: json.loads(p.read_bytes())["unit"])
    victim = {**paths, "seg-0": segments[0], "seg-1": segments[1]}[name]
    intact = victim.read_bytes()
    for place in sorted({*range(0, len(intact), 29), 0, len(intact) - 1}):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << (place % 8)
        victim.write_bytes(damaged)
        store = Store(tmp_path, mode)
        content, found = store.manifest(KEY), units(store)
        if bytes(damaged).split() == intact.split():
            pass  # white space of the manifest: nothing was lost
        elif name == "manifest" and content == CONTENT:
            pytest.fail(f"the bit in byte {place} went unnoticed")
        assert content in (None, CONTENT)
        expected = {"manifest": [], "seg-0": [(0, 1)], "wit-": [(0, 1)], "seg-1": [(0, 0)]}[name]
        if name != "manifest":
            assert found == expected
            assert content == CONTENT
        elif mode == "rw":
            assert found == expected  # what lies beside a damaged manifest is set aside with it
        assert store.quarantined
        assert all("damaged" in line or "not match" in line or "witnesses" in line for line in store.quarantined)
        if mode == "rw":
            assert not victim.exists()
            assert bytes(damaged) in files(folder / "quarantine").values()
            for path in (folder / "quarantine").iterdir():
                os.replace(path, folder / path.name.removesuffix(".1"))
        victim.write_bytes(intact)


def test_a_segment_under_another_key_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path)
    source, target = store.folder(KEY), store.folder(OTHER)
    store.create(OTHER, CONTENT)
    for path in source.glob("*-*"):
        (target / path.name).write_bytes(path.read_bytes())
    assert store.segments(OTHER) == {}
    assert len([line for line in store.quarantined if f"the segment belongs to '{KEY}'" in line]) == 2
    (source / "manifest.json").replace(target / "manifest.json")
    assert Store(tmp_path).manifest(OTHER) is None


def test_nothing_is_unpickled_and_no_name_leads_out(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (name,) = (name for name, segment in store.segments(KEY).items() if segment.witnesses)
    data = json.loads((store.folder(KEY) / name).read_bytes())
    data["witnesses"][0]["file"] = f"../{OTHER}/wit-{'0' * 64}.npy"
    with pytest.raises(StoreError, match="is no file of witnesses"):
        segment_from_json(data, KEY)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="no array of floating numbers"):
        decoded(pickled.getvalue(), WitnessSet((0, 2), (0.1, 0.2), ("", "")))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        store.add_witnesses(KEY, [0], [0.1], np.array([{}], dtype=object))


def test_read_only_writes_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    before = files(tmp_path)
    store = Store(tmp_path, "ro")
    store.check_writable()
    assert store.manifest(KEY) == CONTENT
    assert units(store) == [(0, 0), (0, 1)]
    for write in (
        lambda: store.create(OTHER, CONTENT),
        lambda: store.add(Segment(OTHER, 0, 0, ())),
        lambda: store.add_witnesses(OTHER, [0, 1], [0.1, 0.1], WITNESS),
        lambda: store.add_model(OTHER, {"w": torch.zeros(1)}, {}),
    ):
        with pytest.raises(StoreMissError, match="store-mode=ro measures nothing: run the same command with"):
            write()
    store.set_aside(KEY, "probes")
    with store.lock(KEY, "0-0"):
        pass
    assert files(tmp_path) == before
    assert store.quarantined
    Store(tmp_path / "none", "ro").check_writable()
    assert not (tmp_path / "none").exists()


def test_refresh_sets_older_entries_aside_and_keeps_those_of_the_run(tmp_path: Path) -> None:
    before = files(filled(tmp_path).root)
    store = Store(tmp_path, "refresh", started=time.time() + 3600)
    assert store.manifest(KEY) is None
    assert store.segments(KEY) == {}
    shelter = store.folder(KEY) / "quarantine"
    assert sorted(files(shelter).values()) == sorted(before.values())
    started = time.time() - 3600
    again = Store(tmp_path, "refresh", started=started)
    again.create(KEY, CONTENT)
    assert again.manifest(KEY) == CONTENT
    # A second refresh overwrites nothing of what the first one set aside.
    assert Store(tmp_path, "refresh", started=time.time() + 3600).manifest(KEY) is None
    assert sorted(path.name for path in shelter.glob("manifest*")) == ["manifest.json", "manifest.json.1"]


def test_setting_aside_leaves_what_another_worker_is_writing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (store.folder(KEY) / ".tmp-other").write_bytes(b"half")
    with store.lock(KEY, "0-0"):
        store.set_aside(KEY, "probes")
    assert sorted(p.name for p in store.folder(KEY).iterdir() if p.is_file()) == [".tmp-other", "0-0.lock"]


def test_segments_without_their_manifest_are_set_aside(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (store.folder(KEY) / "manifest.json").unlink()
    assert not store.holds(KEY)
    assert store.manifest(KEY) is None
    assert store.segments(KEY) == {}
    assert [line.split(": ", 1)[1] for line in store.quarantined] == ["the manifest is missing"] * 3
    assert Store(tmp_path).manifest(KEY) is None
    store.create(KEY, CONTENT)
    assert store.holds(KEY)


def test_other_schemas_are_named_and_other_names_are_not(tmp_path: Path) -> None:
    for name in ("v0", f"v{SCHEMA}", "v12", "v1x", "video", "v"):
        (tmp_path / name).mkdir()
    (tmp_path / "v3").write_text("a file")
    store = Store(tmp_path)
    assert store.other_versions() == [
        "v0: results in schema 0, which is that of an older version of pytest-prunerob; this one reads schema 1 only",
        "v12: results in schema 12, which is that of a newer version of pytest-prunerob; this one reads schema 1 only",
    ]
    for mode in MODES:
        opened = Store(tmp_path, mode)
        opened.check_writable()
        assert opened.quarantined == store.other_versions()
    assert Store(tmp_path / "none").other_versions() == []


def test_the_first_published_model_wins(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.add_model(KEY, {"w": torch.tensor([1.0]).expand(3)}, {"recipe": "a"})
    second.add_model(KEY, {"w": torch.tensor([2.0])}, {"recipe": "a"})
    for store in (first, second, Store(tmp_path)):
        found = store.model(KEY)
        assert found is not None
        assert torch.equal(found[0]["w"], torch.ones(3))
        assert found[1]["recipe"] == "a"
    (published,) = [p for p in first.folder(KEY).glob("model-*") if p.name == found[1]["model"]]
    published.write_bytes(published.read_bytes()[:-1] + b"\x00")
    store = Store(tmp_path)
    assert store.model(KEY) is None
    assert "the model is damaged" in store.quarantined[0]
    store.add_model(KEY, {"w": torch.tensor([3.0])}, {})
    assert (again := store.model(KEY)) is not None
    assert again[0]["w"].tolist() == [3.0]


def test_a_failed_write_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, segment = filled(tmp_path), Segment(KEY, 1, 0, (1,))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # Renaming fails: where the segment belongs there is a directory.
    (tmp_path / "twin").mkdir()
    twin = Store(tmp_path / "twin")
    twin.add(segment)
    (place,) = twin.folder(KEY).iterdir()
    (store.folder(KEY) / place.name).mkdir()
    before = files(tmp_path)
    with pytest.raises(StoreError, match=r"cannot write .*: Is a directory"):
        store.add(segment)
    assert files(tmp_path) == before
    for name in ("link", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(StoreError, match=r"cannot write .*: No space left on device"):
                store.create(OTHER, CONTENT)
        assert files(tmp_path) == before
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(StoreError, match=r"cannot set .* aside: No space left on device"):
            store.set_aside(KEY, "probes")
    assert files(tmp_path) == before


def test_disk_errors_are_store_errors(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    store = Store(file)
    for write in (
        store.check_writable,
        lambda: store.create(KEY, CONTENT),
        lambda: store.add(Segment(KEY, 0, 0, ())),
        lambda: store.add_witnesses(KEY, [0, 1], [0.1, 0.1], WITNESS),
        lambda: store.add_model(KEY, {}, {}),
        lambda: store.lock(KEY, "x").__enter__(),
    ):
        with pytest.raises(StoreError, match=r"Not a directory|File exists"):
            write()
