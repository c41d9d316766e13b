"""The files of a store: their names, written whole or not at all, read within limits.

Whatever is read may come from another machine: it is a plain file of bounded size, its name says what its content
hashes to, and its JSON is flat.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import SHA256, WITNESS_FILE

SCHEMA = 1
TEMPORARY = ".tmp-"
KEY = SHA256
MANIFEST = "manifest.json"
QUARANTINE = "quarantine"
DEPTH = 32  # of nested JSON; a segment has 4 levels, key material about 10 (ours)
# The kinds of file, by name, with the bytes that are read at most (ours: about ten times what a large run writes).
LIMITS = {
    "manifest": (re.compile(re.escape(MANIFEST)), 2**28),
    "segment": (re.compile(f"seg-{SHA256.pattern}[.]json"), 2**28),
    "witnesses": (WITNESS_FILE, 2**33),
    "model": (re.compile(f"model-{SHA256.pattern}[.]safetensors"), 2**35),
    "checkpoint": (re.compile(f"checkpoint-[0-9]{{4,9}}-{SHA256.pattern}[.]safetensors"), 2**37),
}


def kind_of(name: str) -> str | None:
    """Which kind of file ``name`` is: a key of LIMITS, or ``None``."""
    return next((kind for kind, (pattern, _) in LIMITS.items() if pattern.fullmatch(name)), None)


def named(kind: str, payload: bytes, number: int = 0) -> str:
    """The name that a file of ``kind`` has by its content; a checkpoint has its ``number`` too."""
    prefix, suffix = {
        "segment": ("seg", "json"),
        "witnesses": ("wit", "npy"),
        "model": ("model", "safetensors"),
        "checkpoint": (f"checkpoint-{number:04d}", "safetensors"),
    }[kind]
    return f"{prefix}-{sha256(payload)}.{suffix}"


def read(path: Path, kind: str) -> bytes:
    """The content of a file of ``kind``; one that is named by its content has that content.

    Raises:
        StoreError: a link, no plain file, too large, or not what its name says.
        OSError: what the system says against reading it.
    """
    limit = LIMITS[kind][1]
    try:
        # Not blocking: a named pipe in the place of a file would never answer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError("it is a link: a store holds files") from None
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError("it is no plain file")
        if found.st_size > limit:
            raise StoreError(f"it has {found.st_size:,} bytes, at most {limit:,} are read")
        with os.fdopen(handle, "rb", closefd=False) as file:
            payload = file.read(found.st_size)
    finally:
        os.close(handle)
    number = int(path.name.split("-")[1]) if kind == "checkpoint" else 0
    if kind != "manifest" and path.name != named(kind, payload, number):
        raise StoreError("its content does not match its name")
    return payload


def parse(payload: bytes) -> Any:
    """The JSON in ``payload``.

    Raises:
        StoreError: no JSON, NaN or infinity in it, or nested deeper than DEPTH.
    """
    try:
        data = json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"it is no JSON ({str(error)[:120]})") from None
    level: list[Any] = [data]
    for _ in range(DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return data
    raise StoreError(f"its JSON is nested deeper than {DEPTH} levels")


def canonical(content: object) -> bytes:
    """JSON that depends on nothing but ``content``."""
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def sha256(payload: bytes) -> str:
    """The SHA-256 (hex) of ``payload``."""
    return hashlib.sha256(payload).hexdigest()


def write(path: Path, payload: bytes, publish: Callable[[str, Path], None] = os.replace) -> None:
    """Put a file in its place so that it is seen, and survives a power cut, as a whole or not at all.

    ``publish`` moves the finished temporary file into its place.

    Raises:
        StoreError: where the system does not allow it; nothing is left behind.
    """
    try:
        _make(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        try:
            try:
                rest = memoryview(payload)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            publish(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {str(path)!r}: {error.strerror}") from error


def link_once(temporary: str, path: Path) -> None:
    """Publish a file unless there is one: the first writer wins."""
    with suppress(FileExistsError):
        os.link(temporary, path)
    os.unlink(temporary)


def _make(folder: Path) -> None:
    """Create ``folder``; every folder above that is new survives a power cut too."""
    new = []
    for place in (folder, *folder.parents):
        if place.is_dir():
            break
        new.append(place)
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(new):
        _sync(place.parent)


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
