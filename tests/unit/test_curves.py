"""Security curves and critical strengths: one minimum-norm measurement serves every ε, and survival needs adequacy."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pytest_prunerob import critical_strength
from pytest_prunerob.claims import Claim, Measure, Quantity
from pytest_prunerob.curves import SecurityCurve
from pytest_prunerob.errors import ClaimError, PlanError
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.known import Known
from pytest_prunerob.ledger import Ledger, Segment
from pytest_prunerob.metrics import critical_strength as parted
from pytest_prunerob.metrics import distance_quantile, surviving_at
from pytest_prunerob.plans import fab, pgd, worst_case
from pytest_prunerob.verdicts import Verdict
from tests.faults.tiny import bench, data, network

NEAREST = fab(norm="linf", steps=10, micro_batch=4)
WEAK = pgd(norm="linf", eps="0.045", steps=1, step_size="0.01", random_start=False, micro_batch=4)
STRONG = pgd(norm="linf", eps="0.045", steps=1, step_size="0.045", random_start=False, micro_batch=4)
OTHER = 0.507  # margins of 3, 27, 23, 47, 43, 67, 63, 87 thousandths; those of ``network()`` are 10, 20 … 80


def ledger(stages: list[dict[int, float]], n: int, errors: dict[int, str] | None = None) -> Ledger:
    """One micro-batch of ``n`` samples; the errors are those of the last stage."""
    made = Ledger("k", "minimise", n, n, tuple("ab")[: max(len(stages), 1)], frozenset(range(n)))
    for number, values in enumerate(stages):
        last = (errors or {}) if number == len(stages) - 1 else {}
        made.add(Segment("k", number, 0, tuple(range(n)), errors=last, values=values))
    return made


distances = st.one_of(st.floats(0, 1, width=32), st.just(inf))
strengths = st.lists(st.fractions(Fraction(1, 100), 1, max_denominator=100), min_size=2, max_size=6, unique=True)


@given(st.lists(st.tuples(distances, st.booleans(), distances), min_size=1, max_size=30), strengths)
def test_a_curve_never_rises_and_is_the_share_by_hand(
    found: list[tuple[float, bool, float]], eps: list[Fraction]
) -> None:
    signed = {p: far if right else -far for p, (far, right, _) in enumerate(found)}
    second = {p: far if right else -far for p, (_, right, far) in enumerate(found)}
    correct = [p for p, (_, right, _) in enumerate(found) if right]
    n, both = len(found), ledger([signed, second], len(found))
    points = [surviving_at(both, correct, 0, at, "a") for at in sorted(eps)]
    for at, point in zip(sorted(eps), points, strict=True):
        nearest = [min(found[p][0], found[p][2]) for p in correct]
        survived = sum(value > float(at) for value in nearest)
        assert point.number == point.high == Fraction(survived, n)
        failed = sum(value == inf for value in nearest) > len(nearest) / 100
        assert point.low == (0 if failed else point.high)
        assert bool(point.distrust) == failed
    for nearer, farther in pairwise(points):
        assert nearer.high >= farther.high
        assert nearer.low >= farther.low


def test_half_a_measurement_is_no_number_and_no_share() -> None:
    whole = Ledger("k", "minimise", 4, 2, ("a",), frozenset(range(4)))
    whole.add(Segment("k", 0, 0, (0, 1), values={0: 0.1, 1: 0.3}))
    known = surviving_at(whole, [0, 1, 2, 3], 0, Fraction(1, 5), "a")
    assert (known.low, known.high, known.number, known.share, known.complete) == (0, Fraction(3, 4), None, False, False)


def test_where_a_stage_met_an_error_only_what_is_nearer_is_known() -> None:
    made = ledger([{0: 0.1, 1: 0.3, 2: 0.3}, {0: 0.1, 2: 0.25}], 3, {1: "the output is not finite"})
    known = surviving_at(made, [0, 1, 2], 0, Fraction(1, 5), "a")
    assert (known.low, known.high, known.number) == (0, Fraction(2, 3), None)
    assert known.distrust == "1 of 3 samples have no distance: the output is not finite"
    assert surviving_at(made, [0, 1, 2], 0, Fraction(2, 5), "a").number == 0
    assert "1 of 3 samples have no distance" in distance_quantile(made, [0, 1, 2], Fraction(1, 2), "a").distrust


def test_clean_outputs_that_are_not_finite_leave_it_open() -> None:
    known = surviving_at(ledger([{0: 0.3, 1: 0.3}], 3), [0, 1], 1, Fraction(1, 5), "a")
    assert (known.low, known.high, known.number) == (Fraction(2, 3), 1, None)
    assert known.note == "1 of 3 samples have a clean output that is not finite"


SWEEP = [Fraction(n, 10) for n in (1, 2, 3)]


def share(low: float, high: float | None = None, distrust: str = "") -> Known:
    ends = Fraction(str(low)), Fraction(str(low if high is None else high))
    return Known(*ends, 10, share=True, distrust=distrust, value=ends[1])


@pytest.mark.parametrize(
    ("first", "second", "low", "high", "number"),
    [
        ([0.9, 0.8, 0.1], [0.9, 0.7, 0.1], 0.1, 0.2, 0.2),  # by more than 0.05 at the second, so between the two
        ([0.9, 0.7, 0.1], [0.9, 0.8, 0.1], 0.1, 0.2, 0.2),  # in either direction
        ([0.9, 0.8, 0.1], [0.9, 0.75, 0.1], 0.3, inf, inf),  # exactly the tolerance: beyond the sweep, if at all
        ([0.9, 0.5, 0.1], [0.8, 0.5, 0.0], 0.0, 0.1, 0.1),  # the smallest counts
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0.0, inf, inf),  # both have lost everything before the sweep begins
    ],
)
def test_the_strength_at_which_two_part(
    first: list[float], second: list[float], low: float, high: float, number: float
) -> None:
    known = parted([share(a) for a in first], [share(b) for b in second], SWEEP, Fraction(1, 20))
    assert [float(end) for end in (known.low, known.high, known.number)] == [low, high, number]  # type: ignore[arg-type]


def test_what_is_not_known_of_the_curves_is_not_known_of_the_strength() -> None:
    dense, pruned = [share(0, 0.9, "why"), share(0, 0.5, "why"), share(0.0)], [share(0.9), share(0.2, 0.5), share(0.0)]
    known = parted(dense, pruned, SWEEP, Fraction(1, 20))
    assert (known.low, known.high, known.distrust) == (0, inf, "why")
    some = parted([share(0.9), share(0.5)], [share(0.8, 0.9), share(0.1)], SWEEP[:2], Fraction(1, 20))
    assert (some.low, some.high) == (0, Fraction(1, 5))


@pytest.fixture
def evaluation(tmp_path: Path) -> TestEvaluation:
    return TestEvaluation(bench(tmp_path), "testset", 0.95)


def verdict(claim: Claim) -> Verdict:
    assert bool(claim) in (True, False)
    assert claim.verdict is not None
    return claim.verdict


def only(quantity: Quantity) -> Measure:
    ((measure, _),) = quantity.terms
    return measure


def test_one_measurement_serves_every_strength_and_agrees_with_fixed_ones(evaluation: TestEvaluation) -> None:
    dense = evaluation.subject(network(), data(), "dense")
    curve = dense.security_curve(NEAREST, ["0.005", "0.025", "9/200", "1.5"])
    assert isinstance(curve, SecurityCurve)
    values = [float(curve.at("0.005"))]
    cost = evaluation.cost
    values += [float(quantity) for _, quantity in curve][1:]
    assert values == [1.0, 0.75, 0.5, 0.0]
    assert evaluation.cost == cost
    broken = {}
    for plan in (WEAK, STRONG, worst_case(WEAK, STRONG)):
        fixed = evaluation.prepared[dense].measurement("decide", plan)
        fixed.finish()
        broken[plan] = fixed.ledger.broken
    weak, strong, worst = broken.values()
    assert weak < strong == worst  # sample by sample, no average
    found = evaluation._measurement(only(curve.at("0.045")))
    assert found is not None
    assert worst == {p for p, distance in found.ledger.values.items() if distance <= 0.045}
    assert curve.at(0.025).text == f"dense.security_curve({NEAREST.text}, ε=0.025)"


def test_witnesses_alone_refute_and_support_needs_the_attack(evaluation: TestEvaluation) -> None:
    dense = evaluation.subject(network(), data(), "dense")
    few = verdict(dense.security_curve(NEAREST, "0.045") >= 0.9)
    assert (few.status, few.stands_on, few.complete) == ("refuted", "", False)  # after the first micro-batch
    least = verdict(dense.security_curve(NEAREST, "0.045") <= 0.5)
    assert (least.status, least.stands_on) == ("supported", "")
    most = verdict(dense.security_curve(NEAREST, "0.045") >= 0.5)
    assert (most.status, most.stands_on) == ("supported", "dense: fab-min")
    assert verdict(dense.security_curve(NEAREST, "0.045") <= 0.4).status == "refuted"


def test_an_attack_that_is_not_trusted_supports_nothing(evaluation: TestEvaluation) -> None:
    dense = evaluation.subject(network(), data(), "dense")
    other = evaluation.subject(network(OTHER), data(), "pruned")
    # One step of FAB without a backward one overshoots: the audit finds nearer inputs.
    weak = fab(norm="linf", steps=1, micro_batch=4)
    found = evaluation._measurement(only(dense.security_curve(weak, "0.02")))
    assert found is not None
    found.finish()
    for micro_batch in range(2):  # distances twice as large as they are
        known = found.ledger.segments[0, micro_batch]
        far = {p: 2 * value for p, value in known.values.items()}
        found.ledger.segments[0, micro_batch] = Segment(
            known.key, 0, micro_batch, known.attacked, values=far, witnesses=known.witnesses
        )
    trusted = verdict(dense.security_curve(weak, "0.02") >= 0.5)
    assert trusted.status == "inconclusive"
    assert "nearer for 8 of 8 samples" in trusted.reason
    assert verdict(dense.security_curve(weak, "0.2") <= 0.5).status == "supported"
    strength = verdict(critical_strength(dense, other, weak, eps=["0.02", "0.03"], tolerance=0.1) <= 1)
    assert strength.status == "inconclusive"
    assert strength.reason.startswith("dense: ")


def test_probabilities_are_no_evidence_of_survival(evaluation: TestEvaluation) -> None:
    subject = evaluation.subject(nn.Sequential(network(), nn.Softmax(1)).eval(), data(), "pruned")
    assert verdict(subject.security_curve(NEAREST, "0.001") >= 0.1).status == "inconclusive"
    with pytest.raises(ClaimError, match="has no number: pruned: "):
        float(subject.security_curve(NEAREST, "0.001"))


def test_a_population_is_judged_by_the_samples_that_survive(tmp_path: Path) -> None:
    evaluation = TestEvaluation(bench(tmp_path), "distribution", 0.95)
    dense = evaluation.subject(network(), data(), "dense")
    found = verdict(dense.security_curve(NEAREST, "0.005") >= 0.6)
    assert (found.status, found.decision) == ("supported", "bound")
    assert found.p_value == pytest.approx(0.6**8)  # all eight survive
    assert verdict(dense.security_curve(NEAREST, "0.005") >= 0.7).status == "inconclusive"


def test_no_first_samples_decide_a_curve(tmp_path: Path) -> None:
    evaluation = TestEvaluation(bench(tmp_path), "testset", 0.5, decide="sequential")
    dense = evaluation.subject(network(), data(), "dense")
    found = verdict(dense.security_curve(NEAREST, "0.045") >= 0.5)
    assert (found.status, found.decision, found.complete) == ("supported", "exact", True)
    measure = only(dense.security_curve(NEAREST, "0.045"))
    assert list(evaluation._prefix(measure)) == [False] * 4 + [True] * 4  # beside a share that first samples may decide


@pytest.mark.parametrize(("tolerance", "strength"), [("0.1", 0.029), (0.2, inf)])
def test_two_models_part_at_a_strength(evaluation: TestEvaluation, tolerance: str | float, strength: float) -> None:
    dense = evaluation.subject(network(), data(), "dense")
    pruned = evaluation.subject(network(OTHER), data(), "pruned")
    eps = ["0.015", "0.025", "0.029", "0.045"]
    quantity = critical_strength(dense, pruned, NEAREST, eps=eps, tolerance=tolerance)
    assert float(quantity) == strength
    above = verdict(quantity >= 0.025)
    assert (above.status, above.stands_on) == ("supported", "dense: fab-min; pruned: fab-min")
    assert verdict(quantity > 0.029).status == ("supported" if strength == inf else "refuted")
    assert verdict(quantity > 0.045).status == ("inconclusive" if strength == inf else "refuted")
    assert quantity.text.endswith("ε=[0.015, 0.025, 0.029, 0.045], tolerance=" + str(tolerance) + ")")
    assert len(evaluation.measured) == 2


def test_of_several_minimum_norm_plans_the_nearest_input_counts(evaluation: TestEvaluation) -> None:
    dense = evaluation.subject(network(), data(), "dense")
    plans = [fab(norm="linf", steps=steps, micro_batch=4) for steps in (1, 10)]
    found = [evaluation.prepared[dense].measurement("minimise", plan) for plan in (*plans, worst_case(*plans))]
    for one in found:
        one.finish()
    first, second, worst = (one.ledger.values for one in found)
    assert worst == {p: min(first[p], second[p], key=abs) for p in range(8)}
    assert float(dense.distance(worst_case(*plans)).quantile(0)) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda a, b: critical_strength(a, b, NEAREST, eps="0.1", tolerance=0), "takes a list, such as"),
        (lambda a, b: critical_strength(a, b, NEAREST, eps=["0.2", "0.1"], tolerance=0), "takes rising values"),
        (lambda a, b: critical_strength(a, b, NEAREST, eps=["0.1"], tolerance=1), "allowed is from 0 to below 1"),
        (lambda a, b: critical_strength(a, b, STRONG, eps=["0.1"], tolerance=0), "needs a minimum-norm plan"),
        (lambda a, b: critical_strength(a, network(), NEAREST, eps=["0.1"], tolerance=0), "two subjects, not Sequent"),
        (lambda a, b: a.security_curve(NEAREST, ["0.1"]).at("0.2"), "unknown ε of this curve '0.2': allowed are 0.1"),
        (lambda a, b: a.security_curve(NEAREST, "-1"), "eps='-1' is not positive"),
    ],
)
def test_wrong_questions_are_one_sentence(evaluation: TestEvaluation, ask: object, message: str) -> None:
    subjects = [evaluation.subject(network(), data(), role) for role in ("dense", "pruned")]
    with pytest.raises((ClaimError, PlanError), match=message):
        ask(*subjects)  # type: ignore[operator]


def test_a_strength_needs_one_dataset(evaluation: TestEvaluation) -> None:
    dense = evaluation.subject(network(), data(), "dense")
    other = evaluation.subject(network(), data().first(4), "pruned")
    with pytest.raises(ClaimError, match="needs one dataset"):
        critical_strength(dense, other, NEAREST, eps=["0.1"], tolerance=0)
