"""Attacks that could not have worked: they return their input, their loss does not move, or a black box beats them."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

PATCHED = """
from dataclasses import replace
import torch
from pytest_prunerob.attacks import ATTACKS

def ascent(oracle, rows, sizes):
    with oracle.call(rows):
        x = oracle.x[rows]
        z = x.clone()
        for size in sizes:
            z = z.detach().requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(oracle(z), oracle.y[rows], reduction="sum")
            (gradient,) = torch.autograd.grad(loss, z)
            z = torch.minimum(torch.maximum(z + size * gradient.sign(), x - 0.0525), x + 0.0525)

def everything(oracle):
    return torch.arange(len(oracle.x))

{drive}

@pytest.fixture(autouse=True)
def patched(monkeypatch):
    monkeypatch.setitem(ATTACKS, "apgd-ce", replace(ATTACKS["apgd-ce"], drive=drive))

@cells()
def test_survival(pruned):
    assert pruned.robust_accuracy(autoattack({stages}, norm="linf", eps="0.0525")) >= {share}
"""
HONEST = """
def drive(oracle, settings):
    ascent(oracle, oracle.survivors(), [0.06, 0.01, 0.01, 0.01, 0, 0, 0, 0])
"""
RETURNS_ITS_INPUT = """
def drive(oracle, settings):
    oracle.submit(oracle.x, everything(oracle))
"""
FLAT = """
def drive(oracle, settings):
    ascent(oracle, everything(oracle), [0.0] * 8)
"""
RISES = """
def drive(oracle, settings):
    ascent(oracle, oracle.survivors(), [0.0004] * 20)
"""
# The gradient is a number on the samples, whose pixels are whole thousandths, and nowhere else.
NOT_A_NUMBER = """
class Nan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        clean = ((1000 * x).round() - 1000 * x).abs() < 0.01
        return torch.where(clean, gradient, torch.full_like(gradient, float("nan")))

class Network(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(Nan.apply(x))

@pytest.fixture
def pruned_model(pruned_model):
    return Network(pruned_model).eval()

def drive(oracle, settings):
    ascent(oracle, everything(oracle), [0.0003] * 8)
"""
# Six samples, 0.04 to 0.05 off the boundary, are never attacked; Square finds them.
BLIND = """
def drive(oracle, settings):
    rows = oracle.survivors()
    off = (oracle.x[rows][:, 0, 0, 0] - 0.5).abs()
    rows = rows[(off < 0.039) | (off > 0.051)]
    if len(rows):
        ascent(oracle, rows, [0.06, 0.01, 0.01, 0.01, 0, 0, 0, 0])
"""


def run(suite: Suite, drive: str, *, stages: str = '["apgd-ce"]', share: str = "0.5") -> dict[str, object]:
    text = PATCHED.replace("{drive}", drive).replace("{stages}", stages).replace("{share}", share)
    # A patched attack has the key of the true one, so each has a store of its own.
    results = suite(text, f"--prunerob-store=store-{sha256(drive.encode()).hexdigest()[:8]}").results
    (claim,) = results["claims"]
    (measurement,) = results["measurements"].values()
    failed = {check["indicator"] for check in measurement["checks"] if check["outcome"] == "failed"}
    return {**claim, "failed": failed, "stages": {s["name"]: s["broken"] for s in measurement["stages"]}}


def test_an_honest_attack_is_trusted(suite: Suite) -> None:
    found = run(suite, HONEST)
    assert (found["verdict"], found["stands_on"], found["failed"]) == ("supported", "pruned: apgd-ce", set())


def test_09_an_attack_that_returns_its_input_is_blocked(suite: Suite) -> None:
    found = run(suite, RETURNS_ITS_INPUT, share="0.9")
    assert found["verdict"] == "inconclusive"
    assert "it took no gradient of the model at all" in str(found["reason"])


@pytest.mark.parametrize(
    ("drive", "share", "indicator"),
    [(FLAT, "0.9", "flat-loss"), (RISES, "0.5", "not-converged"), (NOT_A_NUMBER, "0.9", "non-finite-loss")],
    ids=["flat", "rises", "nan"],
)
def test_10_a_loss_that_is_flat_still_rises_or_is_no_number(
    suite: Suite, drive: str, share: str, indicator: str
) -> None:
    found = run(suite, drive, share=share)
    assert found["verdict"] == "inconclusive"
    assert indicator in found["failed"]  # type: ignore[operator]


@pytest.mark.parametrize("random_start", [False, True])
def test_10_steps_that_add_up_to_less_than_eps(suite: Suite, random_start: bool) -> None:
    run = suite(f"""
        @cells()
        def test_survival(pruned):
            plan = pgd(norm="linf", eps="0.0525", steps=5, step_size="0.0005", random_start={random_start})
            assert pruned.robust_accuracy(plan) >= 0.6
    """)
    (claim,) = run.results["claims"]
    assert claim["verdict"] == "inconclusive"
    assert "all its steps together are 0.0025 long, and ε is 0.0525" in claim["reason"]


def test_13_what_square_breaks_counts_and_makes_survival_inconclusive(suite: Suite) -> None:
    both = '["apgd-ce", "square"]'
    found = run(suite, BLIND, stages=both)
    assert found["verdict"] == "inconclusive"
    assert found["failed"] == {"black-box"}
    assert found["stages"] == {"apgd-ce": 14, "square": 6}
    assert run(suite, BLIND, stages=both, share="0.51")["verdict"] == "refuted"
    assert run(suite, HONEST, stages=both)["verdict"] == "supported"
