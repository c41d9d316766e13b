"""Claims on distances and plans that a fresh pair of eyes got passed although the models were broken."""

from __future__ import annotations

from pytest_prunerob.adequacy.distances import undercut
from tests.plugin.conftest import Suite

HEAD = """
import torch
from torch import nn
from pytest_prunerob import Dataset, autoattack, bim, critical_strength, fab, fgsm, fmn, pgd, worst_case

class Net(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.full((16,), 1 / 16))
        self.shift = shift

    def forward(self, x):
        f = x.flatten(1) - 0.5
        {forward}

@pytest.fixture
def dataset():
    x = torch.full((40, 1, 4, 4), {centre}) + torch.linspace(-0.001, 0.001, 40)[:, None, None, None]
    return Dataset("toy", x, torch.zeros(40, dtype=torch.long), classes={classes})

@pytest.fixture
def dense_model():
    return Net(0.1).eval()

@pytest.fixture
def pruned_model():
    return Net(0.03).eval()
"""


def suite_of(claims: str, forward: str, classes: int, centre: float) -> str:
    return HEAD.format(forward=forward, classes=classes, centre=centre) + claims


def test_gradients_that_mislead_only_off_the_samples_support_no_distance(suite: Suite) -> None:
    # Half of the pixels lead away slowly; the other half break it at once, without a gradient.
    forward = """s, t = f[:, :8].mean(1), f[:, 8:].mean(1)
        m = (0.3 - s + 0 * f @ self.w) * 10 - 150 * torch.relu(t.abs() - 0.03).detach()
        return torch.stack([m, -m, 0 * m - 9, 0 * m - 9], 1)"""
    claims = """
NEAREST = worst_case(fmn(norm="linf", steps=50), fab(norm="linf", steps=20))

@cells()
def test_it(pruned):
    assert pruned.robust_accuracy(autoattack(["square"], norm="linf", eps="0.15")) <= 0.5
    assert pruned.security_curve(NEAREST, "0.15") >= 0.9

@cells()
def test_median(pruned):
    assert pruned.distance(NEAREST) >= 0.25
"""
    run = suite(suite_of(claims, forward, 4, 0.5))
    assert [status for _, status in run.verdicts] == ["supported", "inconclusive", "inconclusive"]
    assert run.all.count("its gradients are off by") >= 2


def test_one_step_supports_nothing_where_two_classes_leave_no_margin_to_three(suite: Suite) -> None:
    forward = """m = ((f @ self.w).abs() - 0.06).abs() * 10 - 0.02
        return torch.stack([m, -m], 1)"""
    claims = """
@cells()
def test_it(pruned):
    assert pruned.robust_accuracy(fgsm(norm="linf", eps="0.1")) >= 0.9
"""
    run = suite(suite_of(claims, forward, 2, 0.499))
    assert [status for _, status in run.verdicts] == ["inconclusive"]
    assert "APGD broke " in run.all


def test_a_sweep_says_nothing_of_strengths_that_it_does_not_hold(suite: Suite) -> None:
    forward = """s = (f @ self.w - 0.1 + self.shift) * 10
        return torch.stack([s, -s, 0 * s - 9, 0 * s - 9], 1)"""
    claims = """
NEAREST = fab(norm="linf", steps=20)

@cells()
def test_it(dense, pruned):  # they part at 0.03
    assert critical_strength(dense, pruned, NEAREST, eps=["0.01", "0.05"], tolerance=0.25) <= 0.05
    assert critical_strength(dense, pruned, NEAREST, eps=["0.01", "0.02"], tolerance=0.25) > 0.01

@pytest.mark.parametrize("eps", [["0.01", "0.02"], ["0.3"], ["0.01", "0.06"]])
@cells()
def test_beyond(dense, pruned, eps):
    assert critical_strength(dense, pruned, NEAREST, eps=eps, tolerance=0.25) > 0.05
"""
    run = suite(suite_of(claims, forward, 4, 0.6))
    assert sorted(status for _, status in run.verdicts) == ["inconclusive"] * 3 + ["supported"] * 2
    assert "the sweep has no ε between 0.01 and 0.06" in run.all
    assert "both have lost everything at the smallest ε, 0.3" in run.all


def test_what_another_search_breaks_within_the_radius_blocks_a_point_of_a_curve() -> None:
    found = {0: 0.055, 1: 0.055, 2: 0.2, 3: -0.06}
    assert undercut(found, ((0, 0.053), (1, 0.053), (2, 0.2)), 0.05) == ""
    assert undercut(found, ((0, 0.0499), (2, 0.2)), 0.05) == ""  # one, and hardly nearer
    assert undercut(found, ((3, 0.01),), 0.05) == ""  # a clean error survives nothing
    clearly = undercut(found, ((0, 0.03), (1, 0.055), (0, 0.053)), 0.05)
    assert clearly == "another search breaks 1 of 2 checked samples within ε=0.05 that were farther"
    assert "breaks 2 of 2 checked" in undercut(found, ((0, 0.0499), (1, 0.05)), 0.05)


def test_samples_without_a_distance_are_not_broken_where_the_first_samples_decide(suite: Suite) -> None:
    # The dense network has no finite output a little way off, so that nothing is known of its curve.
    forward = """s = f @ self.w
        if self.shift > 0.05:
            s = torch.log(0.0104 - (s - 0.1).abs()) * 0 + s
        return torch.stack([s, -s, 0 * s - 0.1, 0 * s - 0.1], 1) * 10"""
    claims = """
FIXED = dict(norm="linf", eps="0.05", steps=5, step_size="0.02", micro_batch=10)

@cells()
def test_it(dense, pruned):
    under = pruned.accuracy_under(worst_case(pgd(**FIXED), bim(**FIXED)))
    assert under >= dense.security_curve(fmn(norm="linf", steps=20), "0.05") + 0.5
"""
    text = suite_of(claims, forward, 4, 0.6)
    for few, many in (("(40, 1, 4, 4)", "(400, 1, 4, 4)"), ("0.001, 40)", "0.001, 400)"), ("zeros(40", "zeros(400")):
        text = text.replace(few, many)
    run = suite(text, "--prunerob-decide=sequential")
    assert [status for _, status in run.verdicts] == ["inconclusive"]
    assert "400 of 400 samples have no distance" in run.all
