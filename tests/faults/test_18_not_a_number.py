"""A NaN compares as False with everything, and so may pass a careless comparison: here it is an error."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Suite

PATCHED = """
from pytest_prunerob import inference
from pytest_prunerob.ledger import Ledger

measured = Ledger.values.fget

def spoiled(ledger):
    found = measured(ledger)
    if ledger.kind != "minimise" or {whole}:
        return found
    return {{**found, 0: float("nan")}}

@pytest.fixture(autouse=True)
def spoil(monkeypatch):
    monkeypatch.setattr(Ledger, "values", property(spoiled))
    if {bounds}:
        for name in ("lower_bound", "paired_lower_bound"):
            monkeypatch.setattr(inference, name, lambda *_: float("nan"))
"""

DISTANCES = """
@cells()
@pytest.mark.parametrize("above", [True, False])
def test_distance(dense, above):
    distance = dense.distance(fmn(steps=2))
    assert distance > 0.001 if above else distance < 100

@cells()
@pytest.mark.parametrize("above", [True, False])
def test_quantile(dense, above):
    distance = dense.distance(fmn(steps=2)).quantile(0.1)
    assert distance > 0.001 if above else distance < 100
"""

BOUNDS = """
@cells()
@pytest.mark.parametrize("above", [True, False])
def test_share(dense, above):
    assert dense.accuracy() >= 0.1 if above else dense.accuracy() <= 0.1

@cells()
@pytest.mark.parametrize("above", [True, False])
def test_pair(dense, pruned, above):
    difference = pruned.accuracy() - dense.accuracy()
    assert difference >= -0.5 if above else difference <= 0.5
"""


@pytest.mark.parametrize(
    ("tests", "whole", "bounds", "reason", "args"),
    [
        (DISTANCES, "False", "False", "a distance is NaN", []),
        (BOUNDS, "True", "True", "a confidence bound is NaN", ["--prunerob-population=distribution"]),
    ],
)
def test_18_nan_is_an_error(suite: Suite, tests: str, whole: str, bounds: str, reason: str, args: list[str]) -> None:
    run = suite(PATCHED.format(whole=whole, bounds=bounds) + tests, *args)
    assert run.ret == 1
    assert [(claim["verdict"], claim["reason"]) for claim in run.results["claims"]] == [("error", reason)] * 4
    # The same suite without the NaN.
    run = suite(PATCHED.format(whole="True", bounds="False") + tests, *args)
    assert "error" not in {claim["verdict"] for claim in run.results["claims"]}
