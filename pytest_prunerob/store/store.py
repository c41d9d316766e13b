"""A directory of results: manifests, segments, witnesses and models by key.

Layout: ``<root>/v1/<first two of key>/<key>/`` with ``manifest.json`` (what the key was made of), ``seg-<sha256>.json``
and ``wit-<sha256>.npy`` (immutable, named by their content), ``quarantine/``. Every file is written beside its place,
flushed to the disk and renamed, so that a reader sees all of it or nothing. Locks only avoid double work.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock

from pytest_prunerob.errors import StoreError, StoreMissError
from pytest_prunerob.ledger import Segment, WitnessSet, segment_from_json
from pytest_prunerob.store import files, witnesses
from pytest_prunerob.store.files import MANIFEST, QUARANTINE, SCHEMA, TEMPORARY
from pytest_prunerob.store.witnesses import Array, Policy, Witness

if TYPE_CHECKING:
    import torch

# Largest change of a probe logit, relative to the largest one, that a stored measurement may have behind it (ours).
PROBE_TOLERANCE = 1e-4
Mode = Literal["rw", "ro", "refresh"]
MODES: tuple[Mode, ...] = ("rw", "ro", "refresh")


@dataclass
class Store:
    """A directory of results. ``mode``: "rw"; "ro" (nothing is written); "refresh" (older entries are set aside).

    ``started`` is the start of the run (seconds since the epoch), which tells older entries from those of this run.
    ``quarantined`` collects a sentence for everything that was found and not used. ``policy`` says whether the
    witnesses are kept or only their hashes.
    """

    root: Path
    mode: Mode = "rw"
    started: float = 0.0
    policy: Policy = "keep"
    hits: int = 0
    misses: int = 0
    quarantined: list[str] = field(default_factory=list)

    def check_writable(self) -> None:
        """Create the directory, and name what another version of this package left in it.

        Raises:
            StoreError: where that or writing into it fails.
        """
        self.quarantined += self.other_versions()
        if self.mode == "ro":
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise StoreError(f"the store {str(self.root)!r} is not writable: {error.strerror}") from None

    def other_versions(self) -> list[str]:
        """A sentence for every directory of results in another schema; they are never read."""
        try:
            names = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"cannot read {str(self.root)!r}: {error.strerror}") from error
        numbers = {name: int(name[1:]) for name in names if re.fullmatch("v[0-9]{1,9}", name)}
        return [
            f"{name}: results in schema {number}, which {_age(number)}; this one reads schema {SCHEMA} only"
            for name, number in numbers.items()
            if number != SCHEMA
        ]

    def folder(self, key: str) -> Path:
        """The directory of ``key``."""
        return self.root / f"v{SCHEMA}" / key[:2] / key

    def missing(self, what: str) -> StoreMissError:
        """The error for a result that a read-only store does not hold."""
        return StoreMissError(
            f"{what} is not in the store {str(self.root)!r} and store-mode=ro measures nothing: "
            f"run the same command with --prunerob-store-mode=rw once, with the same version of this package"
        )

    def _check_mode(self, what: str) -> None:
        if self.mode == "ro":
            raise self.missing(what)

    def manifest(self, key: str) -> dict[str, Any] | None:
        """The manifest of ``key``, or ``None``; a damaged one is set aside with everything beside it."""
        path = self.folder(key) / MANIFEST
        # Looked for before the manifest: a segment is written after it, so that one alone has lost it.
        orphans = any(self.folder(key).glob("seg-*"))
        try:
            old, payload = path.lstat().st_mtime < self.started, files.read(path, "manifest")
        except (FileNotFoundError, NotADirectoryError):
            if orphans:
                self.set_aside(key, "the manifest is missing")
            return None
        except StoreError as error:
            self.set_aside(key, f"the manifest is damaged ({error})")
            return None
        except OSError as error:
            raise StoreError(f"cannot read {str(path)!r}: {error.strerror}") from error
        if self.mode == "refresh" and old:
            self.set_aside(key, "refreshed")
            return None
        try:
            return manifest_content(payload, key)
        except StoreError as error:
            self.set_aside(key, f"the manifest is damaged ({error})")
            return None

    def holds(self, key: str) -> bool:
        """Whether there is a manifest of ``key``, intact or not."""
        return (self.folder(key) / MANIFEST).is_file()

    def create(self, key: str, content: Mapping[str, Any]) -> None:
        """Write the manifest of ``key`` unless it is there: of several writers the first one wins."""
        self._check_mode("this measurement")
        body = {"schema": SCHEMA, "key": key, "sha256": files.sha256(files.canonical(content)), "content": content}
        payload = json.dumps(body, allow_nan=False, indent=1).encode()
        files.write(self.folder(key) / MANIFEST, payload, publish=files.link_once)

    def segments(self, key: str, skip: Container[str] = ()) -> dict[str, Segment]:
        """All intact segments of ``key`` by name, but those in ``skip``; damaged ones are set aside and reported."""
        found = {}
        for path in sorted(self.folder(key).glob("seg-*.json")):
            if path.name in skip:
                continue
            try:
                segment = segment_from_json(files.parse(files.read(path, "segment")), key)
                for kept in segment.witnesses:
                    self.rows(key, kept)
                found[path.name] = segment
            except FileNotFoundError:
                continue  # another worker has set it aside
            except StoreError as error:
                self._quarantine(path, str(error))
            except OSError as error:
                self._quarantine(path, str(error.strerror))
        return found

    def refuse(self, key: str, name: str, why: str) -> None:
        """Set the file ``name`` of ``key`` aside and report it."""
        self._quarantine(self.folder(key) / name, why)

    def add(self, segment: Segment) -> None:
        """Write ``segment`` under its key."""
        self._check_mode("this segment")
        payload = json.dumps(segment.to_json(), allow_nan=False).encode()
        files.write(self.folder(segment.key) / files.named("segment", payload), payload)

    def add_witnesses(
        self, key: str, positions: Sequence[int], distances: Sequence[float], array: Array, *, always: bool = False
    ) -> WitnessSet:
        """Write the witnesses ``array`` (N, C, H, W) of the samples ``positions``, or (policy "hash") their hashes.

        ``always`` writes them under either policy: inputs that are tried on other models are needed again.
        """
        self._check_mode("these witnesses")
        file = None
        if always or self.policy == "keep":
            payload = witnesses.encoded(array)
            file = files.named("witnesses", payload)
            files.write(self.folder(key) / file, payload)
        return WitnessSet(tuple(positions), tuple(distances), tuple(map(witnesses.digest, array)), file)

    def witnesses(self, key: str) -> dict[int, Witness]:
        """The nearest witness of every broken sample of ``key``, by its position in the slice.

        Of witnesses at the same distance one whose input was kept is preferred. Damaged files are set aside and
        reported, and their samples are missing.
        """
        best: dict[int, Witness] = {}
        for segment in self.segments(key).values():
            for kept in segment.witnesses:
                rows = self.rows(key, kept)
                for place, position in enumerate(kept.positions):
                    row = None if rows is None else rows[place].copy()
                    found = Witness(kept.distances[place], kept.hashes[place], row)
                    known = best.get(position)
                    if known is None or _rank(found) < _rank(known):
                        best[position] = found
        return dict(sorted(best.items()))

    def rows(self, key: str, kept: WitnessSet) -> Array | None:
        """The witnesses of a set, ``None`` if only their hashes were kept; a damaged file is set aside.

        Raises:
            StoreError: where the file is missing or damaged.
        """
        if kept.file is None:
            return None
        path = self.folder(key) / kept.file
        try:
            return witnesses.decoded(files.read(path, "witnesses"), kept)
        except OSError as error:
            raise StoreError(f"witnesses {kept.file}: {error.strerror}") from None
        except StoreError as error:
            # Aside, so that the same witnesses, found again, do not overwrite it.
            self._quarantine(path, str(error))
            raise StoreError(f"witnesses {kept.file}: {error}") from None

    def add_model(self, key: str, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any]) -> None:
        """Publish a trained model; the first one published under ``key`` stays."""
        import safetensors.torch

        self._check_mode("this model")
        payload = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
        name = files.named("model", payload)
        files.write(self.folder(key) / name, payload)
        self.create(key, {**content, "model": name})

    def model(self, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The published model of ``key`` with its manifest; a damaged one is set aside."""
        import safetensors.torch

        content = self.manifest(key)
        if content is None:
            return None
        try:
            return safetensors.torch.load(self.model_file(key, content)), content
        except (StoreError, safetensors.SafetensorError) as error:
            self.set_aside(key, f"the model is damaged ({error})")
            return None

    def model_file(self, key: str, content: Mapping[str, Any]) -> bytes:
        """The file of the model that the manifest ``content`` names.

        Raises:
            StoreError: where it is missing or damaged.
        """
        name = content.get("model")
        if not isinstance(name, str) or files.kind_of(name) != "model":
            raise StoreError("the manifest names no model")
        try:
            return files.read(self.folder(key) / name, "model")
        except OSError as error:
            raise StoreError(f"{name}: {error.strerror}") from None

    def set_aside(self, key: str, why: str) -> None:
        """Move all files of ``key`` into its quarantine and report it."""
        for path in sorted(self.folder(key).glob("*.*")):
            # A temporary file is another worker's that is about to appear under its name.
            if path.is_file() and path.suffix != ".lock" and not path.name.startswith(TEMPORARY):
                self._quarantine(path, why)

    def _quarantine(self, path: Path, why: str) -> None:
        self.quarantined.append(f"{path.parent.name[:12]}/{path.name[:20]}: {why[:500]}")
        if self.mode == "ro":
            return
        shelter = path.parent / QUARANTINE
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


def manifest_content(payload: bytes, key: str) -> dict[str, Any]:
    """What the manifest of ``key`` says.

    Raises:
        StoreError: where it is damaged, that of another key, or in another schema.
    """
    try:
        data = files.parse(payload)
        schema, content = data["schema"], data["content"]
        if isinstance(schema, int) and schema != SCHEMA:
            raise StoreError(f"its schema {schema} {_age(schema)}; this one reads schema {SCHEMA} only")
        if data["key"] != key:
            raise StoreError(f"it belongs to {str(data['key'])[:80]!r}")
        if schema != SCHEMA or data["sha256"] != files.sha256(files.canonical(content)):
            raise StoreError("it is not what its checksum says")
        return dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"it is no manifest: {str(error)[:120]!r}") from None


def _age(schema: int) -> str:
    return f"is that of {'an older' if schema < SCHEMA else 'a newer'} version of pytest-prunerob"


def _rank(witness: Witness) -> tuple[float, bool]:
    return witness.distance, witness.array is None
