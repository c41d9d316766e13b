"""Universal perturbations: one for all samples, first in a worst case, and no evidence of robustness."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_prunerob.adequacy.steps import audit_steps
from pytest_prunerob.engine import Engine, Result
from pytest_prunerob.errors import PlanError
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.plans import WHOLE_SET, Plan, autoattack, pgd, universal, worst_case
from tests.faults.tiny import bench, data, network
from tests.unit.adequacy.test_stages import case
from tests.unit.adequacy.test_stages import network as other

ONE = universal(norm="linf", eps="0.045", steps=2, delta=0, attacker="fgsm")
EACH = pgd(norm="linf", eps="0.045", steps=2, step_size="0.045", random_start=False, micro_batch=4)


def run(kind: str, plan: Plan = ONE, *, torch_seed: int = 0) -> Result:
    samples = data()
    random.seed(os.urandom(8))  # what a test did before must not matter
    return Engine("cpu", 250, torch_seed).run(kind, network(), plan, 0, samples.x, samples.y, 4)  # type: ignore[arg-type]


def test_one_perturbation_is_made_for_all_samples_and_made_again() -> None:
    first, *again = (run("crafted") for _ in range(6))
    assert first.witness is not None
    steps = first.witness - data().x.numpy()
    assert np.abs(steps).max() == pytest.approx(0.045, rel=1e-3)
    assert np.abs(steps - steps[:1]).max() < 1e-6
    assert all((first.witness == one.witness).all() for one in again)  # type: ignore[union-attr]
    broken = run("decide").broken
    assert broken.keys() in ({0, 2}, {1, 3})  # it pushes one of the two classes over the boundary, up to 0.045
    assert run("decide").broken.keys() == broken.keys()
    assert {len(run("decide", torch_seed=seed).broken) for seed in range(4)} == {2}


def test_it_refutes_and_never_supports(tmp_path: Path) -> None:
    subject = TestEvaluation(bench(tmp_path), "testset", 0.95).subject(network(), data(), "dense")
    weak = subject.robust_accuracy(ONE) >= 0.7
    assert not weak
    assert weak.verdict is not None
    assert weak.verdict.status == "inconclusive"
    assert "universal: one perturbation had to do for all samples" in weak.verdict.reason
    refuted = subject.robust_accuracy(ONE) >= 0.8
    assert not refuted
    assert refuted.verdict is not None
    assert (refuted.verdict.status, refuted.verdict.n) == ("refuted", 8)
    fact = subject.accuracy_under(ONE) >= 0.7
    assert fact
    assert fact.verdict is not None
    assert fact.verdict.status == "supported"


def test_in_a_worst_case_it_goes_first_and_others_give_the_evidence(tmp_path: Path) -> None:
    both = worst_case(EACH, ONE)
    assert [stage.attack for stage in both.stages] == ["universal", "pgd"]
    assert both == worst_case(ONE, EACH)
    assert (both.micro_batch, both.size(8)) == (WHOLE_SET, 8)
    evaluation = TestEvaluation(bench(tmp_path), "testset", 0.95)
    subject = evaluation.subject(network(), data(), "dense")
    claim = subject.robust_accuracy(both) >= 0.5
    assert claim
    assert claim.verdict is not None
    assert claim.verdict.stands_on == "dense: pgd"
    prepared = evaluation.prepared[subject]
    broken = {}
    for plan in (ONE, EACH, both):
        found = prepared.measurement("decide", plan)
        found.finish()
        broken[plan] = found.ledger.broken
    assert broken[ONE] | broken[EACH] == broken[both]
    assert found.ledger.segments[0, 0].attacked == tuple(range(8))


def test_two_of_them_have_no_worst_case() -> None:
    other_one = universal(norm="linf", eps="0.045", steps=1)
    assert worst_case(ONE, ONE).stages == ONE.stages
    with pytest.raises(
        PlanError, match=r"one plan that perturbs the whole set at once, received 'universal .* by fgsm"
    ):
        worst_case(ONE, EACH, other_one)


def test_it_stands_in_for_no_black_box_stage_of_a_network_that_computes_in_steps() -> None:
    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + ((x * 4).round() / 4 - x).detach()

    net = torch.nn.Sequential(Rounded(), other()).eval()
    plan = worst_case(universal(norm="linf", eps="0.1", steps=1), pgd(norm="linf", eps="0.1", steps=2, step_size="0.1"))
    for used, missing in ((plan, True), (autoattack(["apgd-ce", "square"], norm="linf", eps="0.1"), False)):
        (check,) = audit_steps(case(net, used), None).checks
        assert check.outcome == "failed"
        assert ("needs a black-box stage" in check.message) is missing


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "unknown norm 'l1'"),
        ({"attacker": "deepfol"}, "did you mean 'deepfool'"),
        ({"delta": 1}, "delta=1 is not below 1"),
        ({"delta": -1}, "below 0"),
        ({"steps": 0}, "steps=0 is not a whole number of at least 1"),
        ({"labels": "none"}, "unknown labels 'none'"),
    ],
)
def test_bad_parameters_are_refused(wrong: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"norm": "linf", "eps": "0.1", **wrong}
    with pytest.raises(PlanError, match=message):
        universal(**given)  # type: ignore[arg-type]


def test_what_decides_outcomes_is_in_the_key() -> None:
    plans = [
        ONE,
        replace(ONE, threat=replace(ONE.threat, eps="0.05")),
        universal(norm="linf", eps="0.045", steps=2, delta=0),
        universal(norm="linf", eps="0.045", steps=2, delta="0.1", attacker="fgsm"),
        universal(norm="linf", eps="0.045", steps=2, delta=0, attacker="fgsm", labels="predicted"),
    ]
    assert len({str(plan.material()) for plan in plans}) == len(plans)
    assert universal(norm="linf", eps=10, steps=1).threat.radius == 10  # Vora et al. cover the whole box
