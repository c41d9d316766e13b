from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import Segment
from pytest_prunerob.store import Store
from pytest_prunerob.store import files as names
from pytest_prunerob.store.inventory import check, entries
from pytest_prunerob.store.transfer import conflict, transfer
from tests.unit.store.samples import DONE, MODEL, STARTED, WITNESSES, content, files, filled, one


def test_a_copy_is_the_same_and_a_second_one_copies_nothing(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    (source.folder(DONE) / ".tmp-half").write_bytes(b"half")
    (source.folder(DONE) / "0-0.lock").touch()
    source.refuse(STARTED, "nothing", "test")
    before = {name: payload for name, payload in files(source.root).items() if "-0.lock" not in name}
    del before[f"v1/ab/{DONE}/.tmp-half"]
    target = Store(tmp_path / "target")
    done = transfer(source.root, target)
    assert (done.files, done.present, done.refused) == (9, 0, [])
    assert files(target.root) == before
    assert done.bytes == sum(map(len, before.values()))
    again = transfer(source.root, target)
    assert (again.files, again.present, again.refused) == (0, 9, [])
    assert (check(Store(target.root, "ro")), target.quarantined) == (9, [])


def test_two_stores_are_united(tmp_path: Path) -> None:
    first, second = filled(tmp_path / "first"), Store(tmp_path / "second")
    second.create(STARTED, content(STARTED, provenance={"device": "cuda"}))
    more = second.add_witnesses(STARTED, [1], [0.05], WITNESSES[:1])
    second.add(Segment(STARTED, 0, 0, (0, 1, 2), {1: 0.05}, witnesses=(more,)))
    second.add(Segment(STARTED, 0, 1, (3,)))
    assert entries(first)[1].state == "1/2"
    done = transfer(second.root, first)
    assert (done.files, done.present, done.refused) == (3, 1, [])
    assert entries(first)[1].state == "complete"
    assert {p: w.distance for p, w in first.witnesses(STARTED).items()} == {0: 0.1, 1: 0.05, 2: 0.2}
    assert first.manifest(STARTED) == content(STARTED)  # the first one stays


def damaged(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)


@pytest.mark.parametrize("pattern", ["manifest.json", "seg-*", "wit-*", "model-*"])
def test_nothing_damaged_is_taken(pattern: str, tmp_path: Path) -> None:
    source, target = filled(tmp_path / "source"), Store(tmp_path / "target")
    key = MODEL if pattern.startswith("model") else STARTED
    path = one(source.root, key, pattern)
    damaged(path)
    before = files(source.root)
    done = transfer(source.root, target)
    assert len(done.refused) == 1
    assert key[:12] in done.refused[0]
    assert files(source.root) == before  # the source is left as it is
    assert (check(Store(target.root, "ro")), Store(target.root, "ro").quarantined) == (done.files, [])
    if pattern in ("manifest.json", "model-*"):
        assert "nothing of it was taken" in done.refused[0]
        assert not target.folder(key).exists()
    else:
        assert target.segments(key) == {}
        assert target.witnesses(DONE)


def test_a_damaged_file_of_the_target_is_replaced(tmp_path: Path) -> None:
    source, target = filled(tmp_path / "source"), filled(tmp_path / "target")
    for pattern in ("seg-*", "wit-*"):
        damaged(one(target.root, STARTED, pattern))
    done = transfer(source.root, target)
    assert done.refused == []
    assert len(target.quarantined) == 2
    assert target.witnesses(STARTED).keys() == {0, 2}
    assert len([name for name in files(target.root) if "quarantine" in name]) == 2


def test_what_lies_outside_is_never_reached(tmp_path: Path) -> None:
    source, target = filled(tmp_path / "source"), Store(tmp_path / "target")
    outside = filled(tmp_path / "outside")
    # A link in the place of a file, of a key's directory, of a shelf; and a name that leads out.
    segment = one(source.root, DONE, "seg-*")
    segment.rename(tmp_path / segment.name)
    segment.symlink_to(tmp_path / segment.name)
    other = "cd" + "1" * 62
    (source.root / "v1" / "cd" / other).symlink_to(outside.folder(STARTED))
    (source.root / "v1" / "99").symlink_to(outside.root / "v1" / "ab")
    (source.root / "v1" / "ef" / "notakey").mkdir()
    (source.root / "v1" / "file").write_text("")
    (source.folder(DONE) / "notes.txt").write_text("")
    os.mkfifo(source.folder(DONE) / f"seg-{'0' * 64}.json")
    manifest = one(source.root, MODEL, "manifest.json")
    data = json.loads(manifest.read_bytes())
    data["content"]["model"] = f"../{DONE}/{one(source.root, DONE, 'wit-*').name}"
    data["sha256"] = names.sha256(names.canonical(data["content"]))
    manifest.write_text(json.dumps(data))
    done = transfer(source.root, target)
    told = sorted(line.rsplit(": ", 1)[-1] for line in done.refused)
    assert told == [
        "a store holds files",
        "a store holds files",
        "a store holds files",
        "it is no directory",
        "it is no file of a store",
        "it is no plain file",
        "its name is no key",
        "the manifest names no model",
    ]
    assert sorted(entry.key for entry in entries(target)) == [DONE, STARTED]
    assert all(path.is_file() and not path.is_symlink() for path in target.root.rglob("*-*"))


def test_oversized_and_deep_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled(tmp_path / "source"), Store(tmp_path / "target")
    deep = b"[" * 40 + b"]" * 40
    (source.folder(DONE) / names.named("segment", deep)).write_bytes(deep)
    size = len(one(source.root, MODEL, "model-*").read_bytes())
    monkeypatch.setitem(names.LIMITS, "model", (names.LIMITS["model"][0], size - 1))
    done = transfer(source.root, target)
    assert sorted(line.split(": ", 1)[1] for line in done.refused) == [
        "its JSON is nested deeper than 32 levels",
        f"nothing of it was taken: it has {size} bytes, at most {size - 1} are read",
    ]


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    source, target = Store(tmp_path / "source"), Store(tmp_path / "target")
    payload = b"no tensors"
    names.write(source.folder(MODEL) / names.named("model", payload), payload)
    source.create(MODEL, {"kind": "model", "model": names.named("model", payload)})
    assert "the model cannot be read" in transfer(source.root, target).refused[0]
    assert files(tmp_path / "target") == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"subject": "6" * 64}, "'subject' differs"),
        ({"seed": 1}, "'seed' differs"),
        ({"probes": [[0.5, -1.2]]}, "the probe logits differ by 0.05"),
        ({"probes": [[0.5]]}, "the probe logits have another shape"),
        ({"probes": [["nan", "x"]]}, "the probe logits have another shape"),
        ({"probes": None}, "the probe logits have another shape"),
        ({"probes": [["nan", -1.25]]}, "the probe logits differ by nan"),
        ({"probes": [[0.50001, -1.25]]}, ""),
        ({"provenance": {"device": "cuda"}}, ""),
    ],
)
def test_two_manifests_of_one_key_must_agree(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert conflict(content(DONE), content(DONE, **change)).endswith(why)
    assert bool(conflict(content(DONE), content(DONE, **change))) == bool(why)
    source, target = Store(tmp_path / "source"), filled(tmp_path / "target")
    source.create(DONE, content(DONE, **change))
    source.add(Segment(DONE, 0, 1, (3,), {}, {3: "NaN"}))
    before = files(target.root)
    done = transfer(source.root, target)
    if why:
        assert [line.split("nothing of it was taken: ")[1] for line in done.refused] == [
            f"the store holds another one, which stays: {why}"
        ]
        assert files(target.root) == before
    else:
        assert (done.refused, done.files) == ([], 1)


def test_another_model_of_the_same_recipe_is_a_conflict(tmp_path: Path) -> None:
    source, target = Store(tmp_path / "source"), filled(tmp_path / "target")
    source.add_model(
        MODEL, {"w": torch.zeros(3)}, {"kind": "model", "network": "cnn", "training": {"name": "pgd"}, "seed": 3}
    )
    done = transfer(source.root, target)
    assert "the store holds another one, which stays: 'model' differs" in done.refused[0]
    found = target.model(MODEL)
    assert found is not None
    assert found[0]["w"].tolist() == [1.0, 1.0, 1.0]


def test_the_source_must_be_a_store_of_this_schema(tmp_path: Path) -> None:
    target = Store(tmp_path / "target")
    with pytest.raises(StoreError, match=r"there is no store '.*none'"):
        transfer(tmp_path / "none", target)
    with pytest.raises(StoreError, match="is no store: it has no directory v1"):
        transfer(tmp_path, target)
    filled(tmp_path / "old")
    (tmp_path / "old" / "v1").rename(tmp_path / "old" / "v0")
    done = transfer(tmp_path / "old", target)
    assert done.files == 0
    assert "v0: results in schema 0" in done.refused[0]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "v1").symlink_to(filled(tmp_path / "real").root / "v1")
    with pytest.raises(StoreError, match="is no store"):
        transfer(tmp_path / "linked", target)


def test_a_full_disk_ends_the_copy_and_a_second_one_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = filled(tmp_path / "source")
    real = os.write
    for limit in range(9):
        target = Store(tmp_path / str(limit))
        with monkeypatch.context() as patch:
            count = iter(range(limit))

            def write(handle: int, payload: bytes, count: Any = count) -> int:
                if next(count, None) is None:
                    raise OSError(28, "No space left on device")
                return real(handle, payload)

            patch.setattr(os, "write", write)
            with pytest.raises(StoreError, match="No space left on device"):
                transfer(source.root, target)
        store = Store(target.root, "ro")
        assert len(files(target.root)) == limit
        if limit:
            check(store)
        assert store.quarantined == []
        assert transfer(source.root, target).refused == []
        assert files(target.root) == files(source.root)
    assert np.array_equal(WITNESSES[0], target.witnesses(DONE)[0].array)  # type: ignore[arg-type]
