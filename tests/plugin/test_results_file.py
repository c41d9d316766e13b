"""results.json before, while and after a run, and what the plugin does in suites without claims: nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.report.markdown import render_markdown

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


def test_what_is_in_it(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("table.csv").write_text("model,robust\nsmall,51.3\n")
    run = suite(
        """
        import json, pathlib
        from pytest_prunerob import table

        @cells(method="own", reported=table("table.csv", key={"model": "small"}, column="robust", note="not the same"))
        def test_reported(dense, pruned, reported):
            running = json.loads(pathlib.Path("results.json").read_text())
            assert (running["status"], running["finished"], running["claims"]) == ("running", None, [])
            assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.25
            assert reported >= 0.5125
            assert pruned.robust_accuracy(P) <= reported - 0.01

        @cells(samples=10)
        def test_early(dense):
            plan = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False, micro_batch=2)
            assert dense.robust_accuracy(plan) >= 0.9
        """,
        "--prunerob-report=report.html",
        "--prunerob-summary=summary.md",
    )
    assert run.ret == 1
    results = run.results
    assert (results["status"], results["exit_status"], results["selection"]["planned"]) == ("complete", 1, 2)
    assert not list(pytester.path.glob(".*.tmp"))
    late, reported = results["cells"][0], results["cells"][1]
    assert (late["id"], late["samples"], late["status"]) == ("test_suite.py::test_early[cell]", 10, "failed")
    assert reported["parameters"] == {"method": "own"}
    assert reported["reported"]["source"] == "table.csv: small: robust"
    assert [reported["reported"][key] for key in ("value", "low", "high")] == [0.513, 0.5125, 0.5135]
    claims = {claim["id"]: claim for claim in results["claims"]}
    assert len(claims) == 4
    first, second = claims["test_suite.py::test_reported[own]#1"], claims["test_suite.py::test_reported[own]#3"]
    early = claims["test_suite.py::test_early[cell]#1"]
    assert (first["verdict"], first["margin"], first["n"], first["complete"]) == (
        "supported",
        {"low": 0.0, "high": 0.0},
        40,
        True,
    )
    terms = {term["subject"]: term for term in first["terms"]}
    assert (terms["pruned"]["value"], terms["pruned"]["coefficient"]) == (0.5, 1.0)
    assert (terms["dense"]["value"], terms["dense"]["coefficient"]) == (0.75, -1.0)
    # 0.5 <= [0.5125, 0.5135] - 0.01 holds wherever in its printed digits the number lies.
    assert (second["verdict"], second["margin"]) == ("supported", {"low": 0.0025, "high": 0.0035})
    assert second["comparison"]["difference"] == pytest.approx(-0.013)
    assert second["comparison"]["exceeds"] is False
    assert (early["verdict"], early["complete"]) == ("refuted", False)
    assert early["margin"]["high"] < 0
    measured = results["measurements"][terms["pruned"]["measurement"]]
    assert [measured[key] for key in ("n", "clean_errors", "broken", "survived", "undecided", "errors")] == [
        40,
        0,
        20,
        20,
        0,
        0,
    ]
    assert measured["threat"] == {"norm": "linf", "eps": "0.0525"}
    assert [(stage["name"], stage["broken"]) for stage in measured["stages"]] == [("pgd", 20)]
    assert results["cost"]["backward"] == sum(cell["cost"]["backward"] for cell in results["cells"])
    page = (pytester.path / "report.html").read_text()
    assert "test_reported" in page
    assert "51.3" in page
    assert (pytester.path / "summary.md").read_text() == render_markdown(results)
    assert "summary: " in run.out


def test_a_failing_setup_and_teardown_are_in_it(suite: Suite) -> None:
    run = suite(
        """
        @pytest.fixture
        def bad(pruned):
            raise ValueError("<no & such>")

        @pytest.fixture
        def late(pruned):
            yield
            raise ValueError("too late")

        @cells()
        def test_setup(bad):
            pass

        @cells()
        def test_teardown(pruned, late):
            assert pruned.accuracy() >= 1
        """,
        "--prunerob-report=report.html",
    )
    assert run.ret == 1
    assert run.statuses == {"test_setup": "error", "test_teardown": "error"}
    assert ["<no & such>" in cell["message"] for cell in run.results["cells"]] == [True, False]
    assert run.verdicts == [("pruned.accuracy() >= 1", "supported")]


PLAIN = """
import sys

def test_passes():
    assert not {"torch", "numpy", "jinja2", "scipy"} & set(sys.modules)
"""


def test_a_suite_without_claims_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLAIN)
    run = pytester.runpytest_subprocess("-q", "-p", "no:hypothesispytest")
    assert run.ret == 0
    text = run.stdout.str() + run.stderr.str()
    assert "prunerob" not in text
    assert "robust" not in text
    assert not (pytester.path / ".prunerob").exists()
    without = pytester.runpytest_subprocess("-q", "-p", "no:hypothesispytest", "-p", "no:prunerob")
    assert [line.partition(" in ")[0] for line in run.outlines] == [
        line.partition(" in ")[0] for line in without.outlines
    ]


@pytest.mark.parametrize(
    ("test", "ret"),
    [("def test_it():\n    assert 0\n", 1), ("", 5), ("def test_it(:\n", 2)],
)
def test_exit_codes_of_suites_without_claims(suite: Suite, pytester: pytest.Pytester, test: str, ret: int) -> None:
    pytester.makepyfile(test)
    run = suite(None, results=False)
    assert run.ret == ret
    assert "robustness" not in run.all


def test_results_of_a_suite_without_claims(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it():\n    pass\n")
    run = suite(None)
    assert run.ret == 0
    assert run.results["cells"] == []
    assert json.loads(run.path.read_text())["status"] == "complete"
