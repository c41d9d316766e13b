"""Inputs that an attack returns outside the ball or the box: no witnesses as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.fakes import FAKE

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


@pytest.mark.parametrize(("factor", "broken"), [("1.0", 20), ("1.01", 20), ("1.0495", 20), ("1.06", 0), ("3", 0)])
def test_12_what_is_outside_the_ball_counts_as_its_projection(suite: Suite, factor: str, broken: int) -> None:
    """22 samples are misclassified 1.0495 ε away, 20 of them at ε. Far outside is no rounding, and no witness."""
    run = suite(
        FAKE
        + f"""
def leaves(model, x, y, settings):
    return x + {factor} * 0.0525 * (2 * y - 1).view(-1, 1, 1, 1)

@cells()
def test_it(pruned, fake):
    assert pruned.robust_accuracy(fake(leaves)) <= 1
    with contextlib.suppress(AssertionError):
        assert pruned.robust_accuracy(fake(leaves)) <= {(40 - broken) / 40}
    with contextlib.suppress(AssertionError):
        assert pruned.robust_accuracy(fake(leaves)) <= {(39 - broken) / 40}
"""
    )
    verdicts = [verdict for _, verdict in run.verdicts]
    assert verdicts[:2] == ["supported", "supported"]
    assert verdicts[2] in ("refuted", "inconclusive")
    assert {m["broken"] for m in run.results["measurements"].values() if m["kind"] == "decide"} == {broken}


def test_12_what_is_outside_the_box_counts_as_its_projection(suite: Suite) -> None:
    run = suite(
        FAKE
        + """
class Trap(torch.nn.Module):
    # Wrong outside the box, and inside it where the last pixel is at the border and the sample is of class 0.
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        out = self.net(x)
        wrong = (x[:, 0, 3, 3:] > 1) | ((x[:, 0, 3, 3:] == 1) & (out[:, :1] > out[:, 1:2]))
        return torch.where(wrong, out.flip(1), out)

@pytest.fixture
def pruned_model(pruned_model):
    return Trap(pruned_model).eval()

def leaves(model, x, y, settings):
    z = x.clone()
    z[:, 0, 3, 3] = 1.001
    return z

@cells()
def test_it(pruned, fake):
    assert pruned.robust_accuracy(fake(leaves, eps="0.9")) <= 0.5
    assert pruned.robust_accuracy(fake(leaves, eps="0.9")) <= 0.49
"""
    )
    assert run.verdicts[0][1] == "supported"
    assert run.verdicts[1][1] in ("refuted", "inconclusive")
    assert {m["broken"] for m in run.results["measurements"].values() if m["kind"] == "decide"} == {20}
