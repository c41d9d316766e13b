"""L1 iterates that overshoot the ball by rounding: an absolute tolerance would lose them, and call them survivors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.fakes import FAKE

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


def test_30_what_overshoots_by_rounding_is_broken(suite: Suite) -> None:
    run = suite(
        FAKE
        + """
from pytest_prunerob import Dataset
from pytest_prunerob.oracle import distances

class Sum(torch.nn.Module):
    # Class 0 while the first 100 values of an image sum up to more than 50: every unit of L1 moves the sum by one.
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(100))

    def forward(self, x):
        score = x.flatten(1)[:, :100] @ self.weight - 50
        return torch.stack([score, -score, score - 99, score - 99], 1)

@pytest.fixture
def dataset():
    # CIFAR's size; 10 images are 11.9 away from the other class, 10 are 12.1 away.
    x = torch.full((20, 3072), 0.5)
    x[:10, :100] += 0.119
    x[10:, :100] += 0.121
    return Dataset("toy", x.view(20, 3, 32, 32), torch.zeros(20, dtype=torch.long), classes=4)

@pytest.fixture
def pruned_model():
    return Sum().eval()

def overshoots(model, x, y, settings):
    z = x.flatten(1).clone()
    z[:, :100] -= 0.12 + 3e-6
    z = z.view(x.shape)
    beyond = distances(x, z, "l1") - 12
    assert (beyond > 2e-4).all() and (beyond < 4e-4).all()
    return z

@cells()
def test_it(pruned, fake):
    assert pruned.robust_accuracy(fake(overshoots, norm="l1", eps="12")) <= 0.5
"""
    )
    assert [verdict for _, verdict in run.verdicts] == ["supported"]
    assert {m["broken"] for m in run.results["measurements"].values() if m["kind"] == "decide"} == {10}
