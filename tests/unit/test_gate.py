"""Every way of not being as locked is a deviation; ``tests.unit.commands`` has the run that is as locked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report.consistency import contradictions
from pytest_prunerob.report.gate import Waiver, deviations, freshness, waivers
from tests.unit.commands.conftest import CONTROL, PAIRED, entry
from tests.unit.commands.conftest import results as results  # the fixture

TODAY = date(2026, 11, 21)
CELL = PAIRED.rpartition("#")[0]


def claim(document: dict[str, Any]) -> dict[str, Any]:
    return entry(document["claims"], PAIRED)


def cell(document: dict[str, Any]) -> dict[str, Any]:
    return entry(document["cells"], CELL)


def without_claim(document: dict[str, Any]) -> None:
    document["claims"].remove(claim(document))
    cell(document).update(claims=[], status="skipped")


def unlocked(document: dict[str, Any]) -> None:
    """A second claim of the test, which is refuted."""
    document["claims"].append({**claim(document), "id": f"{CELL}#7", "verdict": "inconclusive", "margin": None})
    cell(document).update(status="inconclusive", claims=[*cell(document)["claims"], f"{CELL}#7"])


def new_test(document: dict[str, Any]) -> None:
    """A test that is not locked and breaks before it makes a claim."""
    new = {**copy.deepcopy(cell(document)), "id": "test_new.py::test_new[x]", "claims": [], "subjects": []}
    document["cells"].append({**new, "status": "error", "message": "fixture 'x' not found"})
    document["selection"]["planned"] += 1


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "verdict": (lambda d: claim(d).update(verdict="inconclusive", margin=None), "is inconclusive, expected supported"),
    "text": (lambda d: claim(d).update(text="pruned.accuracy() >= 0"), "claims 'pruned.accuracy() >= 0', locked is '"),
    "population": (lambda d: claim(d).update(population="distribution"), "was judged for population distribution"),
    "confidence": (lambda d: claim(d).update(confidence=0.5), "at confidence 0.5, locked are testset and 0.95"),
    "n": (lambda d: claim(d).update(n=5), "is about 5 samples, locked are 200"),
    "dataset": (lambda d: cell(d)["dataset"].update(digest="e2"), "is about the dataset e2, locked is d1"),
    "no dataset": (lambda d: cell(d).update(dataset=None), "is about the dataset none, locked is d1"),
    "models": (lambda d: cell(d)["subjects"].pop(), "is about the models "),
    "skipped": (without_claim, f"{PAIRED} was not judged"),
    "unlocked": (unlocked, f"{CELL}#7 is inconclusive, the suite expects supported (not in the lock)"),
    "new test": (new_test, "test_new.py::test_new[x] is error: fixture 'x' not found"),
    "plain assert": (lambda d: cell(d).update(status="failed", message="assert 1 == 2"), "is failed: assert 1 == 2"),
    "xpassed": (lambda d: cell(d).update(status="xpassed"), f"{CELL} is xpassed"),
    "skipped late": (lambda d: cell(d).update(status="skipped"), f"{CELL} is skipped"),
    "decide": (lambda d: d["options"].update(decide="sequential"), "the run has decide=sequential, locked is exact"),
    "seed": (lambda d: d["environment"].update(seed=7), "the run has seed=7, locked is 0"),
    "running": (lambda d: d.update(status="running"), "the run is running"),
    "incomplete": (lambda d: d.update(status="incomplete"), "the run is incomplete"),
}


@pytest.mark.parametrize(("change", "sentence"), CHANGES.values(), ids=CHANGES)
def test_every_way_of_not_being_as_locked_is_a_deviation(
    results: dict[str, Any], change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    lock = lock_of(results, models=True)
    assert deviations(results, lock, TODAY) == []
    change(results)
    assert sentence in "\n".join(deviations(results, lock, TODAY))


def test_a_stricter_audit_is_as_locked_and_a_laxer_one_is_not(results: dict[str, Any]) -> None:
    basic = lock_of(results)
    results["options"]["adequacy"] = "full"
    full = lock_of(results)
    assert deviations(results, basic, TODAY) == []
    results["options"]["adequacy"] = "basic"
    assert deviations(results, full, TODAY) == ["the run has adequacy=basic, locked is full"]
    del results["options"]["adequacy"]
    with pytest.raises(ResultsError, match="'adequacy'"):
        deviations(results, full, TODAY)


def test_other_models_are_as_locked_unless_models_are(results: dict[str, Any]) -> None:
    lock = lock_of(results)
    cell(results)["subjects"].pop()
    assert deviations(results, lock, TODAY) == []


def test_a_waiver_holds_until_its_day(results: dict[str, Any]) -> None:
    lock = lock_of(results)
    lock["claims"][PAIRED]["waiver"] = {"reason": "retraining is under way", "expires": "2026-11-21"}
    assert waivers(lock) == [Waiver(PAIRED, "retraining is under way", date(2026, 11, 21))]
    claim(results).update(verdict="refuted", margin={"low": -0.1, "high": -0.1})
    cell(results).update(status="failed")
    assert deviations(results, lock, date(2026, 11, 21)) == []
    (sentence,) = deviations(results, lock, date(2026, 11, 22))
    assert sentence.endswith("is refuted, expected supported (its waiver expired on 2026-11-21)")
    without_claim(results)
    assert deviations(results, lock, date(2026, 11, 21)) == []
    assert len(deviations(results, lock, date(2026, 11, 22))) == 1


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "supported below": (lambda d: claim(d).update(margin={"low": -0.1, "high": 0.1}), "is supported with a margin of"),
    "refuted above": (
        lambda d: entry(d["claims"], CONTROL).update(decision="exact", margin={"low": -0.1, "high": 0.01}),
        "is refuted with a margin of 0.01",
    ),
    "sequentially": (
        lambda d: claim(d).update(decision="sequential", margin={"low": -0.2, "high": -0.1}),
        "is supported with a margin of",
    ),
    "no margin": (lambda d: claim(d).update(margin=None), "it is supported without a margin"),
    "inverted": (lambda d: claim(d).update(margin={"low": 0.2, "high": 0.1}), "its margin reaches from 0.2 to 0.1"),
    "term inverted": (lambda d: claim(d)["terms"][0].update(low=0.9), "lies between 0.9 and 0.65"),
    "term beside its measurement": (lambda d: claim(d)["terms"][0].update(low=0.9, high=0.9), "between 0.65 and 0.65"),
    "value": (lambda d: claim(d)["terms"][0].update(high=0.9, value=0.9), "0.65 of the samples of its measurement"),
    "another kind": (
        lambda d: d["measurements"][claim(d)["terms"][0]["measurement"]].update(
            kind="returned", clean_errors=0, broken=70
        ),
        "rests on a measurement of kind returned",
    ),
    "counts": (
        lambda d: d["measurements"][claim(d)["terms"][0]["measurement"]].update(broken=1),
        "broken + survived + undecided + errors + clean_errors is 137, of 200 samples",
    ),
    "complete": (
        lambda d: d["measurements"][claim(d)["terms"][0]["measurement"]].update(undecided=10, broken=54),
        "it is complete with 10 samples undecided",
    ),
    "incomplete term": (lambda d: claim(d)["terms"][0].update(complete=False), "complete and a term of it is not"),
    "passed": (lambda d: claim(d).update(verdict="inconclusive"), "the test passed and its claims are inconclusive"),
    "passed without": (lambda d: cell(d).update(claims=[]), "the test passed and its claims are absent"),
    "xfailed": (
        lambda d: entry(d["claims"], CONTROL).update(verdict="supported", margin={"low": 0.1, "high": 0.1}),
        "the test failed as expected and no claim of it is refuted",
    ),
    "exit status": (lambda d: d.update(exit_status=3), "the run is complete and its exit status is 3"),
    "planned": (lambda d: d["selection"].update(planned=9), "9 cells were planned and 3 are there"),
}


@pytest.mark.parametrize(("edit", "sentence"), EDITS.values(), ids=EDITS)
def test_what_contradicts_itself_is_not_as_locked(
    results: dict[str, Any], edit: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    lock = lock_of(results)
    assert contradictions(results) == []
    edit(results)
    assert sentence in "\n".join(contradictions(results))
    assert deviations(results, lock, TODAY)


def test_a_sequential_verdict_has_its_set_on_one_side(results: dict[str, Any]) -> None:
    claim(results).update(decision="sequential", margin={"low": 0.0, "high": 0.1})
    assert contradictions(results) == []
    claim(results).update(margin={"low": -0.2, "high": 0.1})
    assert "it is supported with a margin of -0.2" in "\n".join(contradictions(results))


NOW = datetime(2026, 3, 4, 10, 16, 2, tzinfo=UTC)  # an hour and four minutes after the run began


def test_a_run_that_is_too_old_or_of_another_revision_is_stale(results: dict[str, Any]) -> None:
    assert freshness(results, NOW, None, None) == []
    assert freshness(results, NOW, timedelta(minutes=65), results["environment"]["git"]["revision"][:8]) == []
    (old,) = freshness(results, NOW, timedelta(minutes=30), None)
    assert "63.5 minutes ago: allowed are 30 minutes" in old
    (ahead,) = freshness(results, NOW - timedelta(hours=3), timedelta(hours=1), None)
    assert "116 minutes ahead of this machine's clock" in ahead
    (other,) = freshness(results, NOW, None, "0123456")
    assert other.endswith("expected 0123456")
    results["environment"]["git"]["dirty"] = True
    (dirty,) = freshness(results, NOW, None, results["environment"]["git"]["revision"])
    assert "with changes that are not committed" in dirty
    results["environment"]["git"] = {"revision": None, "dirty": None}
    (unknown,) = freshness(results, NOW, None, "0123456")
    assert "do not say their git revision" in unknown
