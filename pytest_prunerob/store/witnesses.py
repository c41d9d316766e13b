"""Witnesses on disk: arrays in the format of numpy, read without its parser, and the hashes that may stand for them."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import WitnessSet
from pytest_prunerob.store import files

Policy = Literal["keep", "hash"]
POLICIES: tuple[Policy, ...] = ("keep", "hash")
Array = np.ndarray[Any, Any]

# What numpy.save writes of a C-ordered floating array (NEP 1, version 1.0), and nothing else.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype><f[248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9]{1,9}(?:, [0-9]{1,9}){0,7}),?\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Witness:
    """The witness of a sample: its distance, the SHA-256 of its bytes and, if it was kept, the input (C, H, W)."""

    distance: float
    sha256: str
    array: Array | None


def digest(row: Array) -> str:
    """The SHA-256 (hex) of the bytes of one input (C, H, W), in C order and little-endian."""
    return files.sha256(np.ascontiguousarray(row, row.dtype.newbyteorder("<")).tobytes())


def encoded(array: Array) -> bytes:
    """The file of ``array`` (N, C, H, W)."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, array.dtype.newbyteorder("<")), allow_pickle=False)
    return buffer.getvalue()


def decoded(payload: bytes, expected: WitnessSet) -> Array:
    """The array in a file of witnesses, which must be that of ``expected``.

    Raises:
        StoreError: another format, size or number of rows, or a row with another hash.
    """
    header = _HEADER.match(payload)
    if header is None or int.from_bytes(header["length"], "little") != header.end() - 10:
        raise StoreError("it is no array of floating numbers")
    shape, dtype = tuple(map(int, header["shape"].split(b", "))), np.dtype(header["dtype"].decode())
    if math.prod(shape) * dtype.itemsize != len(payload) - header.end():
        raise StoreError(f"an array of shape {shape} has another size")
    if shape[0] != len(expected.positions):
        raise StoreError(f"it has {shape[0]} rows for {len(expected.positions)} samples")
    array: Array = np.frombuffer(payload, dtype, offset=header.end()).reshape(shape)
    for position, row, known in zip(expected.positions, array, expected.hashes, strict=True):
        if digest(row) != known:
            raise StoreError(f"the witness of sample {position} is not the one that was found")
    return array
