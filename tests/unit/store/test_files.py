from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import empty_ledger, segment_from_json
from pytest_prunerob.store import Store, files
from pytest_prunerob.store.store import manifest_content
from tests.unit.store.samples import DONE, content, filled, one

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


def test_only_plain_files_of_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path)
    manifest = one(tmp_path, DONE, "manifest.json")
    outside = tmp_path / "outside.json"
    outside.write_bytes(manifest.read_bytes())
    monkeypatch.setitem(files.LIMITS, "manifest", (files.LIMITS["manifest"][0], len(manifest.read_bytes()) - 1))
    with pytest.raises(StoreError, match=r"it has \d+ bytes, at most \d+ are read"):
        files.read(manifest, "manifest")
    manifest.unlink()
    manifest.symlink_to(outside)
    with pytest.raises(StoreError, match="it is a link: a store holds files"):
        files.read(manifest, "manifest")
    manifest.unlink()
    os.mkfifo(manifest)
    began = time.monotonic()
    with pytest.raises(StoreError, match="it is no plain file"):
        files.read(manifest, "manifest")
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(StoreError, match="it is no plain file"):
        files.read(manifest, "manifest")
    assert time.monotonic() - began < 60  # the pipe was not waited for
    assert store.manifest(DONE) is None
    assert "it is no plain file" in store.quarantined[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no JSON"),
        ('{"a": NaN}', "it is no JSON"),
        ('{"a": -Infinity}', "it is no JSON"),
        ('"\\ud800"', None),
        ("[" * 32 + "]" * 32, None),
        ("[" * 33 + "]" * 33, "nested deeper than 32 levels"),
        ('{"a":' * 33 + "1" + "}" * 33, "nested deeper than 32 levels"),
        ("[" * 100_000, "it is no JSON"),
        ("[" * 100_000 + "]" * 100_000, "it is no JSON|nested deeper"),
        ("1" * 5000, "it is no JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_is_flat_and_finite(text: str, why: str | None) -> None:
    if why is None:
        files.parse(text.encode("utf-8"))
        return
    with pytest.raises(StoreError, match=why):
        files.parse(text.encode())


def test_bytes_that_are_no_text_are_no_json() -> None:
    with pytest.raises(StoreError, match="it is no JSON"):
        files.parse(b'{"a": "\xff\xfe"}')


@given(st.one_of(JSON, st.fixed_dictionaries({}, optional={name: JSON for name in (
    "key", "unit", "attacked", "broken", "errors", "values", "cost", "witnesses"
)})))  # fmt: skip
def test_any_json_is_a_segment_or_a_store_error(data: object) -> None:
    with suppress(StoreError):
        segment_from_json(data, DONE)


SEGMENT = {
    "key": DONE,
    "unit": [0, 0],
    "attacked": [0, 1],
    "broken": [[0, 0.1]],
    "errors": [[1, "NaN"]],
    "values": [[0, "inf"]],
    "cost": {"forward": 1, "backward": 1, "seconds": 0.5},
    "witnesses": [{"file": f"wit-{'c' * 64}.npy", "samples": [[0, 0.1, "d" * 64]]}],
}


@given(st.sampled_from(sorted(SEGMENT)), JSON)
def test_a_segment_with_anything_in_one_place_is_one_or_a_store_error(name: str, value: object) -> None:
    try:
        found = segment_from_json({**SEGMENT, name: value}, DONE)
    except StoreError:
        return
    found.to_json()
    empty_ledger(DONE, content(DONE)["shape"]).misfit(found)


@given(JSON | st.fixed_dictionaries({}, optional={name: JSON for name in ("kind", "n", "size", "stages", "left_out")}))
def test_any_json_is_a_shape_or_a_store_error(data: object) -> None:
    try:
        made = empty_ledger(DONE, data)
    except StoreError:
        return
    assert made.n >= 0


@given(st.binary(max_size=200) | JSON.map(lambda data: json.dumps(data).encode()))
def test_any_bytes_are_a_manifest_or_a_store_error(payload: bytes) -> None:
    with pytest.raises(StoreError):
        manifest_content(payload, DONE)


def test_names_of_files_are_exact() -> None:
    digest = "0" * 64
    names = {
        "manifest.json": "manifest",
        f"seg-{digest}.json": "segment",
        f"wit-{digest}.npy": "witnesses",
        f"model-{digest}.safetensors": "model",
    }
    for name, kind in names.items():
        assert files.kind_of(name) == kind
        for other in (f"{name}\n", f"../{name}", f"{name}.1", name.upper(), name.replace(".", "x")):
            assert files.kind_of(other) is None


def test_what_is_written_is_synced_with_every_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), tmp_path))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    Store(tmp_path / "store").create(DONE, content(DONE))
    folder = Path("store/v1/ab") / DONE
    assert synced[:4] == [".", "store", "store/v1", "store/v1/ab"]
    assert synced[4].startswith(f"{folder}/.tmp-")
    assert synced[5:] == [str(folder)]
