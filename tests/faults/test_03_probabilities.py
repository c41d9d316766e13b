"""Outputs that are probabilities: attacks lose their gradients on them, so survival does not count; witnesses do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
from torch import nn

class Output(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        out = self.net(x)
        return {output}

@pytest.fixture
def pruned_model(pruned_model):
    return Output(pruned_model).eval()

@cells()
def test_survival(pruned):
    assert pruned.robust_accuracy(P) >= 0.5

@cells()
def test_a_gain(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.3

@cells()
def test_refuted_by_witnesses(pruned):
    assert pruned.robust_accuracy(P) >= 0.9

@cells()
def test_supported_by_witnesses(pruned):
    assert pruned.robust_accuracy(P) <= 0.5

@cells()
def test_distances(pruned):
    assert pruned.distance(fmn(steps=20)) >= 0.01
"""


@pytest.mark.parametrize(
    "output",
    ["out.softmax(1)", "out.sigmoid()", "100 * out.softmax(1)", "out.softmax(1).half().float()"],
    ids=["softmax", "sigmoid", "scaled", "fp16-rounded"],
)
def test_03_probabilities_are_no_evidence_of_survival(suite: Suite, output: str) -> None:
    run = suite(SUITE.replace("{output}", output))
    assert run.statuses == {
        "test_survival": "inconclusive",
        "test_a_gain": "inconclusive",
        "test_refuted_by_witnesses": "failed",
        "test_supported_by_witnesses": "passed",
        "test_distances": "inconclusive",
    }
    run.result.stdout.fnmatch_lines(["reason:   pruned: the outputs look like probabilities *"])
    (pruned,) = (entry for entry in run.results["subjects"].values() if "pruned" in entry["roles"])
    assert [check["indicator"] for check in pruned["checks"] if check["outcome"] == "failed"] == ["probabilities"]


def test_03_log_probabilities_are_harmless(suite: Suite) -> None:
    run = suite(SUITE.replace("{output}", "out.log_softmax(1)"), "-k", "not distances")
    assert run.statuses == {
        "test_survival": "passed",
        "test_a_gain": "passed",
        "test_refuted_by_witnesses": "failed",
        "test_supported_by_witnesses": "passed",
    }
