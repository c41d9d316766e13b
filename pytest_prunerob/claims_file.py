"""Claims in a file, ``*.claims.toml``: plans by name, and claims with their cells. Its author is not trusted.

A file names no code and no path outside the project, and whatever is wrong with it is one sentence with its place.
``docs/toml_claims.md`` describes the file.
"""

from __future__ import annotations

import inspect
import keyword
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from pytest_prunerob import plans
from pytest_prunerob.cells import AXES, cells
from pytest_prunerob.errors import ClaimsFileError, GrammarError, InputError, unknown
from pytest_prunerob.grammar import WORDS, Expression, parse
from pytest_prunerob.plans import Plan
from pytest_prunerob.reported import Table, axis, table
from pytest_prunerob.toml_places import Path, Place, line_and_column, places, text_at

FILE_BYTES = 1_000_000  # ours: a thousand claims are some 300 kilobytes
CLAIMS = 1000  # in one file (ours)
CELLS = 10_000  # of one file (ours): a grid is multiplied out before anything can select from it
DOTS = 100  # in one line (ours): tomllib takes quadratic time for a key of many parts
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")

_AUTOATTACK = {"norm": "text", "eps": "number", "micro_batch": "[whole number]"}
_KINDS = {
    "Number": "number",
    "Number | None": "number",
    "int": "whole number",
    "bool": "boolean",
    "str": "text",
    "str | None": "text",
}


def _parameters(constructor: Callable[..., Plan]) -> dict[str, str]:
    """The parameters of an attack by their kind, read from its constructor; those in brackets may be left out."""
    found = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        kind = _KINDS[str(parameter.annotation)]
        found[name] = kind if parameter.default is parameter.empty else f"[{kind}]"
    return found


# The parameters of each attack by their kind; those without a bracket are required.
ATTACKS: Mapping[str, Mapping[str, str]] = {
    name: {"version": "[text]", "stages": "[texts]", **_AUTOATTACK}
    if name == "autoattack"
    else _parameters(constructor)
    for name, constructor in plans.PLANS.items()
}
_CLAIM = {"name": "text", "claim": "text", "cells": "[table]"}
_CELLS = {
    **{name: "[texts]" for name in AXES},
    "sparsity": "[numbers]",
    "rate": "[numbers]",
    "iterations": "[whole numbers]",
    "seed": "[whole numbers]",
    "samples": "[whole number]",
    "profiles": "[table]",
    "reported": "[table]",
    "xfail": "[table]",
}
_PROFILE = {name: kind for name, kind in _CELLS.items() if name in (*AXES, "samples")}
_REPORTED = {
    "path": "text",
    "key": "table",
    "column": "text",
    "unit": "[text]",
    "metric": "[text]",
    "note": "[text]",
    "samples": "[whole number]",
}


@dataclass(frozen=True)
class WrittenClaim:
    """One claim of a file: its name, where it stands, what it says, and the decorator that gives it its cells."""

    name: str
    line: int
    place: str
    expression: Expression
    cells: Callable[[Any], Any]


def read(payload: bytes, shown: str) -> tuple[WrittenClaim, ...]:
    """The claims in ``payload``, the bytes of the file called ``shown``.

    Raises:
        ClaimsFileError: ``FILE:LINE:COLUMN: SENTENCE`` for the first thing that is wrong.
    """
    document, data = _load(payload, shown)
    return _Reader(document, shown).claims(data)


@dataclass(frozen=True)
class _Number:
    """A decimal number as it was written."""

    text: str


def _load(payload: bytes, shown: str) -> tuple[str, dict[str, Any]]:
    if len(payload) > FILE_BYTES:
        raise ClaimsFileError(f"{shown}:1:1: the file is larger than {FILE_BYTES} bytes")
    try:
        document = payload.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = payload.count(b"\n", 0, error.start) + 1
        raise ClaimsFileError(f"{shown}:{line}:1: not UTF-8 at byte {error.start}") from None
    for number, line_text in enumerate(document.split("\n"), start=1):
        if line_text.count(".") > DOTS:
            raise ClaimsFileError(f"{shown}:{number}:1: more than {DOTS} dots in a line: break the line")
    try:
        return document, tomllib.loads(document, parse_float=_Number)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        line, column = line_and_column(document, len(document))
        if found is not None and found[1]:
            line, column = int(found[1]), int(found[2])
        sentence = str(error).replace(found[0], "") if found is not None else str(error)
        raise ClaimsFileError(f"{shown}:{line}:{column}: not TOML: {sentence}") from None
    except (ValueError, RecursionError) as error:  # a whole number of thousands of digits; thousands of brackets
        why = "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
        raise ClaimsFileError(f"{shown}:1:1: not read: {why}") from None


class _Reader:
    """Turns the data of one document into claims; every error points at its place."""

    def __init__(self, document: str, shown: str) -> None:
        self.document = document
        self.shown = shown
        self.places: dict[Path, Place] = places(document)
        self.cells = 0

    def claims(self, data: Mapping[str, Any]) -> tuple[WrittenClaim, ...]:
        """All claims of the document."""
        self._keys(data, (), {"plans": "[table]", "cells": "[table]", "claims": "[tables]"}, "key")
        made = {name: self._plan(name, given) for name, given in data.get("plans", {}).items()}
        written = data.get("claims", [])
        if not written:
            raise self._error((), "the file holds no [[claims]]: a gate without claims would let everything pass")
        if len(written) > CLAIMS:
            raise self._error(("claims", CLAIMS), f"{len(written)} claims: at most {CLAIMS} are allowed in a file")
        shared = data.get("cells", {})
        found: dict[str, WrittenClaim] = {}
        for number, given in enumerate(written):
            claim = self._claim(("claims", number), given, made, shared)
            if claim.name in found:
                first = found[claim.name].line
                raise self._error(("claims", number, "name"), f"the name {claim.name!r} is that of line {first}")
            found[claim.name] = claim
        return tuple(found.values())

    def _plan(self, name: str, given: object) -> Plan:
        at: Path = ("plans", name)
        if not NAME.fullmatch(name) or name in WORDS or keyword.iskeyword(name):
            raise self._error(at, f"{_shown(name)} cannot name a plan: write letters, digits and _, no word of claims")
        self._is(given, at, "table", f"plans.{name}")
        assert isinstance(given, Mapping)
        if "attack" not in given:
            raise self._error(at, f"the plan {name!r} lacks 'attack': allowed are {', '.join(ATTACKS)}")
        attack = given["attack"]
        if attack not in list(ATTACKS):
            raise self._error((*at, "attack"), unknown("attack", attack, ATTACKS))
        self._keys(given, at, {"attack": "text", **ATTACKS[attack]}, f"parameter of {attack}")
        arguments = {key: _plain(value) for key, value in given.items() if key != "attack"}
        if "version" in arguments and "stages" in arguments:
            raise self._error((*at, "stages"), f"the plan {name!r} has a version and stages: write one of them")
        if "version" in arguments:
            arguments["stages"] = arguments.pop("version")
        if "textures" in arguments:
            self._inside(arguments["textures"], (*at, "textures"))
        try:
            plan = plans.PLANS[attack](**arguments)
        except InputError as error:
            named = [key for key in given if str(error).startswith((f"{key}=", f"unknown {key} "))]
            raise self._error((*at, *named[:1]), str(error)) from None
        return plan

    def _claim(
        self, at: Path, given: Mapping[str, Any], made: Mapping[str, Plan], shared: Mapping[str, Any]
    ) -> WrittenClaim:
        self._keys(given, at, _CLAIM, "key of a claim")
        name, text = given["name"], given["claim"]
        if not NAME.fullmatch(name) or name.startswith("pytest"):
            raise self._error(
                (*at, "name"), f"{_shown(name)} cannot name a claim: write a letter, then letters, digits and _"
            )
        own = given.get("cells", {})
        grid = {**shared, **own}
        homes: dict[str, Path] = {key: (*at, "cells") if key in own else ("cells",) for key in grid}
        decorate = self._grid(grid, homes, at)
        try:
            expression = parse(text, made, reported="reported" in grid)
        except GrammarError as error:
            value = text_at(self.document, self.places[(*at, "claim")].value)
            place = value.offsets[error.offset] if error.offset < len(value.offsets) else value.end - 1
            raise self._error_at(place, str(error)) from None
        line, _ = line_and_column(self.document, self.places[(*at, "claim")].key)
        return WrittenClaim(name, line, self._place((*at, "cells")), expression, decorate)

    def _grid(self, grid: Mapping[str, Any], homes: Mapping[str, Path], at: Path) -> Callable[[Any], Any]:
        for key, home in homes.items():
            self._keys({key: grid[key]}, home, _CELLS, "key of cells")
            self._guarded(key, grid[key], (*home, key))
        profiles = {}
        for name, profile in grid.get("profiles", {}).items():
            place = (*homes["profiles"], "profiles", name)
            self._is(profile, place, "table", f"the profile {name!r}")
            self._keys(profile, place, _PROFILE, "key of a profile")
            for key in profile:
                self._guarded(key, profile[key], (*place, key))
            profiles[name] = {key: _plain(value) for key, value in profile.items()}
        for glob, reason in grid.get("xfail", {}).items():
            self._is(reason, (*homes["xfail"], "xfail", glob), "text", f"the reason of {glob!r}")
        arguments = {key: _plain(grid[key]) for key in grid if key in (*AXES, "samples")}
        self._count([arguments, *({**arguments, **profile} for profile in profiles.values())], (*at, "cells"))
        reported = self._reported(grid["reported"], (*homes["reported"], "reported")) if "reported" in grid else None
        try:
            return cells(profiles=profiles, reported=reported, xfail=grid.get("xfail"), **arguments)
        except InputError as error:
            raise self._error((*at, "cells"), str(error)) from None

    def _guarded(self, key: str, given: Any, at: Path) -> None:
        """Models by file only, and files of the project only."""
        for value in given if isinstance(given, list) else [given]:
            if key in ("dense", "pruned"):
                if not value.endswith(".pt2") or ":" in value:
                    raise self._error(
                        at,
                        f"{key} = {_shown(value)}: a claims file names no code: give an exported program (.pt2), "
                        f"or override the fixture {key}_model in conftest.py",
                    )
                self._inside(value, at)
            elif key == "dataset":
                self._dataset(value, at)

    def _dataset(self, value: str, at: Path) -> None:
        scheme, _, rest = value.partition(":")
        if scheme == "torchvision":
            if "?" in rest:
                raise self._error(at, f"dataset = {_shown(value)}: a claims file downloads nothing")
            rest = rest.partition("@")[2]
        self._inside(rest, at)

    def _inside(self, path: str, at: Path) -> None:
        parts = PureWindowsPath(path)  # which knows the separators and roots of all systems
        if parts.drive or parts.root or ".." in parts.parts or "\0" in path:
            raise self._error(at, f"{_shown(path)}: a path of a claims file stays inside the project, without '..'")

    def _count(self, grids: Iterable[Mapping[str, Any]], at: Path) -> None:
        lengths = [[len(v) if isinstance(v, list) else 1 for v in grid.values()] for grid in grids]
        self.cells += max(math.prod(one) for one in lengths)
        if self.cells > CELLS:
            raise self._error(at, f"{self.cells} cells: at most {CELLS} are allowed in a file")

    def _reported(self, given: Mapping[str, Any], at: Path) -> Table:
        self._keys(given, at, _REPORTED, "key of reported")
        self._inside(given["path"], (*at, "path"))
        key: dict[str, Any] = {}
        for column, value in given["key"].items():
            place = (*at, "key", column)
            if isinstance(value, Mapping):
                self._keys(value, place, {"axis": "text", "values": "[table]"}, "key of an axis")
                for text in value.get("values", {}).values():
                    self._is(text, (*place, "values"), "text", "a value of the table")
                key[column] = axis(value["axis"], value.get("values"))
            else:
                self._is(value, place, "text", f"the value of the column {column!r}")
                key[column] = value
        more = {name: given[name] for name in ("unit", "metric", "note", "samples") if name in given}
        try:
            return table(given["path"], key=key, column=given["column"], **more)
        except InputError as error:
            wrong = "samples" if str(error).startswith("samples") else "unit"
            raise self._error((*at, wrong), str(error)) from None

    def _keys(self, given: Mapping[str, Any], at: Path, wanted: Mapping[str, str], what: str) -> None:
        """The keys of a table are known, those required are there, and their values are of the right kind."""
        for key, value in given.items():
            if key not in wanted:
                raise self._error((*at, key), unknown(what, key, wanted))
            self._is(value, (*at, key), wanted[key].strip("[]"), key)
        for key, kind in wanted.items():
            if key not in given and not kind.startswith("["):
                raise self._error(at, f"{'.'.join(part for part in at if isinstance(part, str))} lacks {key!r}")

    def _is(self, value: object, at: Path, kind: str, what: str) -> None:
        if _fits(value, kind):
            return
        expected = {"texts": "a text or a list of them", "tables": "tables, [[claims]]", "boolean": "true or false"}
        text = expected.get(kind, f"a {kind}" if not kind.endswith("s") else f"a {kind[:-1]} or a list of them")
        raise self._error(at, f"{what} = {_shown(value)}: expected is {text}")

    def _error(self, at: Path, sentence: str) -> ClaimsFileError:
        return ClaimsFileError(f"{self._place(at)}: {sentence}")

    def _error_at(self, offset: int, sentence: str) -> ClaimsFileError:
        line, column = line_and_column(self.document, offset)
        return ClaimsFileError(f"{self.shown}:{line}:{column}: {sentence}")

    def _place(self, at: Path) -> str:
        """``FILE:LINE:COLUMN`` of what stands at ``at``, or of the nearest that it belongs to."""
        while at and at not in self.places:
            at = at[:-1]
        place = self.places[at].key if at else 0
        line, column = line_and_column(self.document, place)
        return f"{self.shown}:{line}:{column}"


def _fits(value: object, kind: str) -> bool:
    if kind in ("texts", "numbers", "whole numbers", "tables"):
        if isinstance(value, list):
            return all(_fits(item, kind[:-1]) for item in value)
        return kind != "tables" and _fits(value, kind[:-1])
    whole = isinstance(value, int) and not isinstance(value, bool)
    return {
        "text": isinstance(value, str),
        "number": whole or isinstance(value, str | _Number),
        "whole number": whole,
        "boolean": isinstance(value, bool),
        "table": isinstance(value, Mapping),
    }[kind]


def _plain(value: Any) -> Any:
    """``value`` with its decimal numbers as the texts that they were written as."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.text if isinstance(value, _Number) else value


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = value.text if isinstance(value, _Number) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
