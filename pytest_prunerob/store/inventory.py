"""What a store holds, told from its files alone: no model, no data and no torch are needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import KINDS, Ledger, empty_ledger, segment_from_json
from pytest_prunerob.store import checkpoints, files
from pytest_prunerob.store.files import KEY, MANIFEST, QUARANTINE, SCHEMA, TEMPORARY
from pytest_prunerob.store.store import Store, manifest_content

# A file that belongs to nothing yet may be one that a run is about to name; after a day it is not (ours).
LEFT_BEHIND = 86400.0


@dataclass(frozen=True)
class Entry:
    """What is stored under a key.

    ``state`` is "complete", how many units are done of how many, how far a training has come, or "damaged";
    ``complete`` says the same as a flag.
    ``size`` is in bytes, ``written`` is when the newest file was (seconds since the epoch).
    """

    key: str
    kind: str
    subject: str
    plan: str
    samples: int | None
    state: str
    complete: bool
    size: int
    written: float


def keys(root: Path) -> list[str]:
    """All keys that have a directory in the store ``root``.

    Raises:
        StoreError: where there is no store.
    """
    if not root.is_dir():
        raise StoreError(f"there is no store {str(root)!r}")
    return sorted(
        folder.name
        for shelf in _folders(root / f"v{SCHEMA}")
        for folder in _folders(shelf)
        if KEY.fullmatch(folder.name) and folder.name[:2] == shelf.name
    )


def entries(store: Store) -> list[Entry]:
    """Everything in the store. Segments are read, witnesses, models and the tensors of checkpoints are not."""
    return [entry(store, key) for key in keys(store.root)]


def entry(store: Store, key: str) -> Entry:
    """What the store holds under ``key``."""
    folder = store.folder(key)
    found = [path.lstat() for path in _files(folder)]
    size, written = sum(status.st_size for status in found), max((s.st_mtime for s in found), default=0.0)
    try:
        content = manifest_content(files.read(folder / MANIFEST, "manifest"), key)
        ledger = _ledger(folder, key, content)
    except (StoreError, OSError):
        training = None if (folder / MANIFEST).exists() else _training(folder)
        if training is not None:
            return Entry(key, "model", training[0], "", None, training[1], False, size, written)
        return Entry(key, "?", "", "", None, "damaged", False, size, written)
    provenance = content.get("provenance")
    plan = str(provenance.get("plan", "")) if isinstance(provenance, dict) else ""
    complete, state = True, "complete"
    if ledger is not None:
        # A micro-batch in which nothing is left to attack is done, whatever stages it never needed.
        open_units = [m for m in range(ledger.micro_batches) if ledger.todo(m) is not None]
        complete = not open_units
        state = "complete" if complete else f"{ledger.micro_batches - len(open_units)}/{ledger.micro_batches}"
    samples = ledger.n if ledger is not None else None
    kind = str(content.get("kind", "?"))
    return Entry(key, kind, _subject(content), plan, samples, state, complete, size, written)


def check(store: Store) -> int:
    """Hash every file again and return how many there are; ``store.quarantined`` tells what is damaged.

    A store in mode "ro" is left as it is, one in mode "rw" sets the damaged files aside.
    """
    count = 0
    for key in keys(store.root):
        folder = store.folder(key)
        present = _files(folder)
        count += sum(not path.name.startswith(TEMPORARY) for path in present)
        content = store.manifest(key)
        if content is None:
            if present and not any(path.name == MANIFEST or path.name.startswith("seg-") for path in present):
                _check_loose(store, key, present)  # of a run that was killed before its first segment
            continue
        try:
            shape = content.get("shape")
            ledger = empty_ledger(key, shape) if content.get("kind") in KINDS else None
            if content.get("kind") == "model":
                store.model_file(key, content)
        except StoreError as error:
            store.set_aside(key, str(error))
            continue
        for name, segment in store.segments(key).items():
            misfit = ledger.misfit(segment) if ledger is not None else "its measurement is none"
            if misfit:
                store.refuse(key, name, misfit)
        _check_loose(store, key, present)
    return count


@dataclass(frozen=True)
class Prunable:
    """Something that may be deleted, in the order in which its paths go, and why."""

    paths: tuple[Path, ...]
    why: str
    size: int


def prunable(
    store: Store,
    now: float,
    *,
    older_than: float | None = None,
    incomplete: bool = False,
    quarantine: bool = False,
    other_versions: bool = False,
) -> list[Prunable]:
    """What would be deleted; ``older_than`` is in seconds before ``now``, counted from the last write."""
    found = []
    for known in entries(store):
        folder = store.folder(known.key)
        text = f"{known.key[:12]}  {known.kind}  {known.subject}  {known.plan}".rstrip()
        age = now - known.written
        if older_than is not None and age > older_than:
            found.append(Prunable(_in_order(folder), f"{text}: {age / 86400:.0f} days old", known.size))
        elif incomplete and not known.complete:
            found.append(Prunable(_in_order(folder), f"{text}: {known.state}", known.size))
        elif incomplete:
            loose = [path for path in _loose(folder) if now - path.lstat().st_mtime > LEFT_BEHIND]
            if loose:
                size = sum(path.lstat().st_size for path in loose)
                found.append(Prunable(tuple(loose), f"{text}: {len(loose)} files of a killed run", size))
        if quarantine and (folder / QUARANTINE).is_dir():
            found.append(_folder(folder / QUARANTINE, f"{text}: quarantine"))
    if other_versions:
        for version in _folders(store.root):
            if version.name[:1] == "v" and version.name[1:].isdecimal() and version.name != f"v{SCHEMA}":
                found.append(_folder(version, f"{version.name}: results in another schema"))
    return found


def delete(what: Prunable) -> None:
    """Delete it.

    Raises:
        StoreError: where the system does not allow it.
    """
    try:
        for path in what.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for folder in {path.parent for path in what.paths}:
            with suppress(OSError):  # something else is in it
                folder.rmdir()
                folder.parent.rmdir()
    except OSError as error:
        raise StoreError(f"cannot delete {str(error.filename)!r}: {error.strerror}") from error


def _ledger(folder: Path, key: str, content: Mapping[str, Any]) -> Ledger | None:
    """The ledger of a measurement with its readable segments, ``None`` for a model or a finding."""
    if content.get("kind") not in KINDS:
        return None
    ledger = empty_ledger(key, content.get("shape"))
    for path in sorted(folder.glob("seg-*.json")):
        with suppress(StoreError, OSError):
            segment = segment_from_json(files.parse(files.read(path, "segment")), key)
            if not ledger.misfit(segment):
                ledger.add(segment)
    return ledger


def _training(folder: Path) -> tuple[str, str] | None:
    """What a folder without a manifest is training, by its last checkpoint: name and state."""
    for path in reversed(_files(folder)):
        if files.kind_of(path.name) == "checkpoint":
            with suppress(StoreError, OSError):
                facts = checkpoints.told(path)
                return str(facts.get("label", "")), f"epoch {facts.get('epoch')} of {facts.get('last')}"
    return None


def _subject(content: Mapping[str, Any]) -> str:
    """Who an entry is about, in words."""
    provenance, training = content.get("provenance"), content.get("training")
    if content.get("kind") == "model":
        if "method" in content:
            return f"{content['method']} {content.get('sparsity')} of {str(content.get('dense'))[:12]}"
        name = training.get("name", "") if isinstance(training, dict) else ""
        return f"{content.get('network')}, {name} training, seed {content.get('seed')}"
    role = provenance.get("role", "") if isinstance(provenance, dict) else ""
    return f"{role} {str(content.get('subject', ''))[:12]}".strip()


def _check_loose(store: Store, key: str, present: list[Path]) -> None:
    """Hash the files that nothing names; the others were hashed by whoever named them."""
    loose = set(_loose(store.folder(key)))
    for path in present:
        kind = files.kind_of(path.name)
        if path not in loose or path.name.startswith(TEMPORARY):
            continue
        try:
            if kind is None:
                raise StoreError("it is no file of a store")
            files.read(path, kind)
        except FileNotFoundError:
            continue  # set aside by now
        except (StoreError, OSError) as error:
            store.refuse(key, path.name, str(error))


def _loose(folder: Path) -> list[Path]:
    """The files that no manifest and no segment names: temporary ones, witnesses without segment, strangers."""
    named = {MANIFEST}
    with suppress(StoreError, OSError):
        content = files.parse(files.read(folder / MANIFEST, "manifest"))
        named.add(str(content["content"].get("model")))
    for path in folder.glob("seg-*.json"):
        named.add(path.name)
        with suppress(StoreError, OSError, ValueError):
            segment = segment_from_json(files.parse(files.read(path, "segment")), folder.name)
            named.update(kept.file for kept in segment.witnesses if kept.file is not None)
    return [path for path in _files(folder) if path.name not in named]


def _in_order(folder: Path) -> tuple[Path, ...]:
    """The files of an entry so that what is left of it, if deleting is cut short, is no damage."""
    rank = {"segment": 0, "manifest": 1}
    found = [path for path in folder.iterdir() if path.name != QUARANTINE]
    return tuple(sorted(found, key=lambda path: (rank.get(files.kind_of(path.name) or "", 2), path.name)))


def _folder(path: Path, why: str) -> Prunable:
    size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    return Prunable((path,), why, size)


def _files(folder: Path) -> list[Path]:
    """Everything in the directory of a key but locks and what is in quarantine."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix != ".lock" and path.name != QUARANTINE)
    except OSError as error:
        raise StoreError(f"cannot read {str(folder)!r}: {error.strerror}") from error


def _folders(folder: Path) -> Iterator[Path]:
    """The directories in ``folder``; links are not followed."""
    try:
        with os.scandir(folder) as found:
            names = sorted(item.name for item in found if item.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StoreError(f"cannot read {str(folder)!r}: {error.strerror}") from error
    yield from (folder / name for name in names)
