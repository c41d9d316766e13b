"""A published share of a stated number of samples that no count of them gives."""

from __future__ import annotations

import pytest

from pytest_prunerob.errors import CellsError
from pytest_prunerob.reported import table
from tests.faults.conftest import Suite

SUITE = """
import pathlib
from pytest_prunerob import table
pathlib.Path(__file__).with_name("t.csv").write_text("name,value\\na,{printed}\\n")

@cells(reported=table("t.csv", key={"name": "a"}, column="value", samples=1000, note="their Table 1"))
def test_overestimated(pruned, reported):
    assert reported - pruned.robust_accuracy(P) >= -1

@cells(reported=table("t.csv", key={"name": "a"}, column="value", samples=1000, note="their Table 1"))
def test_re_evaluated(pruned):
    assert pruned.robust_accuracy(P) >= 0.3

@cells(reported=table("t.csv", key={"name": "a"}, column="value", samples=1000, note="their Table 1"))
def test_other_metric(pruned):
    assert pruned.accuracy() >= 0.4
"""
SENTENCE = "the reported 44.07 cannot be a share of 1,000 samples: 440 of them are 0.44 and 441 are 0.441"


@pytest.mark.parametrize("population", ["testset", "distribution"])
def test_27_an_impossible_number_is_flagged_and_supports_nothing(suite: Suite, population: str) -> None:
    run = suite(SUITE.replace("{printed}", "44.07"), f"--prunerob-population={population}")
    assert run.ret == 1
    claims = {claim["cell"].partition("::")[2].partition("[")[0]: claim for claim in run.results["claims"]}
    leaning = claims["test_overestimated"]
    assert (leaning["verdict"], leaning["reason"]) == ("inconclusive", SENTENCE)
    assert leaning["settle"] == "the number as it was measured, or the number of samples that it was measured on"
    beside = claims["test_re_evaluated"]
    assert beside["verdict"] == "supported"
    assert beside["reason"].endswith(SENTENCE)
    for claim in (leaning, beside):
        assert claim["comparison"]["reported"]["note"] == f"their Table 1; {SENTENCE}"
    assert SENTENCE not in claims["test_other_metric"]["reason"]
    assert f"reason:   {SENTENCE}" in run.out


def test_27_a_possible_number_is_not_flagged(suite: Suite) -> None:
    run = suite(SUITE.replace("{printed}", "44.1"))
    assert run.ret == 0
    assert {claim["verdict"] for claim in run.results["claims"]} == {"supported"}
    assert "cannot be a share" not in run.path.read_text()


@pytest.mark.parametrize("samples", [0, -5, True, 2.5, "1000"])
def test_27_the_number_of_samples_is_a_number(samples: object) -> None:
    with pytest.raises(CellsError, match="of a reported table is not a whole number of at least 1"):
        table("t.csv", key={}, column="value", samples=samples)  # type: ignore[arg-type]
    with pytest.raises(CellsError, match="auc_s10 is no share of samples"):
        table("t.csv", key={}, column="value", metric="auc_s10", samples=10)
