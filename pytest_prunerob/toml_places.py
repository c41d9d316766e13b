"""Where every key and value of a TOML document stands: ``tomllib`` tells what a document holds but not where.

The scanner is for documents that ``tomllib`` has read without complaint; it checks nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Path = tuple[str | int, ...]
_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_FOLD = re.compile(r"\\[ \t]*\n[ \t\n]*")  # a backslash at the end of a line joins it to the next
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}
_CODES = {"x": 2, "u": 4, "U": 8}  # escapes by number, with their digits


@dataclass(frozen=True)
class Place:
    """Offsets in the document of a key (or table header) and of its value."""

    key: int
    value: int


@dataclass(frozen=True)
class Text:
    """A string of the document: its value, the offset of each character of it, and where it ends."""

    value: str
    offsets: tuple[int, ...]
    end: int


def places(document: str) -> dict[Path, Place]:
    """The place of every key, table and array item, by its path, such as ``("claims", 0, "name")``.

    Args:
        document: a valid TOML document whose lines end in a plain line feed.
    """
    return _Scanner(document).document()


def line_and_column(document: str, offset: int) -> tuple[int, int]:
    """The line and column of ``offset``, both from 1, in characters."""
    start = document.rfind("\n", 0, offset) + 1
    return document.count("\n", 0, offset) + 1, offset - start + 1


def text_at(document: str, start: int) -> Text:
    """The string that starts with its quote at ``start``."""
    quote = document[start]
    long = document.startswith(quote * 3, start)
    end_mark = quote * 3 if long else quote
    at = start + len(end_mark)
    if long and document.startswith("\n", at):
        at += 1
    characters: list[str] = []
    offsets: list[int] = []
    while not document.startswith(end_mark, at) or (long and document.startswith(quote * 4, at)):
        character, after = document[at], at + 1
        if quote == '"' and character == "\\":
            fold = _FOLD.match(document, at)
            if fold is not None:
                at = fold.end()
                continue
            character, after = _escape(document, at + 1)
        characters.append(character)
        offsets.append(at)
        at = after
    return Text("".join(characters), tuple(offsets), at + len(end_mark))


def _escape(document: str, at: int) -> tuple[str, int]:
    kind = document[at]
    if kind in _CODES:
        end = at + 1 + _CODES[kind]
        return chr(int(document[at + 1 : end], 16)), end
    return _ESCAPES[kind], at + 1


class _Scanner:
    """One pass over a document."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, Place] = {}
        self.lengths: dict[Path, int] = {}  # of the arrays of tables

    def document(self) -> dict[Path, Place]:
        """The places of the whole document."""
        table: Path = ()
        self._space()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._space()
        return self.found

    def _header(self) -> Path:
        start = self.at
        array = self.text.startswith("[[", start)
        self.at += 2 if array else 1
        keys = self._key()
        self.at += 2 if array else 1
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            last = number == len(keys) - 1
            if array and last:
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if not last:
                self.found.setdefault(path, Place(start, start))
            if path in self.lengths:
                self.found.setdefault(path, Place(start, start))
                path = (*path, self.lengths[path] - 1)
        self.found[path] = Place(start, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self.at
        keys = self._key()
        self.at += 1  # the equals sign
        self._space()
        path = table
        for key in keys[:-1]:
            path = (*path, key)
            self.found.setdefault(path, Place(start, start))
        path = (*path, keys[-1])
        self.found[path] = Place(start, self.at)
        self._value(path)

    def _key(self) -> list[str]:
        keys = []
        while True:
            self._space()
            bare = _BARE.match(self.text, self.at)
            if bare is not None:
                keys.append(bare.group())
                self.at = bare.end()
            else:
                quoted = text_at(self.text, self.at)
                keys.append(quoted.value)
                self.at = quoted.end
            self._space()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self.at = text_at(self.text, self.at).end
        elif first == "[":
            self._items(path, "]")
        elif first == "{":
            self._items(path, "}")
        else:
            self.at = _SCALAR.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches anything

    def _items(self, path: Path, end: str) -> None:
        self.at += 1
        number = 0
        self._space()
        while self.text[self.at] != end:
            if end == "}":
                self._pair(path)
            else:
                self.found[(*path, number)] = Place(self.at, self.at)
                self._value((*path, number))
                number += 1
            self._space()
            if self.text[self.at] == ",":
                self.at += 1
                self._space()
        self.at += 1

    def _space(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches anything
