from __future__ import annotations

import tomllib
from typing import Any

from pytest_prunerob.toml_places import line_and_column, places, text_at

DOCUMENT = '''\
# a comment with [brackets] = "and" 'quotes'
title = "x"   # another
"quoted key" . 'literal.key'.bare = [1, "two", [3.0, 'four'],
  # inside
  { five = 6, "seven" = [ { eight = 9 } ] }, ]
empty = []
none = {}
when = 1979-05-27 07:32:00
[table."sub table"]
text = """
first \\
   \t
   second "" quotes \\" \\u00e9 \\U0001F600 end""\"""
other = \'\'\'literal \\n \'\'\'\'\'
[[list]]
a.b.c = 1
a.b.d = 2
[list.inner]
x = true
[[list.deep]]
y = 1
[[list.deep]]
y = 2
[[list]]
a = -1.5e3
[[list.deep]]
y = 3
'''


def paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path below ``value``, as tomllib sees the document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(*at, key), *paths(item, (*at, key))]
    return found


def test_every_path_of_the_document_has_a_place() -> None:
    assert sorted(map(str, places(DOCUMENT))) == sorted(map(str, paths(tomllib.loads(DOCUMENT))))


def test_places_are_where_things_stand() -> None:
    found = places(DOCUMENT)

    def at(*path: str | int) -> tuple[str, tuple[int, int]]:
        place = found[path]
        return DOCUMENT[place.value :].split("\n")[0][:8], line_and_column(DOCUMENT, place.key)

    assert at("title") == ('"x"   # ', (2, 1))
    assert at("quoted key", "literal.key", "bare") == ('[1, "two', (3, 1))
    assert at("quoted key", "literal.key", "bare", 2, 1) == ("'four'],", (3, 54))
    assert at("quoted key", "literal.key", "bare", 3, "seven", 0, "eight") == ("9 } ] },", (5, 29))
    assert at("table", "sub table") == ('[table."', (9, 1))
    assert at("list", 0, "a", "b", "d") == ("2", (17, 1))
    assert at("list", 0, "inner", "x") == ("true", (19, 1))
    assert at("list", 0, "deep", 1, "y") == ("2", (23, 1))
    assert at("list", 1) == ("[[list]]", (24, 1))
    assert at("list", 1, "deep", 0, "y") == ("3", (27, 1))


def test_texts_are_those_of_tomllib_and_every_character_has_its_offset() -> None:
    data, found = tomllib.loads(DOCUMENT), places(DOCUMENT)
    for path in (("table", "sub table", "text"), ("table", "sub table", "other"), ("title",)):
        value: Any = data
        for key in path:
            value = value[key]
        text = text_at(DOCUMENT, found[path].value)
        assert text.value == value
        written = [DOCUMENT[offset] for offset in text.offsets]
        assert all(a == b or a == "\\" for a, b in zip(written, value, strict=True))
    assert DOCUMENT[text_at(DOCUMENT, found["table", "sub table", "text"].value).offsets[6]] == "s"  # of second


def test_lines_and_columns_count_from_one() -> None:
    assert line_and_column("", 0) == (1, 1)
    assert line_and_column("a\nbc", 1) == (1, 2)
    assert line_and_column("a\nbc", 2) == (2, 1)
    assert line_and_column("a\nbc", 4) == (2, 3)
