"""Logits that are no numbers support nothing: not survival, and not a break either."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run, Suite

SUITE = """
import torch
from dataclasses import replace
from torch import nn

def short(plan):
    few = {"apgd-ce": {"steps": 5}, "square": {"queries": 20}, "fab": {"steps": 5, "restarts": 1}}
    return replace(plan, stages=tuple(stage.changed(**few[stage.attack]) for stage in plan.stages))

class Holes(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        out = self.net(x)
        # The clean samples stand on multiples of 0.005; whatever an attack makes of them stands between.
        place = (x[..., :2].flatten(1).mean(1, keepdim=True) - 0.5) / 0.005
        between = (place - place.round()).abs() > 0.1
        return {output}

@pytest.fixture
def pruned_model(pruned_model):
    return Holes(pruned_model).eval()

@cells()
def test_survival(pruned):
    for stage in ("apgd-ce", "square", "fab"):  # which may meet a few points without a hole, and break the sample
        with contextlib.suppress(AssertionError):
            assert pruned.robust_accuracy(short(autoattack(stages=[stage], norm="linf", eps="0.0525"))) >= 0.001
    assert pruned.robust_accuracy(P) >= 0.001

@cells()
def test_breaks(pruned):
    assert pruned.robust_accuracy(P) <= 0.999

@cells()
def test_accuracy_under(pruned):
    with contextlib.suppress(AssertionError):
        assert pruned.accuracy_under(P) >= 0.001
    assert pruned.accuracy_under(P) <= 0.999

@cells()
def test_distance(pruned):
    with contextlib.suppress(AssertionError):
        assert pruned.distance(fmn(steps=20)) >= 0.0001
    assert pruned.distance(fmn(steps=20)) <= 10

@cells()
def test_failed_searches(pruned):
    with contextlib.suppress(AssertionError):
        assert pruned.distance(fmn(steps=20)).failed() >= 0.001
    assert pruned.distance(fmn(steps=20)).failed() <= 0.999

@cells()
def test_no_worse_than_dense(dense, pruned):
    with contextlib.suppress(AssertionError):
        assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.74
    assert pruned.robust_accuracy(P) <= dense.robust_accuracy(P) + 0.24
"""
NAN = "torch.full_like(out, float('nan'))"


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        (NAN, "error"),
        ("torch.cat([out[:, :1] + float('nan'), out[:, 1:]], 1)", "error"),
        (f"torch.where(between, {NAN}, out)", "inconclusive"),
        ("torch.cat([torch.where(between, float('nan'), out[:, :1]), out[:, 1:]], 1)", "inconclusive"),
        ("torch.where(between, out + float('inf'), out)", "inconclusive"),
    ],
    ids=["everywhere", "class-0", "inside-eps", "inside-eps-class-0", "infinite-inside-eps"],
)
def test_06_logits_that_are_not_finite_support_nothing(suite: Suite, output: str, verdict: str) -> None:
    supports_nothing(suite(SUITE.replace("{output}", output)), verdict)


@pytest.mark.parametrize("option", ["--prunerob-population=distribution", "--prunerob-decide=sequential"])
def test_06_whatever_decides(suite: Suite, option: str) -> None:
    output = f"torch.where(between, {NAN}, out)"
    run = suite(SUITE.replace("{output}", output), option)
    supports_nothing(run, "inconclusive")


def supports_nothing(run: Run, verdict: str) -> None:
    assert len(run.verdicts) == 13
    assert {found for _, found in run.verdicts} == {verdict}
    assert "passed" not in run.statuses.values()
    reasons = {claim["reason"] for claim in run.results["claims"]}
    assert all("not finite" in reason or "NaN or infinite" in reason for reason in reasons)


def test_06_a_break_beside_a_hole_is_a_break(suite: Suite) -> None:
    output = f"torch.where(between & (x[:, 0, 0, :1] > 0.52), {NAN}, out)"
    run = suite(
        SUITE.replace("{output}", output)
        + """
@cells()
def test_of_40(pruned):
    # 14 samples are broken, 14 survive, 12 end in a hole
    assert pruned.robust_accuracy(P) <= 0.65
    for claim in (pruned.robust_accuracy(P) <= 0.64, pruned.robust_accuracy(P) >= 0.3):
        with contextlib.suppress(AssertionError):
            assert claim
""",
        "-k",
        "test_of_40",
    )
    assert [verdict for _, verdict in run.verdicts] == ["supported", "inconclusive", "inconclusive"]
