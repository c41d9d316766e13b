"""A run whose time is over says what is undecided, passes nothing for it, and is resumed by the next run."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.budget import Budget, duration
from pytest_prunerob.cli import main
from pytest_prunerob.errors import BudgetSpentError
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
@cells()
def test_keeps(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.3

@cells()
def test_loses(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.1

@cells(method="a", xfail={"*": "half is lost"})
def test_xfail(pruned):
    assert pruned.robust_accuracy(P) >= 0.6

@cells()
def test_number(dense, pruned):
    assert pruned.accuracy() >= float(dense.accuracy())

@cells()
def test_size(pruned):
    assert pruned.parameters() >= 68
"""
TINY = "--prunerob-time-budget=0.000001"


def verdicts(run: object) -> dict[str, str]:
    return {claim["id"].rpartition("::")[2]: claim["verdict"] for claim in run.results["claims"]}  # type: ignore[attr-defined]


def test_nothing_is_measured_once_the_time_is_over_and_the_next_run_goes_on(suite: Suite) -> None:
    cut = suite(SUITE, TINY)
    assert cut.ret == 1
    assert verdicts(cut) == {
        "test_keeps[cell]#1": "inconclusive",
        "test_loses[cell]#1": "inconclusive",
        "test_xfail[a]#1": "inconclusive",
        "test_size[cell]#1": "supported",  # a fact that costs nothing
    }
    assert cut.statuses == {
        "test_keeps": "inconclusive",
        "test_loses": "inconclusive",
        "test_xfail": "inconclusive",
        "test_number": "inconclusive",
        "test_size": "passed",
    }
    assert cut.results["budget"] == {"seconds": 1e-6, "exhausted": True}
    assert cut.results["cost"]["forward"] == 0
    assert "prunerob: time budget of 1e-06s spent: 3 claims undecided, 1 test not judged; run again to go on" in cut.out
    reason = cut.results["claims"][0]["reason"]
    assert "time budget of 1e-06s was spent before the check of the" in reason

    resumed = suite(None)
    uninterrupted = suite(None, "--prunerob-store=other")
    assert resumed.results["claims"] == uninterrupted.results["claims"]
    assert resumed.statuses == uninterrupted.statuses
    assert resumed.results["budget"] == {"seconds": None, "exhausted": False}


def test_a_run_that_was_cut_is_not_locked(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    cut = suite(SUITE, TINY, "-k", "size or number")
    assert [verdict for _, verdict in cut.verdicts] == ["supported"]  # what the other test claims is not known
    assert main(["lock", str(cut.path)]) == 4
    assert "the time budget was spent before every claim was decided" in capsys.readouterr().err


def test_a_budget_that_suffices_changes_nothing(suite: Suite) -> None:
    plain = suite(SUITE)
    limited = suite(None, "--prunerob-time-budget=8h", "--prunerob-store=other")
    assert limited.results["claims"] == plain.results["claims"]
    assert limited.statuses == plain.statuses
    assert limited.results["budget"] == {"seconds": 28800, "exhausted": False}
    assert "time budget" not in limited.out


MIDDLE = """
P4 = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False, micro_batch=20)

@cells()
def test_half(pruned):
    assert within(pruned.robust_accuracy(P4), 0.5, 0.01)

@cells()
def test_keeps(dense, pruned):
    assert pruned.robust_accuracy(P4) >= dense.robust_accuracy(P4) - 0.3
"""


def test_wherever_the_time_ends_nothing_wrong_is_said_and_nothing_is_lost(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = suite(MIDDLE, "--prunerob-store=whole")
    seen, refused = set(), set()
    for allowed in itertools.count():
        begun = itertools.count()

        def require(self: Budget, what: str, begun: itertools.count[int] = begun, allowed: int = allowed) -> None:
            if next(begun) >= allowed:
                refused.add(what)
                raise BudgetSpentError(f"spent before {what}")

        with monkeypatch.context() as patch:
            patch.setattr(Budget, "require", require)
            cut = suite(None, "--prunerob-time-budget=1h", f"--prunerob-store=store{allowed}")
        for name, verdict in verdicts(cut).items():
            assert verdict in ("inconclusive", verdicts(whole)[name])
        seen.add(tuple(verdicts(cut).values()))
        exhausted = cut.results["budget"]["exhausted"]
        assert exhausted == ("inconclusive" in verdicts(cut).values())
        if exhausted and allowed % 2:  # half of them are enough to resume
            continue
        resumed = suite(None, f"--prunerob-store=store{allowed}")
        assert [claim["verdict"] for claim in resumed.results["claims"]] == ["supported", "supported"]
        spent = cut.results["cost"]["backward"] + resumed.results["cost"]["backward"]
        assert spent == whole.results["cost"]["backward"]
        if not exhausted:
            break
    plan = "pgd 2 steps of 0.0525, no random start, linf, ε=0.0525"
    assert refused == {
        f"{before}{role} model{after}"
        for role in ("dense", "pruned")
        for before, after in (
            ("the check of the ", ""),
            ("", ", clean accuracy: clean"),
            ("", f", {plan}: pgd"),
            ("the audit of ", f", {plan}"),
        )
    } - {f"the audit of dense model, {plan}"}  # its survivors would speak against the claim
    assert seen >= {("inconclusive", "inconclusive"), ("supported", "inconclusive"), ("supported", "supported")}


def test_a_test_that_swallows_the_refusal_of_a_number_does_not_pass(suite: Suite) -> None:
    suite(
        """
        @cells()
        def test_it(pruned):
            assert pruned.accuracy() >= 1
        """
    )  # the clean predictions are in the store from now on, so the claims below could be judged
    run = suite(
        """
        def least(quantity):
            try:
                return float(quantity)
            except Exception:
                return 0

        @cells()
        def test_least(dense, pruned):
            assert pruned.accuracy() >= least(dense.robust_accuracy(P))

        @cells()
        def test_skips(dense):
            if not least(dense.robust_accuracy(P)):
                pytest.skip("weak")

        @cells(method="a", xfail={"*": "x"})
        def test_xfail(dense, pruned):
            assert pruned.accuracy() < least(dense.robust_accuracy(P))

        @cells()
        def test_ids(dense, pruned):
            with contextlib.suppress(Exception):
                flips(dense, pruned).ids("S10")
            assert pruned.accuracy() >= 1
        """,
        TINY,
    )
    assert set(run.statuses.values()) == {"inconclusive"}
    assert {verdict for _, verdict in run.verdicts} == {"inconclusive"}


@pytest.mark.parametrize(("choice", "outcome"), [("skip", "skipped"), ("xfail", "xfailed")])
def test_inconclusive_for_want_of_time_may_be_relaxed_but_not_a_refutation(
    suite: Suite, choice: str, outcome: str
) -> None:
    run = suite(SUITE, TINY, f"--prunerob-inconclusive={choice}")
    counts = run.result.parseoutcomes()
    assert counts[outcome] == 3
    assert run.statuses["test_xfail"] == "inconclusive"
    assert run.ret == 1  # the negative control must be refuted
    refuted = suite(
        """
        @cells()
        def test_it(dense, pruned):
            with contextlib.suppress(Exception):
                assert pruned.parameters() <= 1
            float(dense.accuracy())
        """,
        TINY,
        f"--prunerob-inconclusive={choice}",
    )
    assert (refuted.ret, refuted.statuses["test_it"]) == (1, "failed")


def test_distribution_waits_for_the_rest(suite: Suite) -> None:
    run = suite(SUITE, TINY, "--prunerob-population=distribution")
    assert verdicts(run)["test_keeps[cell]#1"] == "inconclusive"
    assert "time budget" in run.results["claims"][0]["reason"]


def test_a_model_that_is_not_built_in_time_leaves_its_test_inconclusive(
    pytester: pytest.Pytester, suite: Suite
) -> None:
    pytester.makeconftest("")
    run = suite(
        """
        @cells(dataset="digits", network="cnn", training="standard", method="global-magnitude", sparsity="0.50")
        def test_trained(pruned):
            assert pruned.accuracy() >= 0.9
        """,
        TINY,
    )
    assert run.ret == 1
    assert run.statuses == {"test_trained": "inconclusive"}
    assert run.results["budget"]["exhausted"]
    (cell,) = run.results["cells"]
    assert cell["message"] == (
        "INCONCLUSIVE: the time budget of 1e-06s was spent before the standard model cnn was built; run again to go on"
    )
    assert "1 test not judged" in run.out


NOTING = """
def pytest_sessionfinish(session):
    from pytest_prunerob.plugin.stash import STARTED
    name = "worker" if hasattr(session.config, "workerinput") else "controller"
    (session.config.rootpath / name).write_text(repr(session.config.stash[STARTED]))
"""


def test_workers_share_the_start_of_the_run(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST + NOTING)
    run = suite(SUITE, TINY, "-n", "1")
    assert run.results["budget"]["exhausted"]
    assert run.statuses["test_keeps"] == "inconclusive"
    assert (pytester.path / "worker").read_text() == (pytester.path / "controller").read_text()


def test_the_clock() -> None:
    budget = Budget(60, started=1000, clock=lambda: 1059.9)
    budget.require("anything")
    with pytest.raises(BudgetSpentError, match=r"^the time budget of 1m was spent before the rest$"):
        Budget(60, started=1000, clock=lambda: 1060).require("the rest")
    Budget(None, started=0).require("anything")


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90s"), (1800, "30m"), (28800, "8h"), (5400, "90m"), (0.5, "0.5s"), (86400, "24h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
