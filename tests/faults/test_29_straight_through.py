"""Steps with straight-through gradients: no gradient is zero, and still they are not those of the function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
import torch
from pytest_prunerob import Model

class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (500 * x).round() / 500

    @staticmethod
    def backward(ctx, gradient):
        return gradient

class Quantised(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(Rounded.apply(x))

@pytest.fixture
def pruned_model(pruned_model):
    return Model(Quantised(pruned_model).eval(), twin={twin})

@cells()
def test_white_box(pruned):
    assert pruned.robust_accuracy(autoattack(["apgd-ce", "apgd-t"], norm="linf", eps="0.0525")) >= 0.5

@cells()
def test_black_box(pruned):
    assert pruned.robust_accuracy(autoattack(["apgd-t", "square"], norm="linf", eps="0.0525")) >= 0.5

@cells()
def test_witnesses(pruned):
    assert pruned.robust_accuracy(autoattack(["apgd-t"], norm="linf", eps="0.0525")) <= 0.5
"""


def test_29_straight_through_gradients_support_nothing_on_white_box_stages_alone(suite: Suite) -> None:
    alone = suite(SUITE.replace("{twin}", "None"))
    reasons = {claim["cell"].partition("::")[2].partition("[")[0]: claim["reason"] for claim in alone.results["claims"]}
    assert alone.statuses == {
        "test_white_box": "inconclusive",
        "test_black_box": "inconclusive",
        "test_witnesses": "passed",
    }
    assert "survival needs a black-box stage, such as square" in reasons["test_white_box"]
    assert "survival needs transfer from the float network" in reasons["test_black_box"]


def test_29_a_black_box_stage_and_transfer_from_the_float_network_make_it_count(suite: Suite) -> None:
    run = suite(SUITE.replace("{twin}", "pruned_model"))
    assert run.statuses == {"test_white_box": "inconclusive", "test_black_box": "passed", "test_witnesses": "passed"}
