from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.commands.merge import merge
from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report.consistency import contradictions
from pytest_prunerob.report.results import validate
from tests.unit.commands.conftest import CONTROL, PAIRED, Command, Write, entry

CELL = PAIRED.rpartition("#")[0]


def only(document: dict[str, Any], *names: str) -> dict[str, Any]:
    """The part of a job that ran the cells called ``names``."""
    part = copy.deepcopy(document)
    part["cells"] = [cell for cell in part["cells"] if cell["id"] in names]
    part["claims"] = [claim for claim in part["claims"] if claim["cell"] in names]
    used = {term["measurement"] for claim in part["claims"] for term in claim["terms"]}
    part["measurements"] = {key: value for key, value in part["measurements"].items() if key in used}
    part["subjects"] = {
        digest: subject
        for digest, subject in part["subjects"].items()
        if any(digest in cell["subjects"] for cell in part["cells"])
    }
    part["selection"]["planned"] = len(part["cells"])
    return part


def parts(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return only(document, CELL), only(document, *(cell["id"] for cell in document["cells"] if cell["id"] != CELL))


def test_parts_become_the_whole(results: dict[str, Any], write: Write, prunerob: Command) -> None:
    first, second = parts(results)
    second["started"], second["finished"] = "2026-03-04T08:00:00+00:00", "2026-03-04T10:00:00+01:00"
    second["environment"]["device"] = "cuda"
    second["exit_status"] = 1
    code, out, _ = prunerob("merge", write("a.json", first), write("b.json", second))
    assert code == 0
    merged = json.loads(out)
    validate(merged)
    assert contradictions(merged) == []
    assert (merged["status"], merged["exit_status"], merged["selection"]["planned"]) == ("complete", 1, 3)
    assert {claim["id"] for claim in merged["claims"]} == {claim["id"] for claim in results["claims"]}
    for name in ("cells", "claims"):
        assert sorted(merged[name], key=lambda each: each["id"]) == sorted(results[name], key=lambda each: each["id"])
    assert merged["subjects"].keys() == {d for cell in results["cells"] for d in cell["subjects"]}
    assert merged["environment"]["device"] == "cpu + cuda"
    assert (merged["started"], merged["finished"]) == (second["started"], results["finished"])
    assert merged["cost"]["forward"] == 2 * results["cost"]["forward"]
    lock = write("claims.lock", lock_of(results, models=True))
    merged["exit_status"] = 0
    assert prunerob("verify", write("all.json", merged), "--lock", lock)[0] == 0
    assert prunerob("verify", write("all.json", first), "--lock", lock)[0] == 1


def test_a_cell_that_one_part_lost_is_taken_from_another(results: dict[str, Any]) -> None:
    lost = copy.deepcopy(results)
    lost["status"] = "incomplete"
    entry(lost["cells"], CELL).update(status="not evaluated", claims=[], subjects=[], message="lost")
    lost["claims"] = [claim for claim in lost["claims"] if claim["cell"] != CELL]
    for order in ((lost, results), (results, lost)):
        merged = merge([("a", order[0]), ("b", order[1])])
        assert entry(merged["cells"], CELL)["status"] == "passed"
        assert entry(merged["claims"], PAIRED)["verdict"] == "supported"
        assert merged["status"] == "incomplete"


def test_of_a_measurement_the_part_that_knows_more_counts(results: dict[str, Any]) -> None:
    key = entry(results["claims"], PAIRED)["terms"][0]["measurement"]
    less = copy.deepcopy(results)
    less["measurements"][key].update(complete=False, survived=0, undecided=130)
    less["measurements"][key]["stages"][-1]["done"] = 0
    for order in ((less, results), (results, less)):
        assert merge([("a", order[0]), ("b", order[1])])["measurements"][key] == results["measurements"][key]


CONFLICTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "verdict": (
        lambda d: entry(d["claims"], CONTROL).update(verdict="supported"),
        f'disagree on the verdict of {CONTROL}: "refuted" and "supported"',
    ),
    "text": (lambda d: entry(d["claims"], PAIRED).update(text="x"), "disagree on the text of "),
    "status": (lambda d: entry(d["cells"], CELL).update(status="failed"), 'disagree on the status of .*: "passed" and'),
    "a claim less": (
        lambda d: (d["claims"].remove(entry(d["claims"], PAIRED)), entry(d["cells"], CELL)["claims"].clear()),
        "disagree on the claims of ",
    ),
    "dataset": (lambda d: entry(d["cells"], CELL)["dataset"].update(digest="d2"), "disagree on the dataset of "),
    "population": (lambda d: d["options"].update(population="distribution"), "disagree on the option 'population'"),
    "confidence": (lambda d: d["options"].update(confidence=0.5), "disagree on the option 'confidence'"),
    "adequacy": (lambda d: d["options"].update(adequacy="full"), "disagree on the option 'adequacy'"),
    "seed": (lambda d: d["environment"].update(seed=1), "disagree on the seed: 0 and 1"),
    "packages": (lambda d: d["environment"]["packages"].update(torch="1"), "disagree on the packages"),
    "precision": (lambda d: d["environment"]["precision"].update(tf32=True), "disagree on the precision"),
    "revision": (lambda d: d["environment"]["git"].update(revision="0"), "disagree on the git revision"),
    "counts": (
        lambda d: next(iter(d["measurements"].values())).update(broken=1),
        "disagree on the broken of measurement ",
    ),
    "weights": (lambda d: next(iter(d["subjects"].values())).update(weights="w"), "disagree on the weights of model "),
    "running": (lambda d: d.update(status="running"), "b.json: the run is running"),
}


@pytest.mark.parametrize(("change", "sentence"), CONFLICTS.values(), ids=CONFLICTS)
def test_what_contradicts_is_an_error_that_names_both(
    results: dict[str, Any], change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    other = copy.deepcopy(results)
    merge([("a.json", results), ("b.json", other)])
    change(other)
    with pytest.raises(ResultsError, match=sentence.replace("[", r"\[").replace("]", r"\]")) as caught:
        merge([("a.json", results), ("b.json", other)])
    assert "b.json" in str(caught.value)


def test_merging_a_document_with_itself_changes_no_verdict(results: dict[str, Any]) -> None:
    merged = merge([("a", results), ("a", results)])
    assert merged["claims"] == sorted(results["claims"], key=lambda claim: claim["cell"])
    assert merged["measurements"] == results["measurements"]


def test_p_values_are_adjusted_over_all_parts(results: dict[str, Any]) -> None:
    first, second = parts(results)
    twin = copy.deepcopy(entry(first["cells"], CELL))
    claim = entry(first["claims"], PAIRED)
    claim.update(p_value=0.01, holm=0.01)
    other = CELL.replace("0.50", "0.60")
    second["cells"].append({**twin, "id": other, "claims": [f"{other}#0"]})
    second["claims"].append({**claim, "id": f"{other}#0", "cell": other, "p_value": 0.04, "holm": 0.04})
    second["subjects"].update(first["subjects"])
    second["measurements"].update(first["measurements"])
    merged = merge([("a", first), ("b", second)])
    assert [entry(merged["claims"], name)["holm"] for name in (PAIRED, f"{other}#0")] == [0.02, 0.04]
