from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_prunerob import autoattack, metrics
from pytest_prunerob.claims import Claim, Measure, Quantity, Subject, within
from pytest_prunerob.ledger import Ledger, Segment
from pytest_prunerob.verdicts import Known, Verdict, judge

AA = autoattack(["square"], norm="linf", eps="0.2")
inf, nan = math.inf, math.nan


class Silent:
    """An evaluation that is never asked: verdicts are pure functions of what is known."""

    def built(self, claim: Claim) -> None: ...

    def judge(self, claim: Claim) -> Verdict:
        raise AssertionError

    def measure(self, quantity: Quantity) -> float:
        raise AssertionError

    def ids(self, measure: Measure) -> tuple[int, ...]:
        raise AssertionError


SILENT = Silent()
PRUNED, DENSE = (Subject(role, role, "digits", "d", SILENT) for role in ("pruned", "dense"))
p_acc, d_acc = PRUNED.robust_accuracy(AA), DENSE.robust_accuracy(AA)
DISTRUST = "the gradients are zero"


def outcomes(n: int, survived: int, broken: int, *, errors: int = 0, clean: int = 0, distrust: str = "") -> Known:
    """What is known after ``survived + broken + errors`` of the clean correct samples went through the only stage."""
    ledger = Ledger("k", "decide", n, 1, ("square",), frozenset(range(n - clean)))
    for position in range(survived + broken + errors):
        hit = {position: 0.1} if position < broken else {}
        error = {position: "not finite"} if broken <= position < broken + errors else {}
        ledger.add(Segment("k", 0, position, (position,), hit, error))
    return metrics.surviving(ledger, "square", distrust)


def verdict(
    claim: Claim,
    known: dict[Quantity, Known] | Sequence[Known],
    *,
    population: str = "testset",
    flags: dict[str, list[bool]] | None = None,
) -> Verdict:
    measures = dict.fromkeys(m for difference in claim.differences for m, _ in difference.terms)
    items = dict(zip(measures, known, strict=True))
    return judge(
        claim, items, population=population, confidence=0.95, flags=lambda m: (flags or {})[m.subjects[0].role]
    )


def status(claim: Claim, *known: Known) -> str:
    return verdict(claim, known).status


def test_thresholds_are_exact() -> None:
    # 0.07 · 100 is 7.000000000000001 in floats
    assert status(p_acc >= 0.07, outcomes(100, 7, 93)) == "supported"
    assert status(p_acc >= 0.07, outcomes(100, 6, 94)) == "refuted"
    assert status(p_acc > 0.07, outcomes(100, 7, 93)) == "refuted"
    assert status(p_acc > 0.07, outcomes(100, 8, 92)) == "supported"
    assert status(p_acc <= 0.07, outcomes(100, 7, 93)) == "supported"
    assert status(p_acc < 0.07, outcomes(100, 7, 93)) == "refuted"
    assert status(p_acc <= 0.07, outcomes(100, 8, 92)) == "refuted"
    assert status(p_acc >= d_acc - 0.03, outcomes(100, 87, 13), outcomes(100, 90, 10)) == "supported"
    assert status(p_acc >= d_acc - 0.03, outcomes(100, 86, 14), outcomes(100, 90, 10)) == "refuted"
    assert status(within(p_acc, 0.29, 0.01), outcomes(100, 30, 70)) == "supported"
    assert status(within(p_acc, 0.29, 0.01), outcomes(100, 31, 69)) == "refuted"


def test_a_claim_is_decided_as_early_as_it_can_be() -> None:
    assert status(p_acc >= 0.5, outcomes(10, 5, 0)) == "supported"
    assert status(p_acc >= 0.5, outcomes(10, 0, 5)) == "inconclusive"
    assert status(p_acc >= 0.5, outcomes(10, 0, 6)) == "refuted"
    assert status(p_acc >= 0.5, outcomes(10, 0, 1, clean=5)) == "refuted"  # a clean error is not robust
    early = verdict(p_acc >= 0.5, [outcomes(10, 5, 1)])
    assert (early.complete, early.n, early.margin) == (False, 10, (0.0, pytest.approx(0.4)))
    assert [term.interval for term in early.terms] == [None]
    late = verdict(p_acc >= 0.5, [outcomes(10, 5, 5)])
    assert (late.complete, late.margin) == (True, (0.0, 0.0))
    assert late.terms[0].value == 0.5
    assert late.terms[0].interval == pytest.approx((0.18709, 0.81291), abs=1e-5)
    assert late.attack == "square"


@given(
    st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.integers(0, 3),
    st.integers(0, 3),
    st.fractions(0, 1, max_denominator=60),
    st.booleans(),
)
def test_more_survivors_never_hurt_a_claim_of_robustness(
    case: tuple[int, int], undecided: int, errors: int, t: Fraction, strict: bool
) -> None:
    n, survived = case
    broken = n - survived - undecided - errors
    assume(broken >= 1)
    claim = p_acc > t if strict else p_acc >= t
    order = ["refuted", "inconclusive", "supported"]
    before = outcomes(n, survived, broken, errors=errors)
    after = outcomes(n, survived + 1, broken - 1, errors=errors)
    assert before.low <= before.high
    assert order.index(status(claim, before)) <= order.index(status(claim, after))
    opposite = p_acc < t if not strict else p_acc <= t
    swap = {"refuted": "supported", "supported": "refuted", "inconclusive": "inconclusive"}
    assert status(opposite, before) == swap[status(claim, before)]


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 5), st.fractions(0, 1))
def test_a_verdict_holds_whatever_the_open_samples_turn_out_to_be(
    n: int, survived: int, broken: int, errors: int, t: Fraction
) -> None:
    assume(survived + broken + errors <= n)
    known = outcomes(n, survived, broken, errors=errors)
    found = status(p_acc >= t, known)
    for more in range(n - survived - broken + 1):
        if found != "inconclusive":
            assert (Fraction(survived + more, n) >= t) is (found == "supported")


@pytest.mark.parametrize("errors", [1, 3])
def test_samples_without_outcome_support_nothing_in_either_direction(errors: int) -> None:
    known = outcomes(10, 6 - errors, 4, errors=errors)
    assert status(p_acc >= 0.6, known) == "inconclusive"
    assert status(p_acc <= 0.5, known) == "inconclusive"
    assert status(p_acc <= 0.6, known) == "supported"
    assert status(p_acc >= Fraction(6 - errors, 10), known) == "supported"
    open_verdict = verdict(p_acc >= 0.6, [known])
    assert open_verdict.reason == f"{errors} of 10 samples are undecided: not finite"
    assert open_verdict.settle == "outcomes for the undecided samples"
    assert known.number is None


@pytest.mark.parametrize(
    ("claim", "pruned", "dense", "trusted", "pruned_distrusted", "dense_distrusted"),
    [
        # robust accuracy ≥ t: witnesses refute, survival supports
        (p_acc >= 0.5, 60, None, "supported", "inconclusive", None),
        (p_acc >= 0.5, 40, None, "refuted", "refuted", None),
        # robust accuracy ≤ t: witnesses support, survival refutes
        (p_acc <= 0.5, 40, None, "supported", "supported", None),
        (p_acc <= 0.5, 60, None, "refuted", "inconclusive", None),
        # "overestimated": a reported 70 % against what is left
        (0.7 - p_acc >= 0.2, 40, None, "supported", "supported", None),
        (0.7 - p_acc >= 0.2, 60, None, "refuted", "inconclusive", None),
        # pruned ≥ dense − δ: the pruned one's survival supports, the dense one's refutes
        (p_acc >= d_acc - 0.03, 60, 50, "supported", "inconclusive", "supported"),
        (p_acc >= d_acc - 0.03, 40, 50, "refuted", "refuted", "inconclusive"),
        # pruned ≤ dense: the other way round
        (p_acc <= d_acc, 40, 50, "supported", "supported", "inconclusive"),
        (p_acc <= d_acc, 60, 50, "refuted", "inconclusive", "refuted"),
    ],
)
def test_distrust_blocks_only_what_leans_on_survival(
    claim: Claim, pruned: int, dense: int | None, trusted: str, pruned_distrusted: str, dense_distrusted: str | None
) -> None:
    def known(subject: str, distrusted: str) -> list[Known]:
        counts = {"pruned": pruned} if dense is None else {"pruned": pruned, "dense": dense}
        order = [m.subjects[0].role for m, _ in claim.differences[0].terms]
        return [outcomes(100, counts[r], 100 - counts[r], distrust=DISTRUST if r == distrusted else "") for r in order]

    assert verdict(claim, known("pruned", "")).status == trusted
    blocked = verdict(claim, known("pruned", "pruned"))
    assert blocked.status == pruned_distrusted
    if pruned_distrusted == "inconclusive":
        assert blocked.reason == DISTRUST
        assert blocked.settle == "a model or an attack without this finding"
    assert all(term.value is not None for term in blocked.terms)  # the report shows the number all the same
    if dense_distrusted is not None:
        assert verdict(claim, known("dense", "dense")).status == dense_distrusted


@pytest.mark.parametrize(
    "claim", [p_acc >= 0.5, p_acc <= 0.5, p_acc > -1, p_acc < 2, within(p_acc, 0.5, 1), p_acc - d_acc >= -0.03]
)
def test_an_error_about_any_measure_is_an_error(claim: Claim) -> None:
    measures = len({m for d in claim.differences for m, _ in d.terms})
    bad = Known(Fraction(1), Fraction(1), 10, error="the model is in train mode")
    found = verdict(claim, [bad, outcomes(10, 5, 5)][:measures])
    assert (found.status, found.reason) == ("error", "the model is in train mode")


def test_infinity_and_nan_support_nothing_by_themselves() -> None:
    assert status(p_acc >= 0.5, Known(inf, inf)) == "supported"
    assert status(p_acc <= 0.5, Known(inf, inf)) == "refuted"
    assert status(p_acc >= d_acc, Known(inf, inf), Known(inf, inf)) == "inconclusive"  # inf − inf
    assert status(p_acc <= d_acc, Known(inf, inf), Known(inf, inf)) == "inconclusive"
    assert status(p_acc >= d_acc, Known(Fraction(0), inf), Known(Fraction(0), inf)) == "inconclusive"
    for claim in (p_acc >= 0.5, p_acc <= 0.5, p_acc > 0.5, p_acc < 0.5, within(p_acc, 0.5, 10)):
        assert status(claim, Known(nan, nan)) == "inconclusive"
    assert verdict(p_acc >= d_acc, [Known(inf, inf), Known(inf, inf)]).margin is None


# ---- the distribution that the samples were drawn from


def drawn(claim: Claim, pruned: list[bool], dense: list[bool] | None = None, *, errors: int = 0) -> Verdict:
    flags = {"pruned": pruned, "dense": dense or []}
    known = []
    for measure, _ in claim.differences[0].terms:
        outcome = flags[measure.subjects[0].role]
        failed = errors if measure.subjects[0].role == "pruned" else 0
        known.append(outcomes(len(outcome), sum(outcome), len(outcome) - sum(outcome) - failed, errors=failed))
    return verdict(claim, known, population="distribution", flags=flags)


def of(survived: int, n: int = 100) -> list[bool]:
    return [True] * survived + [False] * (n - survived)


def test_a_population_needs_more_than_its_sample() -> None:
    # The one-sided 95 % Clopper-Pearson bounds of 92/100 are 0.8603 and 0.9593.
    assert drawn(p_acc >= 0.86, of(92)).status == "supported"
    assert drawn(p_acc >= 0.861, of(92)).status == "inconclusive"
    assert drawn(p_acc >= 0.92, of(92)).status == "inconclusive"
    assert drawn(p_acc >= 0.95, of(92)).status == "inconclusive"
    assert drawn(p_acc >= 0.96, of(92)).status == "refuted"
    assert drawn(p_acc <= 0.96, of(92)).status == "supported"
    assert drawn(p_acc <= 0.86, of(92)).status == "refuted"
    assert drawn(p_acc >= 0.861, of(92)).settle == "more samples"
    assert drawn(p_acc >= 0, of(0)).status == "supported"
    assert drawn(p_acc > 0, of(0)).status == "inconclusive"


def test_paired_differences_use_the_pairs() -> None:
    dense = of(90)
    assert drawn(p_acc >= d_acc - 0.05, of(90), dense).status == "supported"  # no discordant pair: −0.0362
    assert drawn(p_acc >= d_acc - 0.03, of(90), dense).status == "inconclusive"
    shifted = [*dense[30:], *dense[:30]]  # the same accuracy on other samples: 10 against 10
    assert drawn(p_acc >= d_acc - 0.05, shifted, dense).status == "inconclusive"
    assert drawn(p_acc >= d_acc - 0.05, of(60), dense).status == "refuted"
    assert drawn(2 * p_acc >= 2 * d_acc - 0.1, of(90), dense).status == "supported"
    assert drawn(2 * p_acc >= d_acc - 0.1, of(90), dense).status == "inconclusive"  # no paired difference
    assert drawn(within(p_acc, 0.9, 0.2), of(90)).status == "inconclusive"


def test_samples_without_outcome_support_nothing_about_a_population() -> None:
    assert drawn(p_acc <= 0.55, of(40)).status == "supported"
    found = drawn(p_acc <= 0.55, of(40), errors=10)  # 40 to 50 survivors: the bound of 50/100 is 0.587
    assert (found.status, found.reason) == ("inconclusive", "10 of 100 samples are undecided: not finite")
    assert drawn(p_acc >= 0.30, of(40), errors=10).status == "inconclusive"
    incomplete = verdict(p_acc >= 0.1, [outcomes(10, 5, 0)], population="distribution")
    assert incomplete.status == "inconclusive"
