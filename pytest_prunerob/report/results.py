"""results.json and claims.lock: check, read, write.

The written schemas are ``results.schema.json`` and ``lock.schema.json`` beside this module;
``docs/results.md`` explains the fields to readers.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from pytest_prunerob.errors import ResultsError

RESULTS_SCHEMA = "prunerob-results/1"
LOCK_SCHEMA = "prunerob-lock/1"
VERDICTS = ("supported", "refuted", "inconclusive", "error")
MESSAGE_LIMIT = 65536
"""The longest message of a cell, in characters."""

MAX_BYTES = 256 * 2**20
MAX_DEPTH = 16
MAX_INTEGER = 2**63


def empty_running(started: str) -> dict[str, Any]:
    """The skeleton that stands in results.json while a run is under way; ``started`` is ISO 8601."""
    return {
        "schema": RESULTS_SCHEMA,
        "status": "running",
        "started": started,
        "finished": None,
        "environment": {
            "python": platform.python_version(),
            "platform": sys.platform,
            "packages": {},
            "device": "",
            "device_name": "",
            "precision": {},
            "threads": 0,
            "git": {"revision": None, "dirty": None},
            "seed": 0,
        },
        "options": {},
        "selection": {
            "args": [],
            "keyword": "",
            "markexpr": "",
            "maxfail": 0,
            "planned": 0,
            "deselected": 0,
            "stopped_early": False,
        },
        "exit_status": None,
        "cells": [],
        "claims": [],
        "measurements": {},
        "subjects": {},
        "store": {"path": "", "mode": "rw", "hits": 0, "misses": 0, "quarantined": []},
        "budget": {"seconds": None, "exhausted": False},
        "cost": {"forward": 0, "backward": 0, "seconds": 0.0},
    }


def summary(results: Mapping[str, Any]) -> dict[str, int]:
    """How many claims have each verdict; every verdict is a key, in the order of ``VERDICTS``."""
    counts = dict.fromkeys(VERDICTS, 0)
    for claim in results["claims"]:
        counts[claim["verdict"]] += 1
    return counts


def clip(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """``text`` cut to ``limit`` characters, with a mark in the middle that says how much is gone."""
    if len(text) <= limit:
        return text
    mark = f"\n… {len(text) - limit} characters left out …\n"
    room = max(limit - len(mark), 0)
    return (text[: room - room // 2] + mark + text[len(text) - room // 2 :])[:limit]


def validate(results: object) -> None:
    """Check a results document against the schema and its own cross-references.

    Raises:
        ResultsError: one sentence with the JSON path and what was found there.
    """
    _check_plain(results, "results")
    _check_schema(results, "results")
    assert isinstance(results, Mapping)
    _check_references(results)


def validate_lock(lock: object) -> None:
    """Check a lock document against its schema and that waivers end on a real day.

    Raises:
        ResultsError: one sentence with the JSON path and what was found there.
    """
    _check_plain(lock, "lock")
    _check_schema(lock, "lock")
    assert isinstance(lock, Mapping)
    for name, claim in lock["claims"].items():
        if claim["waiver"] is None:
            continue
        try:
            date.fromisoformat(claim["waiver"]["expires"])
        except ValueError:
            path = _path(["claims", name, "waiver", "expires"])
            found = _show(claim["waiver"]["expires"])
            raise ResultsError(f"lock: {path} is {found}, which is no day of the calendar") from None


def read(path: Path) -> dict[str, Any]:
    """Read and validate a results file of at most 256 MiB.

    Raises:
        ResultsError: one sentence; the file is missing, too large, no JSON, or not by the schema.
    """
    results = _load(path)
    try:
        validate(results)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None
    assert isinstance(results, dict)
    return results


def read_lock(path: Path) -> dict[str, Any]:
    """Read and validate a lock file of at most 256 MiB.

    Raises:
        ResultsError: one sentence; the file is missing, too large, no JSON, or not by the schema.
    """
    lock = _load(path)
    try:
        validate_lock(lock)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None
    assert isinstance(lock, dict)
    return lock


def write_atomically(path: Path, results: Mapping[str, Any]) -> None:
    """Write ``results`` as JSON so that at every moment ``path`` is the old file or the new one.

    The document is not validated here: a run that took days is written even where a field is off,
    and every reader validates.

    Raises:
        ResultsError: one sentence; a value has no place in JSON, or the file cannot be written.
    """
    try:
        text = json.dumps(results, allow_nan=False, indent=1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultsError(f"results cannot be written to {path} as JSON: {error}") from None
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to a new file beside ``path``, sync it, and put it in the place of ``path``.

    Raises:
        ResultsError: one sentence; the folder is missing or not writable, or the disk is full.
    """
    if not path.parent.is_dir():
        raise ResultsError(f"cannot write {path}: the folder {path.parent} does not exist")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; some file systems cannot, which loses nothing but durability."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _load(path: Path) -> object:
    """The JSON value in ``path``; duplicate names, NaN and infinities are refused."""
    if not path.is_file():
        raise ResultsError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_BYTES:
        raise ResultsError(f"{path}: larger than the {MAX_BYTES // 2**20} MiB that are allowed")
    if not raw.strip():  # what a shell leaves behind for the output of a command that failed
        raise ResultsError(f"{path}: the file is empty")
    try:
        value: object = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ResultsError(f"{path}: nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ResultsError(f"{path}: not JSON: {error}") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names occur once: readers that take the first and the last would disagree."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {_show(twice)} occurs twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _check_plain(document: object, kind: str) -> None:
    """Refuse what JSON Schema cannot: NaN, infinities, giant integers, deep nesting."""
    todo: list[tuple[object, tuple[str | int, ...]]] = [(document, ())]
    while todo:
        value, path = todo.pop()
        if isinstance(value, Mapping | list | tuple) and len(path) >= MAX_DEPTH:
            raise ResultsError(f"{kind}: {_path(path[:4])} is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            todo.extend((item, (*path, str(name))) for name, item in value.items())
        elif isinstance(value, list | tuple):
            todo.extend((item, (*path, place)) for place, item in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise ResultsError(f"{kind}: {_path(path)} is {value}, but numbers must be finite")
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise ResultsError(f"{kind}: {_path(path)} is an integer beyond 64 bits")


@functools.cache
def _validator(kind: str) -> Any:
    import jsonschema

    source = resources.files("pytest_prunerob.report") / f"{kind}.schema.json"
    return jsonschema.Draft202012Validator(json.loads(source.read_text("utf-8")))


def _check_schema(document: object, kind: str) -> None:
    """Raise on the first deviation from the schema; a hostile file may hold millions of them."""
    error = next(_validator(kind).iter_errors(document), None)
    if error is not None:
        raise ResultsError(f"{kind}: {_path(list(error.absolute_path))} {_deviation(error)}")


def _deviation(error: Any) -> str:
    """The predicate of the sentence for one jsonschema error."""
    found, wanted = error.instance, error.validator_value
    match error.validator:
        case "required":
            missing = [name for name in wanted if name not in found]
            return f"lacks {', '.join(missing)}"
        case "additionalProperties":
            extra = [name for name in found if name not in error.schema["properties"]]
            return f"has the unknown name {_show(extra[0])}"
        case "enum":
            return f"is {_show(found)}; allowed are {', '.join(wanted)}"
        case "const":
            return f"is {_show(found)}; this version reads {_show(wanted)}"
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return f"is {_show(found)}; it must be {' or '.join(kinds)}"
        case "maxItems" | "maxProperties":
            return f"has {len(found)} entries; at most {wanted} are allowed"
        case "maxLength":
            return f"is {len(found)} characters long; at most {wanted} are allowed"
        case "minLength":
            return "is empty"
        case "minimum" | "maximum":
            side = "least" if error.validator == "minimum" else "most"
            return f"is {_show(found)}; it must be at {side} {wanted}"
        case "pattern":
            return f"is {_show(found)}, which does not have the form {wanted}"
        case "uniqueItems":
            return "names something twice"
        case _:
            return f"is {_show(found)}, against the rule {error.validator}"


def _check_references(results: Mapping[str, Any]) -> None:
    """Every name that one part uses for another must exist, and ids must occur once."""
    cells = _ids(results["cells"], "cells")
    claims = _ids(results["claims"], "claims")
    listed = {claim for cell in results["cells"] for claim in cell["claims"]}
    for table, own in (("measurements", "key"), ("subjects", "digest")):
        for name, entry in results[table].items():
            if entry[own] != name:
                _dangling((table, name, own), entry[own], "not the name it stands under")
    for place, cell in enumerate(results["cells"]):
        for at, claim in enumerate(cell["claims"]):
            if claim not in claims:
                _dangling(["cells", place, "claims", at], claim, "not a claim of this file")
        for at, digest in enumerate(cell["subjects"]):
            if digest not in results["subjects"]:
                _dangling(["cells", place, "subjects", at], digest, "not a subject of this file")
        if results["status"] == "complete" and cell["status"] == "not evaluated":
            _dangling(["cells", place, "status"], cell["status"], "but the run says it is complete")
    for place, claim in enumerate(results["claims"]):
        if claim["cell"] not in cells:
            _dangling(["claims", place, "cell"], claim["cell"], "not a cell of this file")
        if claim["id"].rpartition("#")[0] != claim["cell"]:
            _dangling(["claims", place, "id"], claim["id"], "not its cell's id with #k")
        if claim["id"] not in listed:
            _dangling(["claims", place, "id"], claim["id"], "not listed by any cell")
        for at, term in enumerate(claim["terms"]):
            key = term["measurement"]
            if key is not None and key not in results["measurements"]:
                path = ("claims", place, "terms", at, "measurement")
                _dangling(path, key, "not a measurement of this file")


def _ids(entries: Sequence[Mapping[str, Any]], table: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for place, entry in enumerate(entries):
        if entry["id"] in found:
            _dangling([table, place, "id"], entry["id"], "which occurs twice")
        found[entry["id"]] = entry
    return found


def _dangling(path: Sequence[str | int], found: object, why: str) -> NoReturn:
    raise ResultsError(f"results: {_path(path)} is {_show(found)}, {why}")


def _path(parts: Sequence[str | int]) -> str:
    """A JSON path a person can follow: ``claims[3].terms[0].low``."""
    text = ""
    for part in parts:
        if isinstance(part, str) and part.isidentifier():
            text += f".{part}"
        else:
            text += f"[{_show(part)}]"
    return text.removeprefix(".") or "the document"


def _show(value: object) -> str:
    """A value as it stands in JSON, shortened."""
    text = json.dumps(value, ensure_ascii=True, default=lambda other: f"<{type(other).__name__}>")
    return text if len(text) <= 120 else text[:80] + " … " + text[-30:]
