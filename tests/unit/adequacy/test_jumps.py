"""Networks that jump: no gradient of theirs is wrong, and their survivors of gradient attacks are no evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import Dataset, Model, autoattack
from pytest_prunerob.adequacy.discrete import MISMATCH, discrete, gradient_mismatch
from pytest_prunerob.adequacy.jumps import JUMP, jump
from pytest_prunerob.compression.activations import with_largest, without_largest
from pytest_prunerob.engine import Engine
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.measurement import Bench
from pytest_prunerob.models import _with_twin
from pytest_prunerob.plans import Plan
from pytest_prunerob.store import Store

EPS = "0.05"
FEW = {"apgd-ce": {"steps": 10}, "square": {"queries": 20}}


def short(plan: Plan) -> Plan:
    """``plan`` with few steps and queries."""
    return replace(plan, stages=tuple(stage.changed(**FEW.get(stage.attack, {})) for stage in plan.stages))


WHITE = short(autoattack(["apgd-ce"], norm="linf", eps=EPS))
BLACK = short(autoattack(["apgd-ce", "square"], norm="linf", eps=EPS))


class Pairs(nn.Module):
    """Sorts neighbouring features: it ranks, and is continuous all the same."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, 2).sort(2).values.view(x.shape)


class Single(nn.Module):
    """A network that computes in another precision than its input has."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(self.dtype)).float()  # type: ignore[no-any-return]


def network(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 24), activation, nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5))


def images() -> Tensor:
    return torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def far(x: Tensor, radius: float) -> Tensor:
    return x + radius * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).sign()


@pytest.mark.parametrize("radius", [0.3, 0.01])
def test_continuous_networks_have_no_jumps(radius: float) -> None:
    x = images()
    for activation in (nn.ReLU(), nn.GELU(), Pairs(), nn.Hardtanh()):
        assert jump(network(activation).eval(), x, far(x, radius)) == 0.0
    assert jump(nn.Sequential(network(nn.ReLU()), nn.Softmax(1)).eval(), x, far(x, radius)) == 0.0
    for dtype in (torch.float32, torch.bfloat16):
        assert jump(Single(network(nn.ReLU()), dtype).eval(), x, far(x, radius)) == 0.0


@pytest.mark.parametrize("radius", [0.3, 0.05])
def test_networks_with_the_largest_activations_only_jump_though_their_gradients_are_their_own(radius: float) -> None:
    x = images()
    sparse = with_largest(network(nn.ReLU()), "0.8").eval()
    assert discrete(sparse) == ""
    assert gradient_mismatch(sparse, x) < MISMATCH
    assert jump(sparse, x, far(x, radius)) > 10 * JUMP
    assert jump(Single(sparse, torch.float32), x, far(x, radius)) > 10 * JUMP
    assert jump(without_largest(sparse), x, far(x, radius)) == 0.0


@pytest.mark.parametrize(
    ("plan", "twin", "status", "reason"),
    [
        (WHITE, True, "inconclusive", "needs a black-box stage"),
        (BLACK, False, "inconclusive", "same network without its jumps"),
        (BLACK, True, "supported", ""),
    ],
    ids=["white-box", "no twin", "black-box and twin"],
)
def test_survival_of_activation_pruning_needs_a_black_box_stage_and_the_twin(
    plan: Plan, twin: bool, status: str, reason: str, tmp_path: Path
) -> None:
    # A bias that decides: the survivors are real, and only the evidence for them is at stake.
    sparse = with_largest(network(nn.ReLU()), "0.6").eval()
    with torch.no_grad():
        sparse[-1].bias[0] += 3.0
    model = _with_twin(sparse)
    assert isinstance(model, Model)
    x = images()
    data = Dataset("random", x, model(x).argmax(1), classes=5)
    evaluation = TestEvaluation(Bench(Store(tmp_path), Engine("cpu", 250, 0), print), "testset", 0.95)
    subject = evaluation.subject(model if twin else sparse, data, "pruned")
    claim = subject.robust_accuracy(plan) >= 0.5
    assert bool(claim) == (status == "supported")
    assert claim.verdict is not None
    assert claim.verdict.status == status
    assert reason in claim.verdict.reason


def test_a_network_without_jumps_gets_no_twin() -> None:
    plain = network(nn.ReLU())
    assert _with_twin(plain) is plain
