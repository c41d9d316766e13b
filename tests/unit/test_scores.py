"""Claims on CLEVER scores: estimates that stand for themselves and never for robustness."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from pytest_prunerob.claims import Claim, Subject
from pytest_prunerob.errors import ClaimError, GrammarError, PlanError
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.grammar import parse
from pytest_prunerob.ledger import Ledger, Segment
from pytest_prunerob.metrics import mean_score
from pytest_prunerob.plans import fgsm
from pytest_prunerob.scores import Score
from pytest_prunerob.verdicts import Verdict
from tests.faults.tiny import bench, data, network


@pytest.fixture
def dense(tmp_path: Path) -> Subject:
    return TestEvaluation(bench(tmp_path), "testset", 0.95).subject(network(), data(), "dense")


def score(subject: Subject) -> Score:
    return subject.clever(norm="linf", radius="0.035", batches=3, batch_size=2)


def verdict(claim: Claim) -> Verdict:
    assert bool(claim) in (True, False)
    assert claim.verdict is not None
    return claim.verdict


def test_the_mean_and_a_quantile_of_a_linear_network_are_as_by_hand(dense: Subject) -> None:
    # Distances of 10, 20 … 80 thousandths, of which those above the radius count as the radius.
    assert float(score(dense)) == pytest.approx((0.01 + 0.02 + 0.03 + 5 * 0.035) / 8, rel=1e-3)
    assert float(score(dense).quantile(0.2)) == pytest.approx(0.02, rel=1e-3)
    with pytest.raises(ClaimError, match="between 0 and 1"):
        score(dense).quantile(2)


def test_every_verdict_says_that_it_stands_on_an_estimate(dense: Subject) -> None:
    for claim, status in ((score(dense) > 0.02, "supported"), (score(dense) > 0.035, "refuted")):
        found = verdict(claim)
        assert found.status == status
        assert "is an estimate: it bounds no distance and shows no robustness" in found.reason
        assert "5 of 8 scores are the radius 0.035 itself" in found.reason
        assert found.stands_on == ""
    assert dense.evaluation.weak == {}  # type: ignore[attr-defined]


def test_an_estimate_adds_nothing_to_what_is_measured(dense: Subject) -> None:
    plan = fgsm(norm="linf", eps="0.01")
    with pytest.raises(ClaimError, match=r"adds an estimate to what was measured: claim .* apart from robust"):
        verdict(dense.robust_accuracy(plan) + score(dense) >= 0.5)
    with pytest.raises(ClaimError, match="apart from accuracy"):
        verdict(score(dense) >= dense.accuracy() - 1)


def test_what_speaks_against_the_model_speaks_against_its_scores() -> None:
    made = Ledger("k", "estimate", 2, 2, ("clever",), frozenset(range(2)))
    made.add(Segment("k", 0, 0, (0, 1), values={0: 0.1, 1: 0.3}))
    assert mean_score(made, [0, 1], {}, Fraction(1), "a").number == Fraction(0.1) / 2 + Fraction(0.3) / 2
    doubted = mean_score(made, [0, 1], {}, Fraction(1), "a", "outputs are probabilities")
    assert (doubted.low, doubted.distrust) == (0, "outputs are probabilities")


def test_a_sample_without_a_score_leaves_the_mean_open() -> None:
    made = Ledger("k", "estimate", 2, 2, ("clever",), frozenset(range(2)))
    made.add(Segment("k", 0, 0, (0, 1), errors={1: "clever gave no number"}, values={0: 0.1}))
    known = mean_score(made, [0, 1], {}, Fraction(1), "a")
    assert known.number is None
    assert known.distrust == "1 of 2 samples have no score: clever gave no number"
    assert mean_score(made, [], {}, Fraction(1), "a").number is None


def test_a_file_claims_scores(dense: Subject) -> None:
    text = "dense.clever('linf', 3/100, 3, 2) < 1"
    with pytest.raises(GrammarError, match="'3/100' is no strength"):
        parse(text, {})
    text = "dense.clever(norm='linf', radius='7/200', batches=3, batch_size=2).quantile(q=0.2) > 0.019"
    assert verdict(parse(text, {}).claim(dense=dense)).status == "supported"
    with pytest.raises(PlanError, match="unknown norm 'l0'"):
        dense.clever(norm="l0", radius=1)
