"""Thresholds are exact fractions: 0.07 · 100 is 7.000000000000001 in floats, and 7 survivors of 100 are 7 %."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Suite

SUITE = """
import torch
from pytest_prunerob import Dataset

@pytest.fixture
def dataset():
    # All of class 0; off the grey 0.5 by 0.1 where the sample is to survive ε = 0.0525, by 0.01 where it is not.
    margins = torch.tensor([0.1] * {survivors} + [0.01] * (100 - {survivors}))
    x = 0.5 + margins[:, None, None, None] * torch.ones(100, 1, 4, 4)
    return Dataset("hundred", x, torch.zeros(100, dtype=torch.int64), classes=4)

@cells()
def test_at_least(pruned):
    assert pruned.robust_accuracy(P) >= 0.07

@cells()
def test_below(pruned):
    assert pruned.robust_accuracy(P) < 0.07
"""


@pytest.mark.parametrize(("survivors", "at_least", "below"), [(7, "supported", "refuted"), (6, "refuted", "supported")])
def test_14_seven_of_a_hundred_are_seven_percent(suite: Suite, survivors: int, at_least: str, below: str) -> None:
    run = suite(SUITE.replace("{survivors}", str(survivors)))
    assert run.ret == 1
    assert [verdict for _, verdict in run.verdicts] == [at_least, below]
    assert [claim["decision"] for claim in run.results["claims"]] == ["exact", "exact"]
