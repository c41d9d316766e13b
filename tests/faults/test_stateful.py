"""Beyond the list: forwards that change the model or optimise, and models that are changed behind a subject's back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.temperature = net, 1.0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        {forward}
        return self.net(x) / self.temperature

@pytest.fixture
def pruned_model(pruned_model):
    return Own(pruned_model).eval()

@cells()
def test_twice(pruned):
    with contextlib.suppress(AssertionError):
        assert pruned.robust_accuracy(P) >= 0.5
    assert pruned.accuracy() >= 1

@cells()
def test_a_setting(pruned, pruned_model):
    with contextlib.suppress(AssertionError):
        assert pruned.accuracy() >= 1
    pruned_model.temperature = 100.0
    assert pruned.accuracy() >= 1
"""


@pytest.mark.parametrize("forward", ["self.seen += len(x)", "self.temperature = self.temperature + 1"])
def test_a_forward_that_changes_the_model_is_an_error(suite: Suite, forward: str) -> None:
    run = suite(SUITE.replace("{forward}", forward), "-k", "twice")
    assert [verdict for _, verdict in run.verdicts] == ["error", "error"]
    name = "seen" if "seen" in forward else "temperature"
    for claim in run.results["claims"]:
        assert f"pruned: a forward changes the model's {name}: what it answers may hang on" in claim["reason"]


def test_a_setting_that_is_changed_makes_another_model(suite: Suite) -> None:
    run = suite(SUITE.replace("{forward}", "pass"))
    assert [verdict for _, verdict in run.verdicts] == ["supported", "error", "supported", "supported"]
    run.result.stdout.fnmatch_lines(["reason:   the pruned model was changed after it became a subject: *"])


def test_optimisation_at_inference_is_no_evidence_of_survival(suite: Suite) -> None:
    forward = """with torch.enable_grad():
            z = x.clone() if x.requires_grad else x.clone().requires_grad_()
            (step,) = torch.autograd.grad(self.net(z).amax(1).sum(), z, create_graph=True)
        x = x + 1e-4 * step"""
    run = suite(SUITE.replace("{forward}", forward), "-k", "twice")
    assert [verdict for _, verdict in run.verdicts] == ["inconclusive", "supported"]
    run.result.stdout.fnmatch_lines(["reason:   pruned: one forward takes gradients 1 times: *"])
