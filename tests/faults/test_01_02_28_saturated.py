"""Losses without gradients: signs, and logits so large that the cross-entropy saturates."""

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
    plan = autoattack({stages}, norm="{norm}", eps="{eps}")
    assert pruned.robust_accuracy(plan) >= {share}
"""


def outcome(
    suite: Suite,
    output: str,
    stages: list[str],
    *,
    norm: str = "linf",
    eps: str = "0.0525",
    share: str = "0.9",
) -> tuple[str, str]:
    text = SUITE
    for name, value in (("output", output), ("stages", str(stages)), ("norm", norm), ("eps", eps), ("share", share)):
        text = text.replace("{" + name + "}", value)
    (claim,) = suite(text).results["claims"]
    return claim["verdict"], claim["reason"]


def test_01_a_sign_network_under_cross_entropy_is_inconclusive(suite: Suite) -> None:
    verdict, reason = outcome(suite, "5 * out.sign()", ["apgd-ce"])
    assert verdict == "inconclusive"
    assert "no gradient stage could have broken the survivors" in reason
    assert "had no gradient of its loss" in reason


def test_02_scaled_logits_are_broken_by_a_margin_loss_and_inconclusive_under_cross_entropy(suite: Suite) -> None:
    verdict, reason = outcome(suite, "5000 * out", ["apgd-ce"])
    assert verdict == "inconclusive"
    assert "had no gradient of its loss" in reason
    assert outcome(suite, "5000 * out", ["apgd-t"])[0] == "refuted"
    assert outcome(suite, "5000 * out", ["apgd-ce", "apgd-t"], share="0.5")[0] == "supported"


@pytest.mark.parametrize(
    ("output", "norm", "eps", "verdict"),
    [
        ("out", "linf", "0.0525", "supported"),
        ("30 * out", "linf", "0.0525", "inconclusive"),
        ("10 * out", "l2", "0.15", "supported"),
        ("5 * 10 * out", "l2", "0.15", "inconclusive"),
    ],
)
def test_28_larger_logits_under_cross_entropy_alone(
    suite: Suite, output: str, norm: str, eps: str, verdict: str
) -> None:
    assert outcome(suite, output, ["apgd-ce"], norm=norm, eps=eps, share="0.5")[0] == verdict
