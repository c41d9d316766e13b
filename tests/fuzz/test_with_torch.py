"""Untrusted files: stores, checkpoints and datasets end in our errors or in what they say, and nothing in them runs."""

from __future__ import annotations

import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from pytest_prunerob.checkpoints import load_reference, read_state
from pytest_prunerob.datasets import load
from pytest_prunerob.errors import DatasetError, ModelError, StoreError
from pytest_prunerob.ledger import Ledger, Segment, WitnessSet
from pytest_prunerob.store import Store, files, inventory
from pytest_prunerob.store.transfer import transfer
from pytest_prunerob.store.witnesses import digest, encoded
from tests.fuzz.mutations import altered, edited
from tests.fuzz.targets import attempt

SHARED_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # each example makes its own files
KEY = "ab" + "0" * 62
WITNESS = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2) / 8
ARRAY = encoded(WITNESS)
LEDGER = Ledger(KEY, "decide", 5, 3, ("apgd-ce", "square"), frozenset(range(4)))
FOUND = WitnessSet((0, 2), (0.1, 0.2), tuple(map(digest, WITNESS)), files.named("witnesses", ARRAY))
SEGMENT = Segment(KEY, 0, 0, (0, 1, 2), {0: 0.1, 2: 0.2}, {1: "nan"}, {1: 3.0}, witnesses=(FOUND,)).to_json()
CONTENT = {
    "kind": "decide",
    "probes": [[0.5, -1.25]],
    "shape": LEDGER.shape(),
    "provenance": {"plan": "p", "role": "r"},
}
TENSORS = save({"weight": torch.ones(2, 3), "bias": torch.zeros(2, dtype=torch.float16)})
MODEL = {"kind": "model", "network": "cnn", "training": {"name": "pgd"}, "seed": 0}


def store(root: Path, manifest: bytes, *others: tuple[str, bytes]) -> None:
    """A store with one entry; the other files get the names that their content asks for."""
    shutil.rmtree(root, ignore_errors=True)
    folder = root / f"v{files.SCHEMA}" / KEY[:2] / KEY
    folder.mkdir(parents=True)
    (folder / files.MANIFEST).write_bytes(manifest)
    for kind, payload in others:
        (folder / files.named(kind, payload)).write_bytes(payload)


def manifest(content: Any) -> bytes:
    """A manifest whose checksum is right: whoever forges one can hash."""
    text = json.dumps(content, sort_keys=True).encode()
    return json.dumps({"schema": 1, "key": KEY, "sha256": files.sha256(text), "content": content}).encode()


def read_all(root: Path) -> None:
    """Everything that reads a store, first without writing to it."""
    for mode in ("ro", "rw"):
        for read_one in (
            lambda s: s.manifest(KEY),
            lambda s: s.segments(KEY),
            lambda s: s.witnesses(KEY),
            lambda s: s.model(KEY),
            inventory.entries,
            inventory.check,
        ):
            attempt(StoreError, read_one, Store(root, mode))  # type: ignore[arg-type]


def joined(segments: dict[str, Segment]) -> None:
    """What a measurement does with the segments of the store."""
    ledger = Ledger(KEY, "decide", 5, 3, ("apgd-ce", "square"), frozenset(range(4)))
    for segment in segments.values():
        if not ledger.misfit(segment):
            ledger.add(segment)
    for micro_batch in range(ledger.micro_batches):
        ledger.todo(micro_batch)
    assert ledger.survived | ledger.broken | set(ledger.errors) <= set(range(5))


BYTES = (b"{", b"[", b'"', b"9" * 5000, b"1e999", b"NaN", b"[" * 5000, b"\xff", b"\\ud800", b"-1", b"true", b"null")


@settings(max_examples=60, suppress_health_check=SHARED_FOLDER)
@given(altered(CONTENT).map(manifest) | edited(manifest(CONTENT), BYTES))
def test_manifests(tmp_path: Path, payload: bytes) -> None:
    segment = json.dumps(SEGMENT).encode()
    store(tmp_path / "s", payload, ("segment", segment), ("witnesses", ARRAY))
    attempt(StoreError, transfer, tmp_path / "s", Store(tmp_path / "t"))
    read_all(tmp_path / "s")
    shutil.rmtree(tmp_path / "t", ignore_errors=True)


@settings(max_examples=100, suppress_health_check=SHARED_FOLDER)
@given(altered(SEGMENT).map(lambda value: json.dumps(value).encode()) | edited(json.dumps(SEGMENT).encode(), BYTES))
def test_segments(tmp_path: Path, payload: bytes) -> None:
    store(tmp_path, manifest(CONTENT), ("segment", payload), ("witnesses", ARRAY))
    joined(Store(tmp_path, "ro").segments(KEY))
    read_all(tmp_path)


@settings(max_examples=40, suppress_health_check=SHARED_FOLDER)
@given(edited(ARRAY, (b"(", b"9" * 30, b"|O", b"<f8", b"\x93NUMPY", b"True", b"\x00" * 100)))
def test_witnesses(tmp_path: Path, payload: bytes) -> None:
    segment = {**SEGMENT, "witnesses": [{**FOUND.to_json(), "file": files.named("witnesses", payload)}]}
    store(tmp_path, manifest(CONTENT), ("segment", json.dumps(segment).encode()), ("witnesses", payload))
    read_all(tmp_path)


NAMES = (
    b"F64",
    b"F8_E8M0",
    b"F4",
    b"BOOL",
    b"[",
    b"9" * 25,
    b"-1",
    b"\xff" * 8,
    b"\x00" * 8,
    b"{}",
    b"__metadata__",
    b"F0",
)


@settings(max_examples=60, suppress_health_check=SHARED_FOLDER)
@given(edited(TENSORS, NAMES))
def test_models(tmp_path: Path, payload: bytes) -> None:
    store(tmp_path, manifest({**MODEL, "model": files.named("model", payload)}), ("model", payload))
    read_all(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(payload)
    attempt(ModelError, read_state, tmp_path / "m.safetensors")


class Payload:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@st.composite
def repacked(draw: st.DrawFn, archive: bytes, pieces: tuple[bytes, ...]) -> bytes:
    """The zip archive with one or two members edited, left out, doubled, renamed or compressed, and packed again."""
    source = zipfile.ZipFile(io.BytesIO(archive))
    members = [(name, source.read(name)) for name in source.namelist()]
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(members) - 1))
        name, content = members[place]
        what = draw(st.sampled_from(["edit", "edit", "edit", "drop", "double", "rename"]))
        if what == "edit":
            members[place] = (name, draw(edited(content, pieces)))
        elif what == "drop" and len(members) > 1:
            del members[place]
        elif what == "double":
            members.append((name, b"" if draw(st.booleans()) else content))
        else:
            members[place] = (
                draw(st.sampled_from(["x", f"../{name}", f"{name}.pt", "a/constants.pkl", "a/b.pt"])),
                content,
            )
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(buffer, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as target,
    ):
        for name, content in members:
            target.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder in which nothing is executed."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "executed").exists()


STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
PICKLES = (
    b"cos\nsystem\n",
    b"cpathlib\nPath.touch\n",
    b"(S'x'\ntR",
    b".",
    b"\x80\x05",
    b"\x8c\x02os\x93",
    b"R",
    b"b",
    b"PK\x05\x06",
)


@settings(max_examples=80, suppress_health_check=SHARED_FOLDER)
@given(
    edited(saved(STATE), PICKLES)
    | repacked(saved(STATE), PICKLES)
    | edited(saved({"a": Payload()}), PICKLES)
    | repacked(saved({"a": Payload()}), PICKLES)
)
def test_checkpoints(inside: Path, payload: bytes) -> None:
    (inside / "w.pt").write_bytes(payload)
    state, _ = attempt(ModelError, read_state, "w.pt")
    assert state is None or all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.fixture(scope="module")
def program() -> bytes:
    """An exported program."""
    buffer = io.BytesIO()
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 1, 2, 2),), dynamic_shapes=dynamic), buffer)
    return buffer.getvalue()


@settings(max_examples=25, suppress_health_check=SHARED_FOLDER)
@given(st.data())
def test_programs(inside: Path, program: bytes, data: st.DataObject) -> None:
    pieces = (b"null", b"[]", b"{}", b"-1", b"true", b'"os.system"', b"use_pickle", b"weight_0", *PICKLES)
    (inside / "m.pt2").write_bytes(data.draw(edited(program, PICKLES) | repacked(program, pieces)))
    attempt(ModelError, load_reference, "m.pt2", root=inside)


def test_programs_with_a_payload(inside: Path, program: bytes) -> None:
    (inside / "m.pt2").write_bytes(program)
    assert load_reference("m.pt2", root=inside)(torch.zeros(5, 1, 2, 2)).shape == (5, 3)
    source = zipfile.ZipFile(io.BytesIO(program))
    for victim in source.namelist():
        with zipfile.ZipFile(inside / "m.pt2", "w") as target:
            for name in source.namelist():
                target.writestr(name, saved(Payload()) if name == victim else source.read(name))
        attempt(ModelError, load_reference, "m.pt2", root=inside)
        assert not (inside / "executed").exists()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((4, 1, 2, 2), "f4"), y=np.arange(4), classes=4)
    return buffer.getvalue()


NPY = (
    b"|O",
    b"<f8",
    b"<U4",
    b"(",
    b"9" * 12,
    b"True",
    b"{",
    b"'",
    b"\\",
    b"\x00",
    b"\x93NUMPY\x03",
    b"V8",
    b"-1",
    b"nan",
    b"0",
    b"[",
)


@settings(max_examples=120, suppress_health_check=SHARED_FOLDER)
@given(edited(arrays(), NPY) | repacked(arrays(), NPY))
def test_datasets(inside: Path, payload: bytes) -> None:
    (inside / "d.npz").write_bytes(payload)
    attempt(DatasetError, load, "npz:d.npz")
