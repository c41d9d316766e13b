"""A minimum-norm search that finds nothing returns the clean image: its distance is infinite, never 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.fakes import FAKE

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = (
    FAKE
    + """
@pytest.fixture
def pruned_model(dense_model):
    import copy
    model = copy.deepcopy(dense_model)
    model[1].bias.data[:2] = torch.tensor([5.0, -5.0])  # class 0 whatever it sees: all 20 of class 1 flip
    return model

def searches(model, x, y, settings):
    # To just beyond the border of the dense model; every fifth search comes back empty-handed.
    length = (x.flatten(1).mean(1) - 0.5).abs() + 0.0005
    z = x + (length * torch.where(x.flatten(1).mean(1) > 0.5, -1, 1)).view(-1, 1, 1, 1)
    failed = torch.arange(len(x)) % 5 == 0 if FAILS else torch.zeros(len(x), dtype=torch.bool)
    z = torch.where(failed.view(-1, 1, 1, 1), x, z).requires_grad_()
    torch.autograd.grad(model(z).sum(), z)
    return z.detach()

@cells()
def test_it(dense, pruned, fake):
    plan = fake(searches, eps=None, kind="minimum")
    assert dense.distance(plan).failed() <= EXPECTED
    for claim in (
        flips(dense, pruned).auc_s10(by=plan) >= 0.01,
        flips(dense, pruned).auc_s10(by=plan) <= 0.99,
        dense.distance(plan) >= 0.0001,
        dense.distance(plan) <= 1,
    ):
        with contextlib.suppress(AssertionError):
            assert claim
"""
)


def test_31_failed_searches_are_infinite_and_decide_nothing(suite: Suite) -> None:
    run = suite(SUITE.replace("FAILS", "True").replace("EXPECTED", "0.2"))
    assert [verdict for _, verdict in run.verdicts] == ["supported", *["inconclusive"] * 4]
    run.result.stdout.fnmatch_lines(["reason:   8 of 40 minimum-norm searches found no adversarial input*"])
    less = suite(SUITE.replace("FAILS", "True").replace("EXPECTED", "0.19"))
    assert less.verdicts[0][1] in ("refuted", "inconclusive")


def test_31_searches_that_succeed_are_finite(suite: Suite) -> None:
    run = suite(SUITE.replace("FAILS", "False").replace("EXPECTED", "0"))
    assert run.verdicts[0][1] == "supported"
    assert "found no adversarial input" not in run.out
