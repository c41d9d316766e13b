"""Bytes on disk: measurements, trained models and their integrity.

Layout: ``<root>/v1/<first two of key>/<key>/`` with ``manifest.json`` (what the key was made of), ``seg-<sha256>.json``
and ``wit-<sha256>.npy`` (immutable, named by their content), ``quarantine/``. Every file is written beside its place,
flushed to the disk and renamed, so that a reader sees all of it or nothing. Locks only avoid double work.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import safetensors
import safetensors.torch
import torch

from pytest_prunerob.errors import StoreError, StoreMissError
from pytest_prunerob.ledger import Segment, segment_from_json

SCHEMA = 1
TEMPORARY = ".tmp-"
Mode = Literal["rw", "ro", "refresh"]
MODES: tuple[Mode, ...] = ("rw", "ro", "refresh")


@dataclass
class Store:
    """A directory of results. ``mode``: "rw"; "ro" (nothing is written); "refresh" (older entries are set aside).

    ``started`` is the start of the run (seconds since the epoch), which tells older entries from those of this run.
    ``quarantined`` collects a sentence for everything that was found damaged.
    """

    root: Path
    mode: Mode = "rw"
    started: float = 0.0
    hits: int = 0
    misses: int = 0
    quarantined: list[str] = field(default_factory=list)

    def check_writable(self) -> None:
        """Create the directory.

        Raises:
            StoreError: where that or writing into it fails.
        """
        if self.mode == "ro":
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise StoreError(f"the store {str(self.root)!r} is not writable: {error.strerror}") from None

    def folder(self, key: str) -> Path:
        """The directory of ``key``."""
        return self.root / f"v{SCHEMA}" / key[:2] / key

    def missing(self, what: str) -> StoreMissError:
        """The error for a result that a read-only store does not hold."""
        return StoreMissError(
            f"{what} is not in the store {str(self.root)!r} and store-mode=ro measures nothing: "
            f"run the same command with --prunerob-store-mode=rw once"
        )

    def _check_mode(self, what: str) -> None:
        if self.mode == "ro":
            raise self.missing(what)

    def manifest(self, key: str) -> dict[str, Any] | None:
        """The manifest of ``key``, or ``None``; a damaged one is set aside with everything beside it."""
        path = self.folder(key) / "manifest.json"
        try:
            old, payload = path.stat().st_mtime < self.started, path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read {str(path)!r}: {error.strerror}") from error
        if self.mode == "refresh" and old:
            self.set_aside(key, "refreshed")
            return None
        try:
            data = json.loads(payload)
            if data["key"] != key or data["schema"] != SCHEMA or data["sha256"] != _sha(_canonical(data["content"])):
                raise ValueError("it is not what its name and checksum say")
        except (ValueError, KeyError, TypeError) as error:
            self.set_aside(key, f"the manifest is damaged ({error})")
            return None
        return dict(data["content"])

    def create(self, key: str, content: Mapping[str, Any]) -> None:
        """Write the manifest of ``key`` unless it is there: of several writers the first one wins."""
        self._check_mode("this measurement")
        body = {"schema": SCHEMA, "key": key, "sha256": _sha(_canonical(content)), "content": content}
        payload = json.dumps(body, allow_nan=False, indent=1).encode()
        _write(self.folder(key) / "manifest.json", payload, publish=_link_once)

    def segments(self, key: str, skip: Container[str] = ()) -> dict[str, Segment]:
        """All intact segments of ``key`` by name, but those in ``skip``; damaged ones are set aside and reported."""
        found = {}
        for path in sorted(self.folder(key).glob("seg-*.json")):
            if path.name in skip:
                continue
            try:
                payload = path.read_bytes()
                if path.name != f"seg-{_sha(payload)}.json":
                    raise StoreError("its content does not match its name")
                segment = segment_from_json(json.loads(payload), key)
                if segment.witness is not None:
                    self._check_witness(key, segment.witness)
                found[path.name] = segment
            except (StoreError, ValueError, OSError) as error:
                self._quarantine(path, str(error))
        return found

    def _check_witness(self, key: str, name: str) -> None:
        try:
            self.witness(key, name)
        except StoreError as error:
            path = self.folder(key) / Path(name).name
            if path.is_file():  # aside, so that the same witnesses, found again, do not overwrite it
                self._quarantine(path, str(error))
            raise

    def add(self, segment: Segment) -> None:
        """Write ``segment`` under its key."""
        self._check_mode("this segment")
        payload = json.dumps(segment.to_json(), allow_nan=False).encode()
        _write(self.folder(segment.key) / f"seg-{_sha(payload)}.json", payload)

    def add_witness(self, key: str, array: np.ndarray[Any, Any]) -> str:
        """Write the witnesses of a segment and return their name."""
        self._check_mode("these witnesses")
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        name = f"wit-{_sha(buffer.getvalue())}.npy"
        _write(self.folder(key) / name, buffer.getvalue())
        return name

    def witness(self, key: str, name: str) -> np.ndarray[Any, Any]:
        """The witnesses called ``name``.

        Raises:
            StoreError: where the file is missing or damaged.
        """
        path = self.folder(key) / Path(name).name
        try:
            payload = path.read_bytes()
            if path.name != f"wit-{_sha(payload)}.npy":
                raise ValueError("its content does not match its name")
            return np.asarray(np.load(io.BytesIO(payload), allow_pickle=False))
        except (ValueError, OSError) as error:
            raise StoreError(f"witnesses {name}: {error}") from None

    def add_model(self, key: str, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any]) -> None:
        """Publish a trained model; the first one published under ``key`` stays."""
        self._check_mode("this model")
        payload = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
        name = f"model-{_sha(payload)}.safetensors"
        _write(self.folder(key) / name, payload)
        self.create(key, {**content, "model": name})

    def model(self, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The published model of ``key`` with its manifest; a damaged one is set aside."""
        content = self.manifest(key)
        if content is None:
            return None
        path = self.folder(key) / Path(str(content.get("model"))).name
        try:
            payload = path.read_bytes()
            if path.name != f"model-{_sha(payload)}.safetensors":
                raise ValueError("its content does not match its name")
            return safetensors.torch.load(payload), content
        except (ValueError, OSError, safetensors.SafetensorError) as error:
            self.set_aside(key, f"the model is damaged ({error})")
            return None

    def set_aside(self, key: str, why: str) -> None:
        """Move all files of ``key`` into its quarantine and report it."""
        for path in sorted(self.folder(key).glob("*.*")):
            # A temporary file is another worker's that is about to appear under its name.
            if path.is_file() and path.suffix != ".lock" and not path.name.startswith(TEMPORARY):
                self._quarantine(path, why)

    def _quarantine(self, path: Path, why: str) -> None:
        self.quarantined.append(f"{path.parent.name[:12]}/{path.name[:20]}: {why}")
        if self.mode == "ro":
            return
        shelter = path.parent / "quarantine"
        try:
            shelter.mkdir(exist_ok=True)
            place, copies = shelter / path.name, itertools.count(1)
            while place.exists():
                place = shelter / f"{path.name}.{next(copies)}"
            with suppress(FileNotFoundError):  # another worker was faster
                os.replace(path, place)
        except OSError as error:
            raise StoreError(f"cannot set {str(path)!r} aside: {error.strerror}") from error

    @contextmanager
    def lock(self, key: str, name: str) -> Iterator[None]:
        """Wait while another process works on the same thing; the system releases the lock of a dead process."""
        if self.mode == "ro":
            yield
            return
        folder = self.folder(key)
        lock = filelock.FileLock(folder / f"{name}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise StoreError(f"cannot lock {str(folder)!r}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()


def _link_once(temporary: str, path: Path) -> None:
    with suppress(FileExistsError):
        os.link(temporary, path)
    os.unlink(temporary)


def _write(path: Path, payload: bytes, publish: Callable[[str, Path], None] = os.replace) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _sha(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()
