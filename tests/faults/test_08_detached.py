"""A forward that cuts the gradient: no attack can work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
import torch
from torch import nn

class Cut(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        {forward}

@pytest.fixture
def pruned_model(pruned_model):
    return Cut(pruned_model).eval()

@cells()
def test_survival(pruned):
    assert pruned.robust_accuracy(P) >= 0.1

@cells()
def test_witnesses(pruned):
    assert pruned.robust_accuracy(P) <= 1
"""


@pytest.mark.parametrize(
    "forward",
    [
        "return self.net(x).detach()",
        "return self.net(x.detach())",
        "return self.net(torch.from_numpy(x.detach().numpy()))",
        "return self.net(x).detach() + torch.zeros(4, requires_grad=True)",
        "with torch.no_grad(): return 1 * self.net(x)",
    ],
    ids=["output", "input", "numpy", "another-gradient", "no-grad"],
)
def test_08_a_forward_without_gradient_is_an_error(suite: Suite, forward: str) -> None:
    run = suite(SUITE.replace("{forward}", forward))
    assert [verdict for _, verdict in run.verdicts] == ["error", "error"]
    run.result.stdout.fnmatch_lines(
        ["reason:   pruned: the logits have no gradient with respect to the input: remove .detach(), *"]
    )
