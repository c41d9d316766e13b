"""Results from one store into another: for CI jobs that hand results on, and for merging what several have measured.

The source is untrusted. Every file is read within its limits, checked and only then published under the name that its
content has; no name that the source gives is used as a path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import KINDS, Segment, WitnessSet, empty_ledger, segment_from_json
from pytest_prunerob.store import files, witnesses
from pytest_prunerob.store.files import KEY, MANIFEST, QUARANTINE, SCHEMA, TEMPORARY
from pytest_prunerob.store.store import PROBE_TOLERANCE, Store, manifest_content

# What two manifests of the same key may differ in: where they were measured.
_PROVENANCE = ("provenance", "probes", "shape")


@dataclass
class Transfer:
    """What was copied: files, their bytes, how many were there before; and a sentence for each that was refused."""

    files: int = 0
    bytes: int = 0
    present: int = 0
    refused: list[str] = field(default_factory=list)


def transfer(source: Path, target: Store) -> Transfer:
    """Copy every intact entry of the store ``source`` into ``target``; what both hold is united.

    Raises:
        StoreError: where ``source`` is no store, or ``target`` cannot be written.
    """
    done = Transfer()
    if not source.is_dir():
        raise StoreError(f"there is no store {str(source)!r}")
    done.refused += Store(source, "ro").other_versions()
    shelves = source / f"v{SCHEMA}"
    if shelves.is_symlink() or not (shelves.is_dir() or done.refused):
        raise StoreError(f"{str(source)!r} is no store: it has no directory v{SCHEMA}")
    for shelf in _inside(shelves, done):
        for folder in _inside(shelf, done):
            if KEY.fullmatch(folder.name) and folder.name[:2] == shelf.name:
                _entry(folder, target, done)
            else:
                done.refused.append(f"{_short(folder)}: its name is no key")
    return done


def _entry(folder: Path, target: Store, done: Transfer) -> None:
    """Copy what is under one key: what others name first, so that being cut short leaves no damage."""
    key, model = folder.name, None
    if any(folder.glob("checkpoint-*")) and not any((*folder.glob(MANIFEST), *folder.glob("seg-*"))):
        return  # a training that is not over: there is no result to hand on
    try:
        content = manifest_content(files.read(folder / MANIFEST, "manifest"), key)
        existing = target.manifest(key)
        problem = "" if existing is None else conflict(existing, content)
        if problem:
            raise StoreError(problem)
        if content.get("kind") == "model":
            model = _model(folder, content)
        segments = _segments(folder, key, content, done)
    except (StoreError, OSError) as error:
        done.refused.append(f"{_short(folder)}: nothing of it was taken: {_words(error)}")
        return
    if model is not None:
        _publish(target, key, "model", model, done)
    if existing is None:
        target.create(key, content)
        done.files += 1
        done.bytes += (target.folder(key) / MANIFEST).stat().st_size
    else:
        done.present += 1
    for payload, segment in segments:
        for kept in segment.witnesses:
            if kept.file is not None:
                _publish(target, key, "witnesses", _witnesses(folder, kept), done)
        _publish(target, key, "segment", payload, done)


def _segments(folder: Path, key: str, content: Mapping[str, Any], done: Transfer) -> list[tuple[bytes, Segment]]:
    """The segments of an entry that are intact and have all their witnesses; the others are refused one by one."""
    ledger = empty_ledger(key, content.get("shape")) if content.get("kind") in KINDS else None
    good = []
    for path in _names(folder, done):
        kind = files.kind_of(path.name)
        try:
            if kind is None:
                raise StoreError("it is no file of a store")
            if kind != "segment":
                continue  # read when it is named
            payload = files.read(path, kind)
            segment = segment_from_json(files.parse(payload), key)
            misfit = ledger.misfit(segment) if ledger is not None else "it has no measurement"
            if misfit:
                raise StoreError(misfit)
            for kept in segment.witnesses:
                if kept.file is not None:
                    _witnesses(folder, kept)
            good.append((payload, segment))
        except (StoreError, OSError) as error:
            done.refused.append(f"{_short(path)}: {_words(error)}")
    return good


def _witnesses(folder: Path, kept: WitnessSet) -> bytes:
    """The file of a set of witnesses; not kept in memory between checking and publishing, since it may be large."""
    assert kept.file is not None
    try:
        payload = files.read(folder / kept.file, "witnesses")
        witnesses.decoded(payload, kept)
    except (StoreError, OSError) as error:
        raise StoreError(f"its witnesses {kept.file}: {_words(error)}") from None
    return payload


def _model(folder: Path, content: Mapping[str, Any]) -> bytes:
    """The file of the model that a manifest names."""
    import safetensors

    name = content.get("model")
    if not isinstance(name, str) or files.kind_of(name) != "model":
        raise StoreError("the manifest names no model")
    payload = files.read(folder / name, "model")
    try:
        safetensors.deserialize(payload)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise StoreError(f"the model cannot be read ({str(error)[:120]})") from None
    return payload


def _publish(target: Store, key: str, kind: str, payload: bytes, done: Transfer) -> None:
    """Write a file whose content was checked; an intact one stays, a damaged one is set aside first."""
    path = target.folder(key) / files.named(kind, payload)
    try:
        files.read(path, kind)
        done.present += 1
        return
    except FileNotFoundError:
        pass
    except (StoreError, OSError) as error:
        target.refuse(key, path.name, _words(error))
    files.write(path, payload)
    done.files += 1
    done.bytes += len(payload)


def conflict(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Why two manifests of one key cannot both be right; empty if they can.

    The same measurement on two machines has the same key material and nearly the same probe logits; two trained
    models of one recipe are two models.
    """
    for name in sorted({*first, *second}.difference(_PROVENANCE)):
        if first.get(name) != second.get(name):
            return f"the store holds another one, which stays: {name!r} differs"
    before, after = first.get("probes"), second.get("probes")
    if before is None and after is None:
        return ""
    try:
        rows = list(zip(before, after, strict=True))  # type: ignore[arg-type]
        pairs = [(float(a), float(b)) for one, other in rows for a, b in zip(one, other, strict=True)]
    except (TypeError, ValueError, OverflowError):
        return "the store holds another one, which stays: the probe logits have another shape"
    scale = max([1.0, *(abs(a) for a, _ in pairs if isfinite(a))])
    far = max((abs(a - b) for a, b in pairs if isfinite(a) or isfinite(b)), default=0.0)
    if not far <= PROBE_TOLERANCE * scale:
        return f"the store holds another one, which stays: the probe logits differ by {far:.2g}"
    return ""


def _inside(folder: Path, done: Transfer) -> list[Path]:
    """The directories in ``folder``; links and files are refused."""
    found = []
    for path in _names(folder, done):
        if path.is_dir():
            found.append(path)
        else:
            done.refused.append(f"{_short(path)}: it is no directory")
    return found


def _names(folder: Path, done: Transfer) -> list[Path]:
    """What is in ``folder`` but locks, temporary files and quarantine; links are refused."""
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as items:
            names = {item.name: item.is_symlink() for item in items}
    except OSError as error:
        done.refused.append(f"{_short(folder)}: {error.strerror}")
        return []
    done.refused += [f"{_short(folder / n)}: it is a link: a store holds files" for n, link in names.items() if link]
    return sorted(
        folder / name
        for name, link in names.items()
        if not (link or name == QUARANTINE or name.endswith(".lock") or name.startswith(TEMPORARY))
    )


def _short(path: Path) -> str:
    return f"{path.parent.name[:12]}/{path.name[:20]}"


def _words(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
