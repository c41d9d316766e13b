"""BatchNorm in train mode: its outputs are of the batch, not of the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
from torch import nn

@pytest.fixture
def pruned_model(pruned_model):
    model = nn.Sequential(nn.BatchNorm2d(1, affine=False), pruned_model).eval()
    model[0].running_mean.fill_(0.0)
    {change}
    return model

@cells()
def test_survival(pruned):
    assert pruned.robust_accuracy(P) >= 0.5

@cells()
def test_witnesses(pruned):
    assert pruned.robust_accuracy(P) <= 0.5

@cells()
def test_accuracy(pruned):
    assert pruned.accuracy() >= 0
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("model.train()", "in train mode: the model, 0, 1 and 2 more; call .eval() on the model where it is made*"),
        ("model[0].train()", "in train mode: 0; call .eval() on the model where it is made*"),
        (
            "model[0] = nn.BatchNorm2d(1, affine=False, track_running_stats=False).eval()",
            "a sample's logits change with other neighbours in the batch: *",
        ),
    ],
    ids=["all", "one-layer", "without-the-flag"],
)
def test_04_batch_statistics_are_an_error(suite: Suite, change: str, reason: str) -> None:
    run = suite(SUITE.replace("{change}", change))
    assert set(run.statuses.values()) == {"failed"}
    assert [verdict for _, verdict in run.verdicts] == ["error"] * 3
    run.result.stdout.fnmatch_lines([f"reason:   pruned: {reason}"])


def test_04_running_statistics_are_none(suite: Suite) -> None:
    run = suite(SUITE.replace("{change}", "model[0].eval()"))
    assert set(run.statuses.values()) == {"passed"}
