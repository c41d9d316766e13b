"""Randomness at inference: one forward that holds is no survival, and one that fails is no lasting break."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
import random, torch
from torch import nn

class Noisy(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        {forward}

@pytest.fixture
def pruned_model(pruned_model):
    return Noisy(pruned_model).eval()

@cells()
def test_survival(pruned):
    assert pruned.robust_accuracy(P) >= 0.25

@cells()
def test_breaks(pruned):
    assert pruned.robust_accuracy(P) <= 0.75

@cells()
def test_distances(pruned):
    assert pruned.distance(fmn(steps=20)) >= 0.0001
"""


@pytest.mark.parametrize(
    "forward",
    [
        "return self.net(nn.functional.dropout(x, 0.02, training=True))",
        "return self.net(x) + 1e-3 * torch.randn(len(x), 4)",
        "return self.net(x) + 1e-3 * random.random()",
    ],
    ids=["dropout", "noise-on-logits", "one-number"],
)
def test_05_noise_is_no_evidence_of_survival(suite: Suite, forward: str) -> None:
    run = suite(SUITE.replace("{forward}", forward))
    assert [verdict for _, verdict in run.verdicts] == ["error"] * 3
    reason = "reason:   pruned: two forwards of the same inputs differ by up to *"
    run.result.stdout.fnmatch_lines([reason, '*claim robust_accuracy under autoattack("rand", ...)*'])
    (pruned,) = (entry for entry in run.results["subjects"].values() if "pruned" in entry["roles"])
    assert [check["indicator"] for check in pruned["checks"] if check["outcome"] == "failed"] == ["repeatable"]
