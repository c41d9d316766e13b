from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_prunerob import autoattack, fmn, metrics
from pytest_prunerob.claims import Claim, Measure, Quantity, Subject, within
from pytest_prunerob.known import Known
from pytest_prunerob.ledger import Ledger, Segment
from pytest_prunerob.reported import Number
from pytest_prunerob.statistics import binomial_p, lower_bound, tango_interval, tango_p, upper_bound
from pytest_prunerob.verdicts import Verdict, judge, leaning, may_stop

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
    prefix: dict[str, list[bool]] | None = None,
    unfinished: str = "",
) -> Verdict:
    measures = dict.fromkeys(m for difference in claim.differences for m, _ in difference.terms)
    items = dict(zip(measures, known, strict=True))

    def outcome(measure: Measure) -> list[bool]:
        role, item = measure.subjects[0].role, items[measure]
        return flags[role] if flags else of(int((item.number or 0) * item.n), item.n)

    return judge(
        claim,
        items,
        population=population,
        confidence=0.95,
        flags=outcome,
        unfinished=unfinished,
        prefix=(lambda m: (prefix or {})[m.subjects[0].role]) if prefix is not None else None,
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
    assert open_verdict.settle == (
        f"outcomes of {p_acc.text} for {errors} of 10 samples; it holds if at least {errors} of them survive"
    )
    named = verdict(p_acc >= 0.6, [replace(known, missing=tuple(range(20, 20 + errors)))])
    assert named.settle.startswith(f"outcomes of {p_acc.text} for {errors} of 10 samples: numbers 20")
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
    assert verdict(p_acc >= d_acc, [Known(inf, inf), Known(inf, inf)]).margin is None


@pytest.mark.parametrize(
    "claim", [p_acc >= 0.5, p_acc <= 0.5, p_acc > 0.5, p_acc < 0.5, p_acc > -1, p_acc < 2, within(p_acc, 0.5, 10)]
)
@pytest.mark.parametrize("population", ["testset", "distribution"])
@pytest.mark.parametrize(
    "bad",
    [Known(nan, nan), Known(Fraction(0), nan), Known(nan, Fraction(1)), Known(Fraction(1), Fraction(1), value=nan)],
)
def test_18_a_nan_is_an_error_and_never_a_number(claim: Claim, population: str, bad: Known) -> None:
    found = verdict(claim, [bad], population=population)
    assert (found.status, found.reason) == ("error", f"{p_acc.text} is NaN")
    assert [term.value for term in found.terms] == [None]
    assert found.terms[0].known.low == -inf  # NaN would not travel as JSON


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
    # The one-sided 95 % Clopper-Pearson bounds of 92/100 are 0.8603 and 0.9596.
    assert drawn(p_acc >= 0.86, of(92)).status == "supported"
    assert drawn(p_acc >= 0.861, of(92)).status == "inconclusive"
    assert drawn(p_acc >= 0.92, of(92)).status == "inconclusive"
    assert drawn(p_acc >= 0.95, of(92)).status == "inconclusive"
    assert drawn(p_acc >= 0.96, of(92)).status == "refuted"
    assert drawn(p_acc <= 0.96, of(92)).status == "supported"
    assert drawn(p_acc <= 0.86, of(92)).status == "refuted"
    assert drawn(p_acc >= 0.861, of(92)).settle == "about 110 samples at the rates of these 100"
    assert drawn(p_acc >= 0.95, of(92)).settle.endswith("which would refute it")
    assert drawn(p_acc >= 0.92, of(92)).settle.startswith("no number of samples")
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
    assert drawn(2 * p_acc >= d_acc - 0.1, of(90), dense).reason.startswith("population=distribution judges a share")


def test_samples_without_outcome_support_nothing_about_a_population() -> None:
    assert drawn(p_acc <= 0.55, of(40)).status == "supported"
    found = drawn(p_acc <= 0.55, of(40), errors=10)  # 40 to 50 survivors: the bound of 50/100 is 0.587
    assert (found.status, found.reason) == ("inconclusive", "10 of 100 samples are undecided: not finite")
    assert drawn(p_acc >= 0.30, of(40), errors=10).status == "inconclusive"
    incomplete = verdict(p_acc >= 0.1, [outcomes(10, 5, 0)], population="distribution")
    assert incomplete.status == "inconclusive"


def test_within_needs_both_sides() -> None:
    # The one-sided bounds of 90/100 are 0.8363 and 0.9446.
    assert drawn(within(p_acc, 0.9, 0.064), of(90)).status == "supported"
    assert drawn(within(p_acc, 0.9, 0.06), of(90)).status == "inconclusive"
    assert drawn(within(p_acc, 0.7, 0.1), of(90)).status == "refuted"
    assert drawn(within(p_acc - d_acc, 0, 0.04), of(90), of(90)).status == "supported"
    assert drawn(within(p_acc - d_acc, 0, 0.03), of(90), of(90)).status == "inconclusive"


def test_scores_and_p_values_of_a_population() -> None:
    dense = of(95)
    found = drawn(p_acc >= d_acc - 0.2, of(90), dense)
    assert (found.status, found.decision) == ("supported", "bound")
    assert found.score_interval == pytest.approx(tango_interval(0, 5, 100, 0.95))
    assert found.p_value == pytest.approx(tango_p(0, 5, 100, Fraction(-1, 5)))
    low, high = -upper_bound(5, 100, 0.975), upper_bound(0, 100, 0.975) - lower_bound(5, 100, 0.975)
    assert found.reason == f"the one-sided 95 % bounds of the difference are [{0.2 + low:+.4f}, {0.2 + high:+.4f}]"
    twice = drawn(2 * d_acc <= 2 * p_acc + 0.4, of(90), dense)  # the same claim: unscaled, in its direction
    assert (twice.score_interval, twice.p_value) == (found.score_interval, found.p_value)
    assert drawn(p_acc >= d_acc, of(90), dense).p_value == 1.0
    assert drawn(p_acc >= 0.86, of(92)).p_value == pytest.approx(binomial_p(92, 100, Fraction(86, 100)))
    assert drawn(p_acc <= 0.96, of(92)).p_value == pytest.approx(binomial_p(8, 100, Fraction(4, 100)))
    assert drawn(p_acc >= 0.86, of(92)).score_interval is None
    here = verdict(p_acc >= d_acc - 0.2, [outcomes(100, 90, 10), outcomes(100, 95, 5)])
    assert (here.decision, here.p_value) == ("exact", None)
    assert here.score_interval == found.score_interval
    assert verdict(p_acc >= d_acc - 1, [outcomes(100, 90, 0), outcomes(100, 95, 5)]).score_interval is None


def test_a_reported_number_is_its_interval_for_a_population_too() -> None:
    number = Number(
        "98.5", Fraction(985, 1000), Fraction(9845, 10000), Fraction(9855, 10000), "t", "", "robust_accuracy"
    )
    reported = Quantity(SILENT, ((Measure("reported", (), number=number), Fraction(1)),))
    printed = Known(number.low, number.high, value=number.value)

    def found(d: str) -> Verdict:
        items = [printed, outcomes(100, 92, 8)]
        return verdict(reported - p_acc >= Fraction(d), items, population="distribution", flags={"pruned": of(92)})

    # The upper bound of 92/100 is 0.95957; the lower end of what is printed as 98.5 is 0.9845.
    assert found("0.0249").status == "supported"
    assert found("0.0250").status == "inconclusive"
    assert found("0.0250").settle.startswith("about 1")
    # The lower bound is 0.86028, the upper end 0.9855.
    assert found("0.1250").status == "inconclusive"
    assert found("0.1253").status == "refuted"
    assert found("0.0653").settle == "one more printed digit of the reported number"  # between 0.9845 and 0.9855 − 0.92


def test_an_auc_of_a_population_needs_30_and_its_bound() -> None:
    auc, p_s10 = (
        Quantity(SILENT, ((Measure(metric, (DENSE, PRUNED), fmn()), Fraction(1)),)) for metric in ("auc_s10", "p_s10")
    )

    def found(claim: Claim, value: str, smaller: int, population: str = "distribution") -> Verdict:
        known = Known(Fraction(value), Fraction(value), 300, value=Fraction(value), smaller=smaller)
        return verdict(claim, [known], population=population)

    assert found(auc >= 0.7, "0.9", 30).status == "supported"
    assert found(auc >= 0.8, "0.9", 30).status == "inconclusive"
    assert "samples in the smaller of the two groups" in found(auc >= 0.8, "0.9", 30).settle
    assert found(auc <= 0.99, "0.9", 30).status == "supported"
    assert found(auc <= 0.6, "0.9", 30).status == "refuted"
    small = found(auc >= 0.5, "0.9", 29)
    reason = "the smaller group has 29 samples; for a population an AUC needs 30"
    assert (small.status, small.reason) == ("inconclusive", reason)
    assert small.settle == "about 311 samples in the two groups together at the rates of these 300"
    assert found(auc >= 0.5, "0.9", 29, "testset").status == "supported"
    assert found(p_s10 <= 0.05, "0.01", 0).status == "inconclusive"
    assert found(p_s10 <= 0.05, "0.01", 0, "testset").status == "supported"


@settings(max_examples=40)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), st.fractions(0, 1))
def test_more_survivors_never_hurt_a_claim_about_a_population(case: tuple[int, int], t: Fraction) -> None:
    survived, n = case
    order = ["refuted", "inconclusive", "supported"]
    before, after = (drawn(p_acc >= t, of(s, n)).status for s in (survived, survived + 1))
    assert order.index(before) <= order.index(after)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 2**20),
    st.fractions("-0.5", "0.5", max_denominator=50),
)
def test_the_order_of_the_samples_does_not_matter(pairs: list[tuple[bool, bool]], seed: int, delta: Fraction) -> None:
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    claim = p_acc >= d_acc - delta
    first, second = (drawn(claim, [a for a, _ in found], [b for _, b in found]) for found in (pairs, shuffled))
    assert (first.status, first.margin, first.score_interval, first.p_value, first.settle) == (
        second.status, second.margin, second.score_interval, second.p_value, second.settle
    )  # fmt: skip


# ---- decided by the first samples


def partly(seen: int, survived: int, *, distrust: str = "") -> Known:
    return outcomes(1000, survived, seen - survived, distrust=distrust)


def test_the_first_samples_decide_where_they_may() -> None:
    seen = [True] * 200
    plain = verdict(p_acc >= 0.9, [partly(200, 200)])
    assert (plain.status, plain.decision) == ("inconclusive", "exact")
    found = verdict(p_acc >= 0.9, [partly(200, 200)], prefix={"pruned": seen})
    assert (found.status, found.decision, found.complete) == ("supported", "sequential", False)
    assert re.match(
        rf"after \d+ of 1,000 samples the 95 % confidence set of {re.escape(p_acc.text)} is \[0\.9\d*, 1\]$",
        found.reason,
    )
    assert found.margin is not None
    assert 0 <= found.margin[0] < found.margin[1]
    assert found.p_value is not None
    assert found.p_value <= 0.05
    assert verdict(p_acc >= 0.9, [partly(20, 20)], prefix={"pruned": seen[:20]}).status == "inconclusive"
    below = verdict(p_acc >= 0.9, [partly(200, 0)], prefix={"pruned": [False] * 200})
    assert (below.status, below.decision) == ("refuted", "exact")
    early = verdict(p_acc >= 0.9, [partly(50, 0)], prefix={"pruned": [False] * 50})
    assert (early.status, early.decision) == ("refuted", "sequential")
    assert verdict(within(p_acc, 1, 0.1), [partly(200, 200)], prefix={"pruned": seen}).decision == "sequential"
    assert verdict(p_acc < 0.9, [partly(200, 200)], prefix={"pruned": seen}).status == "refuted"
    assert verdict(p_acc >= 0.9, [partly(200, 200, distrust=DISTRUST)], prefix={"pruned": seen}).reason == DISTRUST


def test_when_all_is_measured_the_exact_rule_decides() -> None:
    # The first 300 samples would support it at 95 %; all 1,000 refute it.
    seen = [True] * 300 + [False] * 700
    assert verdict(p_acc >= 0.9, [partly(300, 300)], prefix={"pruned": seen[:300]}).status == "supported"
    full = verdict(p_acc >= 0.9, [partly(1000, 300)], prefix={"pruned": seen})
    assert (full.status, full.decision) == ("refuted", "exact")
    broken = verdict(p_acc >= 0.9, [outcomes(1000, 300, 101)], prefix={"pruned": seen[:300]})
    assert (broken.status, broken.decision) == ("refuted", "exact")  # what is broken outside the prefix is broken
    # Nor do errors in a complete measurement leave the word to the first samples.
    stuck = verdict(p_acc >= 0.9, [outcomes(1000, 850, 50, errors=100)], prefix={"pruned": [True] * 850})
    assert (stuck.status, stuck.decision) == ("inconclusive", "exact")


def test_the_first_pairs_decide_a_difference() -> None:
    both = {"pruned": [True] * 400, "dense": [True] * 400}
    claim, known = p_acc >= d_acc - 0.03, [partly(400, 400), partly(400, 400)]
    found = verdict(claim, known, prefix=both)
    assert (found.status, found.decision) == ("supported", "sequential")
    assert f"confidence set of {p_acc.text} - {d_acc.text} is [" in found.reason
    assert found.margin is not None
    assert found.margin[0] >= 0
    assert [m.subjects[0].role for m in leaning(claim, found)] == ["pruned"]
    assert verdict(claim, known).status == "inconclusive"
    worse = {"pruned": [False] * 200, "dense": [True] * 200}
    refuted = verdict(claim, [partly(200, 0), partly(200, 200)], prefix=worse)
    assert (refuted.status, refuted.decision) == ("refuted", "sequential")
    assert refuted.margin is not None
    assert refuted.margin[1] < 0
    short = {"pruned": [True] * 400, "dense": [True] * 20}  # only what is known of both counts
    assert verdict(claim, [partly(400, 400), partly(20, 20)], prefix=short).status == "inconclusive"
    # Distrust of the one whose survival it leans on takes the decision away, and not of the other one.
    for role, expected in (("pruned", "inconclusive"), ("dense", "supported")):
        some = [partly(400, 400, distrust=DISTRUST if role == r else "") for r in ("pruned", "dense")]
        assert verdict(claim, some, prefix=both).status == expected


def test_other_claims_wait_for_all_samples() -> None:
    both = {"pruned": [True] * 400, "dense": [True] * 400}
    known = [partly(400, 400), partly(400, 400)]
    claim = 2 * p_acc >= d_acc + 0.5
    assert not may_stop(claim, dict(zip([m for m, _ in claim.differences[0].terms], known, strict=True)))
    assert verdict(claim, known, prefix=both).status == "inconclusive"
    assert verdict(p_acc >= 0.5, [partly(400, 400)], prefix=both, population="distribution").status == "inconclusive"


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 40), st.fractions(0, 1, max_denominator=20))
def test_what_is_certain_is_not_left_to_the_first_samples(seen: list[bool], unseen: int, t: Fraction) -> None:
    n = len(seen) + unseen
    broken_first = sorted(seen)  # as ``outcomes`` has them
    known = outcomes(n, sum(seen), len(seen) - sum(seen))
    found = verdict(p_acc >= t, [known], prefix={"pruned": broken_first})
    exactly = verdict(p_acc >= t, [known])
    if exactly.status != "inconclusive":
        assert (found.status, found.decision) == (exactly.status, "exact")
    elif found.status != "inconclusive":
        assert found.margin is not None
        assert found.margin[0] >= 0 if found.status == "supported" else found.margin[1] < 0


def test_what_is_unfinished_says_how_much() -> None:
    found = verdict(p_acc >= 0.9, [partly(200, 190)], unfinished="the time budget was spent")
    assert (found.status, found.reason) == ("inconclusive", "the time budget was spent")
    assert found.settle == (
        f"running again, which goes on where this run stopped: outcomes of {p_acc.text} for 800 of 1000 samples; "
        "it holds if at least 710 of them survive"
    )
