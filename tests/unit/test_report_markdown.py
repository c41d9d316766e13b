from __future__ import annotations

import copy
import csv
import io
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_prunerob.cli import main
from pytest_prunerob.report.markdown import LINES, ROWS, code, render_markdown
from pytest_prunerob.report.results import validate
from pytest_prunerob.report.spreadsheet import COLUMNS, render_csv
from tests.unit.test_report_html import EXAMPLE, PLAIN, SPECIAL, lock_with, numbered, with_texts

DATA = Path(__file__).parents[1] / "data" / "results_example.json"
MARKUP = st.sampled_from(
    ["`", "``", "```", "|", "\\|", "\\", "\\`", "](https://evil.example)", "![x](x)", "@someone", "# h", "| --- |"]
)


def without_code(text: str) -> str:
    """``text`` with each code span as "□": a run of backticks is closed by the next of the same length (CommonMark).

    A line is a block of its own here, which is stricter than the rule: no span reaches beyond its line.
    """
    lines = []
    for line in text.split("\n"):
        rest, kept = line, ""
        while opening := re.search("`+", rest):
            fence = opening[0]
            closing = re.search(f"(?<!`){fence}(?!`)", rest[opening.end() :])
            assert closing is not None, line
            kept += rest[: opening.start()] + "□"
            rest = rest[opening.end() + closing.end() :]
        lines.append(kept + rest)
    return "\n".join(lines)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(MARKUP | SPECIAL | st.text(max_size=20), min_size=1, max_size=8))
def test_no_text_of_the_document_becomes_markup(payloads: list[str]) -> None:
    document = with_texts(numbered([f"x{payload}" for payload in payloads]))
    validate(document)
    assert without_code(render_markdown(document)) == without_code(render_markdown(PLAIN))


def test_nothing_but_own_words_stand_outside_of_code() -> None:
    skeleton = without_code(render_markdown(EXAMPLE, lock_with({}), date(2026, 11, 21)))
    for sign in ("<", "http", "@", "](", "`", "\\"):
        assert sign not in skeleton
    assert {line.count("|") for line in skeleton.splitlines() if line.startswith("|")} == {4, 7}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "` plain `"),
        ("a ` b", "`` a ` b ``"),
        ("`", "`` ` ``"),
        ("```\n``", "```` ``` `` ````"),
        ("", "–"),
        (" \n ", "–"),
        ("a\x1b[31m\u202e", "` a[U+001B][31m[U+202E] `"),
        ("y" * 400, f"` {'y' * 299}… `"),
    ],
)
def test_code_spans(text: str, written: str) -> None:
    assert code(text) == written


def test_a_pipe_does_not_end_a_cell() -> None:
    assert code("a|b\\|c", cell=True) == "` a¦b\\¦c `"
    assert code("a|b") == "` a|b `"


def test_the_summary_of_the_example() -> None:
    text = render_markdown(EXAMPLE)
    lines = text.splitlines()
    assert lines[0] == "## Robustness claims"
    assert lines[2].startswith("**5 of 8 claims came out as expected; 1 refuted;")
    assert lines[4] == ("> **This run is incomplete: 1 planned cell came to no result. It supports no release.**")
    assert "> The time budget of 30m was spent before every claim was decided: run again to go on." in lines
    assert "| supported | 4 | 0 |" in lines
    assert "| refuted | 1 | **1** |" in lines
    points = [line for line in lines if line.startswith("- **")]
    assert points[0] == (
        "- **refuted, expected supported** ` pruned.robust_accuracy(autoattack standard, linf, eps 0.2) >= "
        "dense.robust_accuracy(autoattack standard, linf, eps 0.2) - 0.03 `: "
        "` at most 41 of 200 can survive, 123 are needed `"
    )
    assert len(points) == 7
    (row,) = (line for line in lines if "` 44.07 % `" in line.replace("\N{NARROW NO-BREAK SPACE}", " "))
    assert row.replace("\N{NARROW NO-BREAK SPACE}", " ").endswith(
        "| ` 44.07 % ` | 65.0 % | +20.9 points | above the reported number |"
    )
    assert "- device ` Intel(R) Xeon(R) Gold 6338 `, seed 0" in lines
    assert "- ` pytest-prunerob 0.1.0, torch 2.10.0 `, git ` 5f0e9c1d7f24b4d6f0a3be7c2d3a9d0c1b6e8a47 `" in lines


def test_long_lists_are_cut_and_say_so() -> None:
    document = copy.deepcopy(EXAMPLE)
    document["store"]["quarantined"] = [f"file {number}" for number in range(100)]
    first = document["claims"][0]
    document["claims"] += [{**first, "id": f"{first['cell']}#{number}"} for number in range(10, 90)]
    text = render_markdown(document)
    assert sum(line.startswith("- **") for line in text.splitlines()) == LINES
    assert f"- and {6 + 100 - LINES} more points: see the report" in text
    assert f"and {82 - ROWS} more rows: see the report" in text


def test_waivers_and_a_calm_run() -> None:
    refuted = EXAMPLE["claims"][1]["id"]
    text = render_markdown(EXAMPLE, lock_with({refuted: ("ticket `412`", "2026-11-20")}), date(2026, 11, 21))
    assert f"- ` {refuted} ` **expired on** ` 2026-11-20 `: `` ticket `412` ``" in text.splitlines()
    text = render_markdown(EXAMPLE, lock_with({refuted: ("ticket", "2026-11-21")}), date(2026, 11, 21))
    assert "- **refuted, waived until ` 2026-11-21 `** ` pruned.robust" in text

    calm = copy.deepcopy(EXAMPLE)
    calm["cells"], calm["claims"] = [calm["cells"][0]], [calm["claims"][0]]
    calm["store"]["quarantined"] = []
    calm["selection"]["planned"] = 1
    calm.update(status="complete", exit_status=0)
    assert "Everything came out as expected." in render_markdown(calm)
    assert "Needs attention" not in render_markdown(calm)


def rows(document: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(document))))


def test_the_claims_as_a_spreadsheet() -> None:
    found = rows(EXAMPLE)
    assert list(found[0]) == list(COLUMNS)
    assert [row["verdict"] for row in found] == [claim["verdict"] for claim in EXAMPLE["claims"]]
    assert (found[0]["reported"], found[0]["re_evaluated"], found[0]["p_value"]) == ("44.07", "0.65", "0.0121")
    assert (found[1]["re_evaluated"], found[1]["p_value"]) == ("", "")
    hostile = copy.deepcopy(EXAMPLE)
    for number, text in enumerate(["=1+1", "+cmd", "-2", "@SUM(A1)", " =1", "\t=1", 'a",\n"b']):
        hostile["claims"][number]["text"] = text
    texts = [row["text"] for row in rows(hostile)][:7]
    assert texts == ["'=1+1", "'+cmd", "'-2", "'@SUM(A1)", "' =1", "'\t=1", 'a",\n"b']


def test_the_command_writes_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html, markdown, table = tmp_path / "r.html", tmp_path / "r.md", tmp_path / "r.csv"
    assert main(["report", str(DATA), "--html", str(html), "--markdown", str(markdown), "--csv", str(table)]) == 0
    assert html.read_text().startswith("<!doctype html>")
    assert markdown.read_text() == render_markdown(EXAMPLE)
    assert table.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert main(["report", str(DATA)]) == 4
    assert "prunerob report: name what to write: --html FILE, --markdown FILE or --csv FILE" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({**EXAMPLE, "status": "fine"}))
    assert main(["report", str(broken), "--markdown", str(markdown)]) == 4
    assert main(["report", str(DATA), "--markdown", str(markdown), "--lock", str(tmp_path / "none.lock")]) == 4
