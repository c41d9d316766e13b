"""Attacks that return something else than the best that they saw: what they forwarded counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.fakes import FAKE

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


def test_11_what_the_attack_passed_is_broken(suite: Suite) -> None:
    run = suite(
        FAKE
        + """
def walks(model, x, y, settings):
    # Up to the border, with a gradient, and back to where it came from.
    for length in (0.02, 0.0525, 0.0):
        z = (x + length * (2 * y - 1).view(-1, 1, 1, 1)).clamp(0, 1).requires_grad_()
        torch.autograd.grad(model(z).sum(), z)
    return x

@cells()
def test_oracle(pruned, fake):
    plan = fake(walks)
    assert pruned.robust_accuracy(plan) <= 0.5
    assert pruned.accuracy_under(plan) >= 1  # what the library itself would report

@cells()
def test_survival(pruned, fake):
    assert pruned.robust_accuracy(fake(walks)) >= 0.51
"""
    )
    assert [verdict for _, verdict in run.verdicts] == ["supported", "supported", "refuted"]
    assert {m["broken"] for m in run.results["measurements"].values() if m["kind"] == "decide"} == {20}
