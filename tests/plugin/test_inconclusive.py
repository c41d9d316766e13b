"""What an undecided claim does to the run, and what a failure looks like."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
@cells()
def test_supported(pruned):
    assert pruned.robust_accuracy(P) >= 0.5

@cells()
def test_inconclusive(dense, pruned):
    assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6
"""

FAILING = """
@cells()
def test_refuted(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.03

@cells()
def test_supported(pruned):
    assert pruned.robust_accuracy(P) >= 0.5
"""


@pytest.mark.parametrize(
    ("choice", "ret", "outcomes"),
    [
        ("fail", 1, {"passed": 1, "inconclusive": 1}),
        ("xfail", 0, {"passed": 1, "xfailed": 1}),
        ("skip", 0, {"passed": 1, "skipped": 1}),
    ],
)
def test_the_choice(suite: Suite, choice: str, ret: int, outcomes: dict[str, int]) -> None:
    run = suite(SUITE, f"--prunerob-inconclusive={choice}", "--junitxml=junit.xml")
    assert run.ret == ret
    assert run.result.parseoutcomes() == outcomes
    assert run.statuses == {"test_supported": "passed", "test_inconclusive": "inconclusive"}
    assert [verdict for _, verdict in run.verdicts] == ["inconclusive", "supported"]
    assert run.results["exit_status"] == ret
    cases = {case.get("name"): case for case in ET.parse("junit.xml").iter("testcase")}
    assert [part.tag for part in cases["test_supported[cell]"]] == []
    tag = "failure" if choice == "fail" else "skipped"
    assert [part.tag for part in cases["test_inconclusive[cell]"]] == [tag]
    if choice == "fail":
        text = cases["test_inconclusive[cell]"][0].text
        assert text is not None
        assert text.startswith("INCONCLUSIVE: flips(dense, pruned).auc_s10(fmn 2 steps, linf) >= 0.6")
    run.result.stdout.fnmatch_lines(["[?] inconclusive (expected: supported)  *test_inconclusive?cell?#1 *"])


@pytest.mark.parametrize("choice", ["xfail", "skip"])
def test_relaxing_covers_nothing_but_inconclusive(suite: Suite, choice: str) -> None:
    run = suite(
        """
        @cells()
        def test_refuted(pruned):
            assert pruned.robust_accuracy(P) >= 0.6

        @cells()
        def test_both(dense, pruned):
            with contextlib.suppress(AssertionError):
                assert pruned.robust_accuracy(P) >= 0.6
            assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6

        @cells()
        def test_then_another_error(dense, pruned):
            with contextlib.suppress(AssertionError):
                assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6
            nonsense

        @cells()
        def test_error(make_subject, dense_model):
            wrong = make_subject(dense_model.train(), "wrong")
            assert wrong.robust_accuracy(P) >= 0.1

        @cells()
        def test_unjudged(dense, pruned):
            flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6

        @cells()
        def test_inconclusive_and_unjudged(dense, pruned):
            pruned.robust_accuracy(P) >= 0.6
            assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6
        """,
        f"--prunerob-inconclusive={choice}",
    )
    assert run.ret == 1
    outcomes = run.result.parseoutcomes()
    assert outcomes.get("passed", 0) == 0
    assert outcomes["failed"] == 5
    # The last one stopped at a claim that is undecided, as any test stops at its first failing assert.
    assert outcomes[{"xfail": "xfailed", "skip": "skipped"}[choice]] == 1


def test_lines_of_a_failure(suite: Suite) -> None:
    run = suite(FAILING)
    lines = run.result.stdout.lines
    first = next(number for number, line in enumerate(lines) if line.startswith("REFUTED"))
    assert lines[first : first + 4] == [
        "REFUTED: pruned.robust_accuracy(pgd 2 steps of 0.0525, no random start, linf, ε=0.0525) >= "
        "dense.robust_accuracy(pgd 2 steps of 0.0525, no random start, linf, ε=0.0525) - 0.03",
        "margin:   −0.22   (n=40, complete)",
        "measured: pruned.robust_accuracy 0.5; dense.robust_accuracy 0.75",
        "attack:   pgd 2 steps of 0.0525, no random start, linf, ε=0.0525: pgd",
    ]
    assert lines[first + 4].startswith("=====")
    run.result.assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    "extra",
    [
        ["--tb=short"],
        ["--tb=no"],
        ["--tb=native"],
        ["-q"],
        ["-v"],
        ["-p", "no:terminal"],
        ["-p", "no:cacheprovider"],
        ["-p", "no:junitxml", "-p", "no:skipping"],
        ["-p", "no:assertion"],
        ["--assert=plain"],
        ["-n", "0"],
        ["-p", "no:xdist"],
        ["--capture=no"],
        ["-W", "error"],
        ["--import-mode=importlib"],
    ],
    ids=" ".join,
)
def test_the_exit_code_with_other_options(suite: Suite, extra: list[str]) -> None:
    run = suite(FAILING, *extra)
    assert run.ret == 1
    assert run.statuses == {"test_refuted": "failed", "test_supported": "passed"}
    assert suite(None, "-k", "test_supported", *extra).ret == 0


def test_selection(suite: Suite) -> None:
    whole = suite(FAILING)
    assert whole.results["selection"]["planned"] == 2
    stopped = suite(None, "-x", "-v")
    assert stopped.ret == 1
    assert stopped.results["status"] == "incomplete"
    assert stopped.statuses == {"test_refuted": "failed", "test_supported": "not evaluated"}
    stopped.result.stdout.fnmatch_lines(["NOT EVALUATED  test_suite.py::test_supported?cell?"])
    failed = suite(None, "--lf")
    assert failed.ret == 1
    assert failed.statuses == {"test_refuted": "failed"}
    chosen = suite(None, "-k", "supported")
    assert chosen.ret == 0
    assert chosen.statuses == {"test_supported": "passed"}
    assert chosen.results["status"] == "complete"
    assert chosen.results["selection"]["keyword"] == "supported"
    none = suite(None, "-k", "nothing")
    assert none.ret == 5
    assert none.results["cells"] == []


def test_collect_only_writes_nothing(suite: Suite) -> None:
    run = suite(FAILING, "--collect-only", "-q")
    assert run.ret == 0
    assert not run.path.exists()
    run.result.stdout.fnmatch_lines(["test_suite.py::test_refuted?cell?", "test_suite.py::test_supported?cell?"])
    run.result.stdout.no_fnmatch_line("*robustness claims*")


def test_a_run_that_is_left_early_does_not_end_well(suite: Suite) -> None:
    run = suite(
        """
        @cells()
        def test_first(pruned):
            assert pruned.robust_accuracy(P) >= 0.5

        @cells()
        def test_second(pruned):
            pytest.exit("enough", returncode=0)
        """
    )
    assert run.ret == 1
    assert run.statuses == {"test_first": "passed", "test_second": "not evaluated"}
    assert run.results["status"] == "incomplete"
    run.result.stdout.fnmatch_lines(["NOT EVALUATED  test_suite.py::test_second?cell?"])
