"""Untrusted text: claims, claims files, results, locks and tables end in our errors or in what they say, never else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_prunerob import axis, table
from pytest_prunerob.errors import CellsError
from tests.fuzz import targets
from tests.fuzz.mutations import altered, dumped, edited

SHARED_FOLDER = [HealthCheck.function_scoped_fixture]  # each example overwrites the file of the one before

WORDS = """
    ( ) + - * < > = . , ! ' " <= >= ** () aa near 'S10' 0.5 1 1e9 0x1 1j ａ é dense pruned flips reported within
    accuracy robust_accuracy distance quantile share by lambda not if else and in is True None await yield __class__
"""
TOKENS = st.sampled_from([*WORDS.split(), " ", "\n", "9" * 40])


@given(
    st.text(max_size=60)
    | st.lists(TOKENS, max_size=25).map("".join)
    | st.lists(TOKENS, max_size=25).map(" ".join)
    | st.sampled_from(targets.EXPRESSIONS).flatmap(lambda e: edited(e.encode())).map(lambda b: b.decode("latin-1"))
)
@settings(max_examples=400)
def test_the_grammar(text: str) -> None:
    targets.grammar(text)


@pytest.mark.parametrize("times", [10, 49, 51, 199, 600, 1999])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("(", ")"),
        ("-", ""),
        ("not ", ""),
        ("1+", "1"),
        ("1**", "1"),
        ("1 if 1 else ", "1"),
        ("f(", ")"),
        ("await ", "x"),
    ],
)
def test_the_grammar_deep_down(opening: str, closing: str, times: int) -> None:
    targets.grammar((opening * times + "1" + closing * times)[:2000])
    targets.grammar((opening * times)[:2000])


MARKS = (b"[", b"]", b"{", b"}", b'"', b"'''", b'"""', b"\n", b"\r", b"#", b"=", b".", b"\\u00e9")
PIECES = (
    *(b"\xff", b"\x00", b"nan", b"-inf", b"9" * 5000, b"1e999999999", b"1979-05-27", b"{}", b"[]", b"0", b"true"),
    *(b"[[claims]]\n", b"[cells]\n", b"[plans]\n", b'"os:abort"', b"[" * 2000, b"a." * 60),
)


@given(st.binary(max_size=40) | edited(targets.DOCUMENT, MARKS + PIECES))
@settings(max_examples=300)
def test_the_claims_file(payload: bytes) -> None:
    targets.toml(payload)


VALUES = """
    1 -1 0.5 "text" "" true [] [1] ["a"] {} {a=1} [[]] 1979-05-27 nan inf "a.pt2" "npz:x" {a={axis="b"}} "../x" "[x"
    1e999999999 "1e-99999" 99999999999999999999999999999999999999999999999999999999999999999
"""
KEYS = """
    name claim attack eps norm steps stages version samples dataset dense sparsity seed profiles reported xfail path key
    column unit cells cells.reported x
"""
HEADERS = ["[[claims]]", "[claims.cells]", "[claims.cells.reported]", "[cells]", "[plans]", "[plans.aa]", "[x]"]
HEADERS += ['[[claims]]\nname = "it"\nclaim = "pruned.accuracy() > 0.5"\n[claims.cells]', '[plans.bb]\nattack = "fgsm"']
PAIRS = st.builds("{} = {}".format, st.sampled_from(KEYS.split()), st.sampled_from(VALUES.split()))
LINES = st.sampled_from(HEADERS) | PAIRS


@given(st.lists(LINES, max_size=8).map("\n".join))
@settings(max_examples=300)
def test_the_claims_file_with_values_of_every_kind(document: str) -> None:
    targets.toml(document.encode())
    targets.toml_places(document.encode())


@given(edited(targets.DOCUMENT, MARKS))
@settings(max_examples=200)
def test_the_places_in_a_claims_file(payload: bytes) -> None:
    targets.toml_places(payload)


RESULTS: Any = json.loads((targets.DATA / "results_example.json").read_bytes())
LOCK: Any = {
    "schema": "prunerob-lock/1",
    "created": "2026-03-04T09:12:30+00:00",
    "population": "testset",
    "confidence": 0.95,
    "decide": "exact",
    "adequacy": "basic",
    "seed": 0,
    "subjects": {"a1": {"weights": "b2", "roles": ["pruned"]}},
    "claims": {
        "test_a.py::test_a[x]#1": {
            "text": "pruned.accuracy() > 0.9",
            "expected": "supported",
            "n": 100,
            "dataset": "c3",
            "subjects": ["a1"],
            "waiver": {"reason": "known", "expires": "2026-12-31"},
        }
    },
}


@settings(max_examples=150, suppress_health_check=SHARED_FOLDER)
@given(
    altered(RESULTS).map(dumped)
    | altered(LOCK).map(dumped)
    | edited(dumped(LOCK), (b"{", b"[", b'"', b"NaN", b"9" * 5000, b"1e999", b"\\ud800", b"[" * 5000))
    | st.binary(max_size=20)
)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 10_000)
@example(b'"\\ud800"')
def test_the_results_reader(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(payload)
    targets.results_reader(path)


def test_the_documents_that_are_altered_are_valid(tmp_path: Path) -> None:
    from pytest_prunerob.report.results import read, read_lock

    for value, read_one in ((RESULTS, read), (LOCK, read_lock)):
        (tmp_path / "r.json").write_bytes(dumped(value))
        assert read_one(tmp_path / "r.json") == value
    targets.read(targets.DOCUMENT.replace(b'\\"weak\\"', b"weak"), "f")


TABLE = b'name,s,"value"\na,0.90,44.07\nb,0.50,\xe2\x88\x921.5\n'
CSV = (
    b",",
    b'"',
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"1e999999999",
    b"1e-999999999",
    b"nan",
    b"inf",
    b"9" * 200_000,
    b"\xef\xbb\xbf",
)


@settings(max_examples=200, suppress_health_check=SHARED_FOLDER)
@given(edited(TABLE, CSV) | st.binary(max_size=30))
def test_the_reported_table(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(payload)
    for key in ({"name": "a"}, {"s": axis("sparsity")}):
        try:
            number = table("t.csv", key=key, column="value").look_up({"sparsity": "0.90"}, tmp_path)  # type: ignore[arg-type]
        except CellsError:
            continue
        assert number.low <= number.value <= number.high
