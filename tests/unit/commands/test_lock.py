from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report.results import validate_lock
from tests.unit.commands.conftest import CONTROL, PAIRED, Command, Write, entry

LATER = "2999-12-31"


def test_a_lock_holds_what_decides_a_claim(results: dict[str, Any]) -> None:
    lock = lock_of(results)
    validate_lock(lock)
    settings = {name: lock[name] for name in ("population", "confidence", "decide", "adequacy", "seed", "subjects")}
    assert settings == {
        "population": "testset",
        "confidence": 0.95,
        "decide": "exact",
        "adequacy": "basic",
        "seed": 0,
        "subjects": {},
    }
    assert lock["claims"][PAIRED] == {
        "text": entry(results["claims"], PAIRED)["text"],
        "expected": "supported",
        "n": 200,
        "dataset": "d1",
        "subjects": None,
        "waiver": None,
    }
    assert lock["claims"][CONTROL]["expected"] == "refuted"
    assert len(lock["claims"]) == 4


def test_models_are_locked_where_that_is_asked_for(results: dict[str, Any]) -> None:
    lock = lock_of(results, models=True)
    validate_lock(lock)
    cell = next(cell for cell in results["cells"] if PAIRED in cell["claims"])
    assert lock["claims"][PAIRED]["subjects"] == sorted(cell["subjects"])
    assert lock["subjects"].keys() == results["subjects"].keys()
    assert lock["subjects"][cell["subjects"][0]]["weights"] == results["subjects"][cell["subjects"][0]]["weights"]


def test_only_a_complete_run_that_came_out_as_expected_can_be_locked(results: dict[str, Any]) -> None:
    with pytest.raises(ResultsError, match="the run is running"):
        lock_of({**results, "status": "running"})
    with pytest.raises(ResultsError, match="no claim"):
        lock_of({**results, "claims": []})
    with pytest.raises(ResultsError, match="do not say the run's option 'decide'"):
        lock_of({**results, "options": {}})
    failed = copy.deepcopy(results)
    failed["cells"][0].update(status="failed", message="assert 1 == 2\nmore")
    with pytest.raises(ResultsError, match=r"is failed: assert 1 == 2$"):
        lock_of(failed)
    entry(results["claims"], PAIRED)["verdict"] = "inconclusive"
    with pytest.raises(ResultsError, match="is inconclusive and the suite expects supported"):
        lock_of(results)


def test_a_claim_is_waived_with_a_reason_and_a_day(results: dict[str, Any], write: Write, prunerob: Command) -> None:
    entry(results["claims"], PAIRED).update(verdict="refuted", margin={"low": -0.1, "high": -0.1})
    entry(results["cells"], PAIRED.rpartition("#")[0])["status"] = "failed"
    path = write("results.json", results)
    assert prunerob("lock", path)[0] == 4
    code, out, _ = prunerob("lock", path, "--waive", PAIRED, "retraining is under way", LATER)
    assert code == 0
    lock = json.loads(out)
    validate_lock(lock)
    assert lock["claims"][PAIRED]["waiver"] == {"reason": "retraining is under way", "expires": LATER}
    assert lock["claims"][PAIRED]["expected"] == "supported"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((PAIRED.replace("0.50", "0.51"), "why", LATER), f"did you mean {PAIRED!r}?"),
        ((PAIRED, "why", "2026-02-30"), "'2026-02-30' is no day"),
        ((PAIRED, "why", "2020-01-01"), "2020-01-01 is over"),
        ((PAIRED, " ", LATER), "the reason is empty"),
    ],
)
def test_a_waiver_that_says_nothing_is_refused(
    results: dict[str, Any], write: Write, prunerob: Command, arguments: tuple[str, ...], sentence: str
) -> None:
    code, out, error = prunerob("lock", write("results.json", results), "--waive", *arguments)
    assert (code, out) == (4, "")
    assert sentence in error


def test_locking_again_keeps_waivers_and_says_what_is_lost(
    results: dict[str, Any], write: Write, prunerob: Command
) -> None:
    before = write("results.json", results)
    waive = ["--waive", PAIRED, "why", LATER, "--waive", CONTROL, "why not", LATER]
    old = write("old.lock", json.loads(prunerob("lock", before, *waive)[1]))
    entry(results["claims"], CONTROL)["text"] += " + 1"
    gone = results["cells"].pop(
        next(number for number, cell in enumerate(results["cells"]) if "sparsity_as_stated" in cell["id"])
    )
    results["claims"] = [claim for claim in results["claims"] if claim["cell"] != gone["id"]]
    results["selection"]["planned"] -= 1
    code, out, error = prunerob("lock", write("after.json", results), "--from", old)
    assert code == 0
    claims = json.loads(out)["claims"]
    assert claims[PAIRED]["waiver"] == {"reason": "why", "expires": LATER}
    assert claims[CONTROL]["waiver"] is None
    assert f"{CONTROL}: text was" in error
    assert f"{CONTROL}: no longer waived (until {LATER})" in error
    assert error.count("no longer locked: ") == 2


def test_a_waiver_that_is_over_is_not_kept(results: dict[str, Any], write: Write, prunerob: Command) -> None:
    old = lock_of(results)
    old["claims"][PAIRED]["waiver"] = {"reason": "why", "expires": "2020-01-01"}
    code, out, error = prunerob("lock", write("results.json", results), "--from", write("old.lock", old))
    assert code == 0
    assert json.loads(out)["claims"][PAIRED]["waiver"] is None
    assert "no longer waived (until 2020-01-01)" in error
