"""What ``prunerob plan`` says is what a run may cost at most, and planning measures and writes nothing."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_prunerob.budget import Budget
from pytest_prunerob.cli import main
from pytest_prunerob.commands.plan import lines, plain
from pytest_prunerob.errors import BudgetSpentError
from pytest_prunerob.plugin.planning import Planner

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

Plan = Callable[..., dict[str, Any]]

SUITE = """
AA = autoattack(["apgd-t"], norm="linf", eps="0.0525", micro_batch=25)
F = fmn(steps=10)

@cells(method=["a", "b"])
def test_keeps(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.3
    assert pruned.robust_accuracy(AA) >= 0.4

@cells()
def test_returned(pruned):
    assert pruned.accuracy_under(P) - pruned.robust_accuracy(P) >= -0.1

@cells(method="a", xfail={"*": "half is lost"})
def test_xfail(pruned):
    assert pruned.robust_accuracy(P) >= 0.6

@cells()
def test_distance(dense, pruned):
    assert flips(dense, pruned).share("S10") <= 0.5
    assert dense.distance(F) >= 0.001
    assert pruned.parameters() >= 68

def test_other():
    open("ran", "w").close()
"""


@pytest.fixture
def plan(pytester: pytest.Pytester) -> Plan:
    """``plan(*args)``: the plan of the suite, made in this process."""

    def make(*args: str) -> dict[str, Any]:
        planner = Planner()
        pytester.inline_run(*args, "--collect-only", plugins=[planner])
        return plain(planner)

    return make


def files(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but Python's own caches."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_run_costs_at_most_what_is_planned_and_planning_leaves_no_trace(
    suite: Suite, plan: Plan, pytester: pytest.Pytester
) -> None:
    suite(SUITE, "--collect-only")
    before = files(pytester.path)
    empty = plan("--prunerob-results=results.json", "--prunerob-report=r.html", "--prunerob-summary=s.md")
    assert files(pytester.path) == before
    shown = "\n".join(lines(empty))
    assert shown.startswith("5 cells with 9 claims: 1 need no measuring\n\nto measure ")
    assert "time unknown" in shown
    assert "passed" not in shown
    assert [(cell["claims"], cell["settled"]) for cell in empty["cells"]] == [(2, 0), (2, 0), (1, 0), (1, 0), (3, 1)]
    assert empty["other_tests"] == 1
    assert not (pytester.path / "ran").exists()
    assert empty["at_most"]["seconds"] is None

    run = suite(None)
    assert {claim["verdict"] for claim in run.results["claims"]} >= {"supported", "refuted"}
    cost = run.results["cost"]
    assert empty["if_all_break_at_once"]["forward"] <= cost["forward"] <= empty["at_most"]["forward"]
    assert empty["if_all_break_at_once"]["backward"] <= cost["backward"] <= empty["at_most"]["backward"]
    assert empty["at_most"]["backward"] <= 5 * cost["backward"]  # a bound that is of use

    before = files(pytester.path)
    full = plan()
    assert files(pytester.path) == before
    assert all(cell["settled"] == cell["claims"] for cell in full["cells"])
    assert full["measurements"] == []
    again = suite(None)
    assert again.results["cost"]["backward"] == full["at_most"]["backward"] == 0
    assert again.results["cost"]["forward"] <= full["at_most"]["forward"] == full["probes"]


ONE = """
P10 = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False, micro_batch=10)

@cells()
def test_it(pruned):
    assert within(pruned.robust_accuracy(P10), 0.5, 0.01)
"""


def test_what_is_measured_in_part_is_planned_in_part(
    suite: Suite, plan: Plan, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite(ONE, "--collect-only")
    *_, whole = plan()["measurements"]
    begun = itertools.count()

    def require(self: Budget, what: str) -> None:
        if next(begun) >= 3:  # the check of the model, its clean predictions, one micro-batch
            raise BudgetSpentError(f"spent before {what}")

    with monkeypatch.context() as patch:
        patch.setattr(Budget, "require", require)
        suite(None, "--prunerob-time-budget=1h")
    before = files(pytester.path)
    planned = plan()
    assert files(pytester.path) == before
    (left,) = planned["measurements"]
    assert (whole["stages"][0]["left"], left["stages"][0]["left"], left["stages"][0]["of"]) == (4, 3, 4)
    for direction in ("forward", "backward"):  # every sample is classified correctly, so a micro-batch is one of ten
        assert left["stages"][0][direction] * 4 == whole["stages"][0][direction] * 3 > 0
    rest = suite(None).results["cost"]
    assert rest["backward"] <= planned["at_most"]["backward"]
    assert rest["forward"] <= planned["at_most"]["forward"]


def test_time_is_estimated_from_what_the_store_knows_of_such_a_network(suite: Suite, plan: Plan) -> None:
    weaker = 'P = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False)\n'
    test = "\n@cells()\ndef test_it(pruned):\n    assert pruned.robust_accuracy(P) >= {}\n"
    run = suite(weaker + test.format("0.5"))
    assert run.ret == 0
    both = test + "    assert pruned.robust_accuracy(Q) >= 0.9\n"
    suite(weaker + weaker.replace("P =", "Q =").replace("0.0525", "0.06") + both.format("0.5"), "--collect-only")
    planned = plan()
    assert [(cell["claims"], cell["settled"]) for cell in planned["cells"]] == [(2, 1)]
    assert planned["at_most"]["seconds"] > 0
    assert not any("the time on cpu" in sentence for sentence in planned["unknown"])
    suite(None, "--collect-only")
    elsewhere = plan("--prunerob-device=cuda:0")
    assert elsewhere["device"] == "cuda:0"
    assert elsewhere["at_most"]["seconds"] is None
    assert any("the time on cuda:0" in sentence for sentence in elsewhere["unknown"])


def test_what_cannot_be_known_is_said(suite: Suite, plan: Plan) -> None:
    suite(
        """
        @cells()
        def test_number(dense, pruned):
            try:
                least = float(dense.robust_accuracy(P))
            except Exception:
                least = 0
            assert pruned.accuracy() >= least

        @cells()
        def test_ids(dense, pruned):
            assert pruned.parameters() >= len(flips(dense, pruned).ids("S10"))

        @cells()
        def test_skipped(dense):
            pytest.skip("not today")

        @cells()
        def test_raises(dense):
            raise RuntimeError("a file is missing")

        @cells()
        def test_fact(pruned):
            assert float(pruned.parameters()) == 68 and pruned.parameters() <= 68
        """,
        "--collect-only",
    )
    planned = plan()
    notes = {cell["id"].rpartition("::")[2].partition("[")[0]: cell["note"] for cell in planned["cells"]}
    assert notes == {
        "test_number": "depends on measured numbers: what it claims after the first of them is not known",
        "test_ids": "depends on measured numbers: what it claims after the first of them is not known",
        "test_skipped": "skipped",
        "test_raises": "ends with RuntimeError: a file is missing",
        "test_fact": "",
    }
    assert {entry["plan"].partition(" ")[0] for entry in planned["measurements"]} == {"clean", "pgd"}
    assert "what the tests with a remark measure beyond what is listed" in planned["unknown"]


GRID = """
@cells(dataset="digits", network="cnn", training=["standard", "pgd"], method="global-magnitude",
       sparsity=["0.50", "0.90"], samples=40)
def test_grid(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.1
"""


def test_models_that_are_not_built_are_listed_and_told_apart(
    suite: Suite, plan: Plan, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("")
    suite(GRID, "--collect-only")
    before = files(pytester.path)
    planned = plan()
    assert files(pytester.path) == before
    assert planned["models"] == [
        "prune by global-magnitude to 0.50 with fine-tuning (pgd), seed 0",
        "prune by global-magnitude to 0.50 with fine-tuning (standard), seed 0",
        "prune by global-magnitude to 0.90 with fine-tuning (pgd), seed 0",
        "prune by global-magnitude to 0.90 with fine-tuning (standard), seed 0",
        "train cnn (pgd, digits, seed 0)",
        "train cnn (standard, digits, seed 0)",
    ]
    attacked = [entry for entry in planned["measurements"] if entry["plan"].startswith("pgd")]
    assert len(attacked) == 6
    assert sum(entry["n"] for entry in attacked) == 240
    half = plan("-k", "standard and 0.90")
    assert len(half["cells"]) == 1
    assert len(half["models"]) == 2
    assert half["at_most"]["backward"] * 2 < planned["at_most"]["backward"] < half["at_most"]["backward"] * 4


def test_a_model_that_a_fixture_makes_of_one_to_be_built_is_never_taken_for_another(suite: Suite, plan: Plan) -> None:
    suite(
        """
        import copy

        @pytest.fixture
        def dataset(cell):
            from pytest_prunerob.datasets import load
            return load("digits").test

        @pytest.fixture
        def dense_model(request, cell):
            from pytest_prunerob.plugin.fixtures import _runtime
            return _runtime(request).builder.dense(cell)

        @pytest.fixture
        def pruned_model(dense_model):
            return copy.deepcopy(dense_model)

        @cells(dataset="digits", network="cnn", training=["standard", "pgd"], samples=40)
        def test_own(dense, pruned):
            assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.1
        """,
        "--collect-only",
    )
    attacked = [entry for entry in plan()["measurements"] if entry["plan"].startswith("pgd")]
    assert len(attacked) == 4


def test_the_command(suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    suite(SUITE, "--collect-only")
    arguments = ("--json", "-k", "xfail", "test_suite.py", "--prunerob-device=cpu")
    printed = pytester.run(sys.executable, "-m", "pytest_prunerob.cli", "plan", *arguments)
    assert printed.ret == 0, printed.stderr.str()
    assert [cell["claims"] for cell in json.loads(printed.stdout.str())["cells"]] == [1]
    capsys.readouterr()
    assert main(["plan", "missing.py"]) == 4
    shown = capsys.readouterr()
    assert "prunerob plan: pytest ended with exit status 4 before there was anything to plan" in shown.err
    assert "missing.py" in shown.err
    assert shown.out == ""
