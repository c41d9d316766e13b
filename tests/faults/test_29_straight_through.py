"""Steps with straight-through gradients: no gradient is zero, and still they are not those of the function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from pytest_prunerob import Dataset, fmn, pgd
from pytest_prunerob.engine import Engine
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.measurement import Bench
from pytest_prunerob.store import Store

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


@pytest.mark.parametrize(
    ("twin", "reason"),
    [
        ("Quantised(pruned_model).eval()", "the twin computes in steps itself"),
        ("torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4)).eval()", "the twin classifies"),
    ],
    ids=["steps", "untrained"],
)
def test_29_a_twin_that_is_no_float_network_of_the_model_makes_nothing_count(
    suite: Suite, twin: str, reason: str
) -> None:
    run = suite("import torch; torch.manual_seed(0)\n" + SUITE.replace("{twin}", twin), "-k", "black_box")
    assert run.statuses == {"test_black_box": "inconclusive"}
    assert reason in run.results["claims"][0]["reason"]


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return (50 * x).round() / 50

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient


class Steps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = Rounded.apply(x)  # type: ignore[no-untyped-call]
        return rounded


@pytest.mark.parametrize(("first", "verdict"), [(Steps(), "inconclusive"), (nn.Identity(), "supported")])
def test_29_distances_along_straight_through_gradients_support_nothing(
    first: nn.Module, verdict: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(first, nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    x = torch.rand(12, 1, 6, 6)
    data = Dataset("random", x, model(x).argmax(1), classes=5)
    evaluation = TestEvaluation(Bench(Store(tmp_path), Engine("cpu", 250, 0), print), "testset", 0.95)
    distance = evaluation.subject(model, data, "pruned").distance(fmn(steps=30))
    for claim in (distance >= 0.0001, distance <= 0.9):
        assert bool(claim) == (verdict == "supported")
        assert claim.verdict is not None
        assert claim.verdict.status == verdict
        assert ("need not be the smallest" in claim.verdict.reason) == (verdict == "inconclusive")


class Mirrored(torch.autograd.Function):
    """The gradient is that of the function on whole tenths only, which all samples are."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward((10 * x - (10 * x).round()).abs().flatten(1).median(1).values > 0.2)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (off,) = ctx.saved_tensors
        return torch.where(off.view(-1, 1, 1, 1), -gradient.flip(-1), gradient)


class Honest(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class OnTheSamples(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Mirrored.apply(x)  # type: ignore[no-untyped-call]
        return found


@pytest.mark.parametrize(("first", "verdict"), [(OnTheSamples(), "inconclusive"), (Honest(), "supported")])
def test_29_gradients_that_mislead_off_the_samples_support_nothing(
    first: nn.Module, verdict: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(first, nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    x = (10 * torch.rand(12, 1, 6, 6)).round() / 10
    data = Dataset("tenths", x, model(x).argmax(1), classes=5)
    evaluation = TestEvaluation(Bench(Store(tmp_path), Engine("cpu", 250, 0), print), "testset", 0.95)
    plan = pgd(norm="linf", eps="0.05", steps=10, step_size="0.0125")
    claim = evaluation.subject(model, data, "pruned").robust_accuracy(plan) >= 0.75
    assert bool(claim) == (verdict == "supported")
    assert claim.verdict is not None
    assert claim.verdict.status == verdict
