"""Votes: what is called broken or holding, at which confidence, and what is left open."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from pytest_prunerob import autoattack, pgd
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans import Stage, resolve, worst_case
from pytest_prunerob.votes import ERROR, LOOKS, Jury, called, fewest_votes, vote


class Coin(nn.Module):
    """Class 1 in a share of all forwards that each input (1, 1, 1) says itself, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        heads = torch.rand(len(x)) < x.flatten()
        return torch.stack([(~heads).float(), heads.float()], dim=1)


class Once(Coin):
    """The same with one draw for the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        heads = torch.rand(1) < x.flatten()
        return torch.stack([(~heads).float(), heads.float()], dim=1)


def shares(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_the_looks_together_err_no_more_often_than_stated() -> None:
    errors = [float(binom.sf(fewest_votes(n) - 1, n, 0.5)) for n in LOOKS]
    assert sum(errors) <= ERROR
    assert all(binom.sf(fewest_votes(n) - 2, n, 0.5) > ERROR / len(LOOKS) for n in LOOKS)


@pytest.mark.parametrize("module", [Coin(), Once()], ids=["each", "whole-batch"])
def test_what_is_called(module: nn.Module) -> None:
    x = shares(0.0, 0.05, 0.35, 0.5, 0.65, 0.95, 1.0)
    ballot = vote(module, x, torch.zeros(7, dtype=torch.long), seed=3)
    assert ballot.holds.tolist() == [True, True, True, False, False, False, False]
    assert ballot.broken.tolist() == [False, False, False, False, True, True, True]
    assert ballot.forwards[[0, 3, 6]].tolist() == [LOOKS[0], LOOKS[-1], LOOKS[0]]
    assert (
        ballot.reason(3) == f"{int(ballot.wrong[3])} of 512 forwards misclassify it, which is too near to half of "
        "them to call"
    )
    assert called(module, x, torch.zeros(7, dtype=torch.long), 2, seed=3).argmax(1).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_votes_repeat_and_are_others_than_an_attack_draws() -> None:
    x, y = shares(*[0.5] * 40), torch.zeros(40, dtype=torch.long)
    first, again, other = (vote(Coin(), x, y, seed=seed).wrong for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn = torch.stack([Coin()(x).argmax(1) for _ in range(LOOKS[-1])]).sum(0)
    torch.set_rng_state(before)
    vote(Coin(), x, y, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, drawn)


def test_an_output_that_is_once_not_finite_is_neither() -> None:
    class Rare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).repeat(len(x), 1) / (torch.rand(len(x), 1) > 0.2).float()

    ballot = vote(Rare(), shares(0.0), torch.zeros(1, dtype=torch.long), seed=0)
    assert not bool(ballot.broken | ballot.holds)
    assert ballot.reason(0) == "the output is not finite in one of its forwards"


def test_a_jury_calls_each_sample_by_all_that_was_proposed() -> None:
    x, y = shares(0.5, 0.5, 0.5, 0.5), torch.zeros(4, dtype=torch.long)
    jury = Jury(Coin(), x, y, norm="linf", eps=0.4, seed=0)
    rows = torch.arange(4)
    jury.submit(shares(0.9, 0.1, 0.5, 0.5), rows)
    jury.submit(shares(1.0, 0.3, 0.2, 0.8), rows)
    assert jury.broken.tolist() == [True, False, False, True]
    assert jury.undecided().keys() == {2}  # one of its candidates is open, the other holds
    assert jury.distance.tolist()[0] == pytest.approx(0.4)
    # What leaves the ball is judged where it is projected to.
    narrow = Jury(Coin(), shares(0.3), y[:1], norm="linf", eps=0.05, seed=0)
    narrow.submit(shares(1.0), rows[:1])
    assert not bool(narrow.broken.any())


def test_an_attack_that_raises_leaves_its_samples_open() -> None:
    class Broken(Coin):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                raise RuntimeError("no gradient here")
            return super().forward(x)

    plan = resolve(autoattack("rand", norm="linf", eps="0.1"), 4)
    result = Engine("cpu", 250, 0).run("decide", Broken(), plan, 0, shares(0.1), torch.tensor([0]), 4)
    assert result.broken == {}
    assert result.errors == {0: "apgd-ce failed: RuntimeError: no gradient here"}


def test_version_rand_has_the_parameters_of_the_library() -> None:
    from pyautoattack import AutoAttack

    theirs = AutoAttack(nn.Identity(), norm="Linf", eps=0.1, version="rand", device="cpu")
    plan = autoattack("rand", norm="linf", eps="0.1")
    assert [stage.attack for stage in plan.stages] == theirs.attacks_to_run
    apgd = theirs.apgd
    params = {"eot": apgd.eot_iter, "restarts": apgd.n_restarts, "rho": "3/4", "steps": apgd.n_iter}
    assert apgd.thr_decr == 0.75
    assert plan.stages == tuple(Stage(name, tuple(params.items())) for name in theirs.attacks_to_run)
    assert plan.randomised
    for other in (autoattack(norm="linf", eps="0.1"), autoattack("plus", norm="l2", eps="1")):
        assert not other.randomised


def test_plans_by_votes_and_plans_by_single_forwards_have_no_worst_case() -> None:
    step = pgd(norm="linf", eps="0.1", steps=1, step_size="0.1")
    with pytest.raises(PlanError, match="takes plans for randomised models or others, received 'pgd"):
        worst_case(step, autoattack("rand", norm="linf", eps="0.1"))
    with pytest.raises(PlanError, match="autoattack rand needs at least 3 classes and the model has 2"):
        resolve(autoattack("rand", norm="linf", eps="0.1"), 2)
