from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report import results as module
from pytest_prunerob.report.results import (
    clip,
    empty_running,
    read,
    read_lock,
    summary,
    validate,
    validate_lock,
    write_atomically,
)

EXAMPLE = Path(__file__).parents[1] / "data" / "results_example.json"
STARTED = "2026-03-04T09:12:30+00:00"


@pytest.fixture
def results() -> dict[str, Any]:
    return read(EXAMPLE)


@pytest.fixture
def lock() -> dict[str, Any]:
    return {
        "schema": "prunerob-lock/1",
        "created": STARTED,
        "population": "testset",
        "confidence": 0.95,
        "decide": "exact",
        "adequacy": "basic",
        "seed": 0,
        "subjects": {"a1": {"weights": "b2", "roles": ["pruned"]}},
        "claims": {
            "test_a.py::test_a[x]#0": {
                "text": "pruned.accuracy() > 0.9",
                "expected": "supported",
                "n": 100,
                "dataset": "c3",
                "subjects": ["a1"],
                "waiver": {"reason": "known, see the release notes", "expires": "2026-12-31"},
            },
            "test_a.py::test_b[x]#0": {
                "text": "c",
                "expected": "refuted",
                "n": 100,
                "dataset": None,
                "subjects": None,
                "waiver": None,
            },
        },
    }


def test_what_is_written_is_what_is_read(tmp_path: Path, results: dict[str, Any]) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, results)
    assert read(path) == results
    assert list(path.read_text().splitlines())[1] == ' "schema": "prunerob-results/1",'


def test_the_running_skeleton_is_valid_and_counts_nothing(tmp_path: Path) -> None:
    skeleton = empty_running(STARTED)
    validate(skeleton)
    assert skeleton["status"] == "running"
    assert summary(skeleton) == {"supported": 0, "refuted": 0, "inconclusive": 0, "error": 0}


def test_summary_counts_verdicts(results: dict[str, Any]) -> None:
    assert summary(results) == {"supported": 4, "refuted": 2, "inconclusive": 1, "error": 1}


def _set(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split("/")
    place: Any = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "claims/0/verdict",
            "maybe",
            'results: claims[0].verdict is "maybe"; allowed are supported, refuted, inconclusive, error',
        ),
        ("claims/0/expected", "inconclusive", "claims[0].expected is"),
        ("claims/0/n", -1, "results: claims[0].n is -1; it must be at least 0"),
        ("claims/0/n", True, "results: claims[0].n is true; it must be integer"),
        ("claims/0/confidence", float("nan"), "claims[0].confidence is nan, but numbers must be"),
        ("claims/0/terms/0/low", float("inf"), "claims[0].terms[0].low is inf, but numbers must"),
        ("claims/0/terms/0/low", "infinity", "claims[0].terms[0].low is"),
        ("claims/0/terms/0/coefficient", 10**400, "coefficient is an integer beyond 64 bits"),
        ("claims/0/extra", 1, 'claims[0] has the unknown name "extra"'),
        ("claims/0/cell", "elsewhere", "claims[0].cell is"),
        ("claims/1/id", "x#0", "cells[1].claims[0] is"),
        ("cells/0/claims", [], 'claims[0].id is "robustness_suites/quickstart'),
        ("cells/0/subjects", ["gone"], 'cells[0].subjects[0] is "gone", not a subject of this'),
        ("cells/0/status", "ok", 'cells[0].status is "ok"; allowed are passed, failed'),
        ("cells/0/message", "x" * 65537, "cells[0].message is 65537 characters long; at most"),
        ("claims/0/terms/0/measurement", "gone", 'measurement is "gone", not a measurement of'),
        ("started", "yesterday", 'started is "yesterday", which does not have the form'),
        ("schema", "prunerob-results/2", "this version reads"),
        ("status", "complete", 'cells[7].status is "not evaluated", but the run says'),
        ("cost", None, "results: cost is null; it must be object"),
    ],
)
def test_a_deviation_is_named_by_its_path(results: dict[str, Any], path: str, value: object, sentence: str) -> None:
    _set(results, path, value)
    with pytest.raises(ResultsError) as caught:
        validate(results)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_name_and_a_doubled_id_are_refused(results: dict[str, Any]) -> None:
    without = copy.deepcopy(results)
    del without["claims"][2]["margin"]
    with pytest.raises(ResultsError, match=r"claims\[2\] lacks margin"):
        validate(without)
    results["cells"].append(results["cells"][0])
    with pytest.raises(ResultsError, match=r"cells\[8\]\.id is .* which occurs twice"):
        validate(results)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"[1, 2", "not JSON"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b'{"status": NaN}', "NaN is no JSON number"),
        (b'{"status": 1e999}', "status is inf, but numbers must be finite"),
        (b'{"status": "complete", "status": "running"}', '"status" occurs twice'),
        (b"[" * 17 + b"]" * 17, "nested deeper than 16 levels"),
        (b"[" * 200_000, "nested deeper than 16 levels"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "the document is []; it must be object"),
    ],
)
def test_a_file_that_is_no_results_file(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_and_an_oversized_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResultsError, match="no such file"):
        read(tmp_path / "none.json")
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    (tmp_path / "big.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ResultsError, match="larger than the 1 MiB"):
        read(tmp_path / "big.json")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, empty_running(STARTED))
    before = path.read_bytes()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, results)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ResultsError, match="as JSON"):
        write_atomically(path, {"x": value})
    assert path.read_text() == "old"


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"the folder .*none does not exist"):
        write_atomically(tmp_path / "none" / "results.json", {})


def test_long_messages_are_clipped_in_the_middle() -> None:
    assert clip("short") == "short"
    cut = clip("a" * 5000 + "b" * 5000, 1000)
    assert len(cut) <= 1000
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")
    assert "9000 characters left out" in cut


def test_a_lock_is_read_back(tmp_path: Path, lock: dict[str, Any]) -> None:
    path = tmp_path / "claims.lock"
    write_atomically(path, lock)
    assert read_lock(path) == lock


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("reason", " ", "which does not have the form"),
        ("expires", "2026-02-30", "which is no day of the calendar"),
        ("expires", "30.12.2026", "which does not have the form"),
    ],
)
def test_a_waiver_needs_a_reason_and_a_day(lock: dict[str, Any], name: str, value: str, sentence: str) -> None:
    lock["claims"]["test_a.py::test_a[x]#0"]["waiver"][name] = value
    with pytest.raises(ResultsError, match=sentence) as caught:
        validate_lock(lock)
    assert f'claims["test_a.py::test_a[x]#0"].waiver.{name} is' in str(caught.value)


def test_the_module_is_light() -> None:
    code = (
        "import sys, pytest_prunerob.report.results;"
        "print([m for m in ('jinja2', 'jsonschema', 'torch', 'numpy', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_example_is_written_the_way_the_writer_writes() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n" == text
