from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import Segment, WitnessSet
from pytest_prunerob.store import Store
from pytest_prunerob.store.witnesses import decoded, digest, encoded
from tests.unit.store.samples import DONE, WITNESSES, content, filled, one

SET = WitnessSet((0, 2), (0.1, 0.2), tuple(digest(row) for row in WITNESSES))


def saved(array: object, **how: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_arrays_come_back(dtype: str) -> None:
    array = WITNESSES.astype(dtype)
    known = WitnessSet((0, 2), (0.1, 0.2), tuple(digest(row) for row in array))
    for layout in (array, np.asfortranarray(array), array[:, :, ::-1][:, :, ::-1]):
        found = decoded(encoded(layout), known)
        assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        assert np.array_equal(found, array)
    assert np.array_equal(np.load(io.BytesIO(encoded(array))), array)


def test_a_hash_is_that_of_the_bytes_of_the_input() -> None:
    assert digest(WITNESSES[1]) == hashlib.sha256(np.float32([4, 5, 6, 7]).__truediv__(8).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "no array of floating numbers"),
        (saved(np.array([{}, {}], dtype=object), allow_pickle=True), "no array of floating numbers"),
        (saved(WITNESSES.astype("i4")), "no array of floating numbers"),
        (saved(np.array(["a", "b"])), "no array of floating numbers"),
        (saved(np.float32(1)), "no array of floating numbers"),
        (saved(WITNESSES)[:-1], "has another size"),
        (saved(WITNESSES) + b"\x00", "has another size"),
        (saved(WITNESSES).replace(b"(2, 1, 2, 2)", b"(9, 9, 9, 9)"), "has another size"),
        (saved(WITNESSES).replace(b"(2, 1, 2, 2), }", b"(999999999,), }"), "has another size"),
        (saved(WITNESSES[:1]), "it has 1 rows for 2 samples"),
        (saved(WITNESSES[::-1].copy()), "the witness of sample 0 is not the one that was found"),
    ],
)
def test_what_is_no_array_of_these_witnesses_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(StoreError, match=why):
        decoded(payload, SET)


@given(st.binary(max_size=300) | st.tuples(st.integers(0, 140), st.integers(1, 255)))
def test_any_bytes_are_these_witnesses_or_a_store_error(found: bytes | tuple[int, int]) -> None:
    payload = bytearray(encoded(WITNESSES))
    if isinstance(found, tuple):
        payload[found[0]] ^= found[1]
    else:
        payload = bytearray(found)
    with suppress(StoreError):
        assert np.array_equal(decoded(bytes(payload), SET), WITNESSES)


def test_the_nearest_witness_of_each_sample_is_told(tmp_path: Path) -> None:
    store = filled(tmp_path)
    nearer, hashed = Store(tmp_path), Store(tmp_path, policy="hash")
    near = nearer.add_witnesses(DONE, [2], [0.05], WITNESSES[:1])
    store.add(Segment(DONE, 0, 0, (2,), {2: 0.05}, witnesses=(near,)))
    equal = hashed.add_witnesses(DONE, [0], [0.1], WITNESSES[:1])
    store.add(Segment(DONE, 0, 0, (0,), {0: 0.1}, witnesses=(equal,)))
    far = hashed.add_witnesses(DONE, [3], [0.15], WITNESSES[:1])
    store.add(Segment(DONE, 0, 1, (3,), {3: 0.15}, witnesses=(far,)))
    found = store.witnesses(DONE)
    assert {position: witness.distance for position, witness in found.items()} == {0: 0.1, 2: 0.05, 3: 0.15}
    assert np.array_equal(found[0].array, WITNESSES[0])  # type: ignore[arg-type]
    assert np.array_equal(found[2].array, WITNESSES[0])  # type: ignore[arg-type]
    assert found[3].array is None
    assert found[3].sha256 == digest(WITNESSES[0])


def test_policy_hash_keeps_no_input(tmp_path: Path) -> None:
    store = filled(tmp_path, policy="hash")
    assert not list(tmp_path.rglob("wit-*"))
    found = store.witnesses(DONE)
    assert [(p, w.distance, w.array) for p, w in found.items()] == [(0, 0.1, None), (2, 0.2, None)]
    kept = filled(tmp_path / "kept").witnesses(DONE)
    assert [w.sha256 for w in found.values()] == [w.sha256 for w in kept.values()]
    payload = one(tmp_path, DONE, "seg-*").read_bytes() + one(tmp_path, DONE, "manifest.json").read_bytes()
    assert WITNESSES[0].tobytes() not in payload
    assert len(store.segments(DONE)) == 2


def test_damaged_witnesses_are_missing_and_told(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = one(tmp_path, DONE, "wit-*")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert store.witnesses(DONE) == {}
    assert len(store.quarantined) == 2
    assert Store(tmp_path).manifest(DONE) == content(DONE)
