from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_prunerob import autoattack, flips, fmn, within
from pytest_prunerob.claims import Claim, Distance, Measure, Quantity, Reported, Subject
from pytest_prunerob.decimals import decimal, exact
from pytest_prunerob.errors import ClaimError
from pytest_prunerob.known import Known
from pytest_prunerob.reported import Number
from pytest_prunerob.verdicts import Verdict, judge

AA = autoattack(norm="linf", eps="0.2")
FMN = fmn(steps=20)
NUMBER = Number("44.07", Fraction("0.4407"), Fraction("0.44065"), Fraction("0.44075"), "t.csv: a: aa", "", "accuracy")


@dataclass
class Fake:
    """Knows the accuracies of the roles; counts what it is asked."""

    known: dict[str, str] = field(default_factory=lambda: {"pruned": "0.90", "dense": "0.93"})
    made: list[Claim] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)

    def built(self, claim: Claim) -> None:
        self.made.append(claim)

    def value(self, measure: Measure) -> Fraction:
        return Fraction(self.known[measure.subjects[0].role])

    def judge(self, claim: Claim) -> Verdict:
        self.judged.append(claim.text)
        known = {
            m: Known(self.value(m), self.value(m), 100, share=True)
            if m.number is None
            else Known(m.number.low, m.number.high)
            for difference in claim.differences
            for m, _ in difference.terms
        }
        return judge(claim, known, population="testset", confidence=0.95, flags=self.flags)

    def flags(self, measure: Measure) -> list[bool]:
        return [Fraction(sample, 100) < self.value(measure) for sample in range(100)]

    def measure(self, quantity: Quantity) -> float:
        return float(quantity.constant + sum(factor * self.value(m) for m, factor in quantity.terms))

    def ids(self, measure: Measure) -> tuple[int, ...]:
        return (len(measure.options), 7)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def pruned(fake: Fake) -> Subject:
    return Subject("pruned", "p", "digits", "d", fake)


@pytest.fixture
def dense(fake: Fake) -> Subject:
    return Subject("dense", "d", "digits", "d", fake)


# ---- quantities


def test_linear_forms_are_exact(dense: Subject, pruned: Subject) -> None:
    d, p = dense.accuracy(), pruned.accuracy()
    q = 2 * p - (d + 0.03) * 3 - Fraction(1, 3) + np.float64(0.5) - Decimal("0.1") + d
    assert dict((m.subjects[0].role, factor) for m, factor in q.terms) == {"pruned": 2, "dense": -2}
    assert q.constant == Fraction(-9, 100) - Fraction(1, 3) + Fraction(2, 5)
    assert (1 - p).constant == 1
    assert (1 - p).terms[0][1] == -1
    assert (-p).terms[0][1] == -1
    assert (+p) is p
    assert sum([p, d]).terms == (p + d).terms
    assert (p - p).terms == ()
    assert (0 * p).terms == ()
    assert float(2 * p - 1) == 0.8


def test_numbers_are_taken_as_they_are_written(pruned: Subject) -> None:
    q = pruned.accuracy()
    assert (q + 0.03).constant == Fraction(3, 100)
    assert (q + 0.1 + 0.2).constant == Fraction(3, 10)
    assert exact(1 - 0.97) != Fraction(3, 100)
    assert exact(np.float64(0.07)) == Fraction(7, 100)
    assert exact(np.int64(5)) == 5
    assert exact(10**400) == 10**400


@given(st.fractions(max_denominator=10**6))
def test_a_decimal_is_exact_or_a_fraction(value: Fraction) -> None:
    assert Fraction(decimal(value)) == value


@pytest.mark.parametrize("value", [True, np.True_, None, "0.9", 1j, float("nan"), float("inf"), Decimal("nan"), [0.9]])
def test_what_is_no_finite_number_is_refused(pruned: Subject, value: object) -> None:
    for operation in (operator.add, operator.sub, operator.mul, operator.ge):
        with pytest.raises(TypeError, match=r"is no number; quantities support|is not finite"):
            operation(pruned.accuracy(), value)


@pytest.mark.parametrize(
    "operation",
    [
        lambda q: q / 2,
        lambda q: 2 / q,
        lambda q: q // 2,
        lambda q: q % 2,
        lambda q: divmod(q, 2),
        lambda q: divmod(2, q),
        lambda q: q**2,
        lambda q: 2**q,
        lambda q: q @ q,
        lambda q: q & q,
        lambda q: True & q,
        lambda q: q | q,
        lambda q: q ^ q,
        lambda q: ~q,
        abs,
        round,
        int,
        len,
        list,
        lambda q: 0.9 in q,
        lambda q: q * q,
        lambda q: q * (q - 1),
        lambda q: __import__("math").floor(q),
        lambda q: __import__("math").trunc(q),
    ],
)
def test_other_operations_name_a_supported_form(pruned: Subject, operation: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=re.escape("'pruned.accuracy() - dense.accuracy() >= -0.02'")):
        operation(pruned.accuracy())


def test_a_quantity_is_neither_true_nor_equal_to_anything(fake: Fake, pruned: Subject) -> None:
    q: Any = pruned.accuracy()
    with pytest.raises(TypeError, match=re.escape("a quantity, not a claim: compare it, such as 'assert pruned.acc")):
        bool(q)
    for equal in (
        lambda: q == 0.9,
        lambda: 0.9 == q,  # noqa: SIM300 - the other side is the point
        lambda: q == q,
        lambda: q == pytest.approx(0.9),
        lambda: pytest.approx(0.9) == q,
        lambda: q in [0.9],
        lambda: np.float64(0.9) == q,
    ):
        with pytest.raises(TypeError, match=re.escape("use within(pruned.accuracy(), value, tolerance)")):
            equal()
    for unequal in (lambda: q != 0.9, lambda: q != q, lambda: 0.9 != q):  # noqa: SIM300
        with pytest.raises(TypeError, match="use a comparison such as"):
            unequal()
    with pytest.raises(TypeError):
        pytest.approx(q)
    with pytest.raises(TypeError, match="unhashable"):
        hash(q)
    assert fake.made == []


def test_texts_are_what_one_would_write(dense: Subject, pruned: Subject) -> None:
    p, d = pruned.accuracy(), dense.accuracy()
    assert (p - d).text == "pruned.accuracy() - dense.accuracy()"
    assert (-p + 1).text == "-pruned.accuracy() + 1"
    assert (1 - 2 * p).text == "-2 * pruned.accuracy() + 1"
    assert (p - p - 0.5).text == "-0.5"
    assert pruned.robust_accuracy(AA).text == "pruned.robust_accuracy(autoattack standard, linf, ε=0.2)"
    assert flips(dense, pruned).auc_s10(by=FMN).text == "flips(dense, pruned).auc_s10(fmn 20 steps, linf)"
    assert pruned.distance(FMN).quantile(0.1).text == "pruned.distance(1/10, fmn 20 steps, linf)"
    assert repr(p) == "<Quantity pruned.accuracy()>"


factors = st.fractions(min_value=-4, max_value=4, max_denominator=40)


@given(factors, factors, factors, factors)
def test_the_text_of_a_claim_means_the_claim(a: Fraction, b: Fraction, c: Fraction, t: Fraction) -> None:
    fake = Fake()
    names = {role: Subject(role, role, "digits", "d", fake) for role in ("pruned", "dense")}
    quantity = names["pruned"].accuracy() * a + names["dense"].accuracy() * b + c
    if not quantity.terms:
        return
    claim = quantity >= t
    text = re.sub(r"(\d+)/(\d+)", r"Fraction(\1, \2)", claim.text)
    again = eval(text, {**names, "Fraction": Fraction})
    assert dict(again.differences[0].terms) == dict(claim.differences[0].terms)
    assert again.differences[0].constant == claim.differences[0].constant
    assert again.text == claim.text


# ---- claims


def test_every_comparison_makes_one_claim_and_judges_it_once(fake: Fake, pruned: Subject, dense: Subject) -> None:
    q = pruned.accuracy()
    claim = q >= 0.9
    assert fake.judged == []
    assert [bool(claim), bool(claim), bool(claim)] == [True] * 3
    assert fake.judged == ["pruned.accuracy() >= 0.9"]
    assert bool(q > 0.9) is False
    assert bool(q < 0.9) is False
    assert bool(q <= 0.9) is True
    assert bool(q >= dense.accuracy() - 0.03) is True
    assert bool(q > dense.accuracy() - 0.03) is False
    assert bool(1 - q <= 0.1) is True
    assert len(fake.made) == 7
    assert repr(claim) == "<Claim pruned.accuracy() >= 0.9: supported>"
    assert repr(q >= 1) == "<Claim pruned.accuracy() >= 1: not judged>"


def test_numbers_on_the_left_are_reflected(fake: Fake, pruned: Subject) -> None:
    q = pruned.accuracy()
    for left in (0.9, np.float64(0.9), Fraction(9, 10), Decimal("0.9")):
        claim = left <= q
        assert isinstance(claim, Claim)
        assert claim.text == "pruned.accuracy() >= 0.9"
        assert claim
    assert isinstance(np.float64(1) - q, Quantity)
    assert isinstance(np.float64(2) * q, Quantity)
    for left in (np.array([0.9]), np.array(0.9)):
        with pytest.raises(TypeError, match="is no number"):
            _ = left <= q


def test_a_chained_comparison_makes_a_claim_of_each_part(fake: Fake, pruned: Subject) -> None:
    q = pruned.accuracy()
    assert 0.8 <= q <= 0.95
    assert fake.judged == ["pruned.accuracy() >= 0.8", "pruned.accuracy() <= 0.95"]
    assert not (0.95 <= q <= 1)
    assert [claim.verdict.status for claim in fake.made if claim.verdict] == ["supported", "supported", "refuted"]


def test_whatever_asks_for_the_truth_of_a_claim_leaves_it_on_record(
    fake: Fake, pruned: Subject, dense: Subject
) -> None:
    refuted = pruned.accuracy() >= 0.95
    assert not refuted
    assert refuted or pruned.accuracy() >= 0.5
    assert max(pruned.accuracy(), dense.accuracy()).text == "dense.accuracy()"
    assert any([pruned.accuracy() > 1, pruned.accuracy() > 0.1])
    with contextlib.suppress(AssertionError):
        assert pruned.accuracy() > 0.99
    assert sum(c.verdict is not None and c.verdict.status == "refuted" for c in fake.made) == 3
    assert len(fake.made) == 6


def test_claims_are_not_combined(pruned: Subject) -> None:
    claim: Any = pruned.accuracy() >= 0.9
    for combine in (operator.and_, operator.or_, operator.lt, operator.ge, operator.ne):
        with pytest.raises(TypeError, match="write one assert for each"):
            combine(claim, claim)
    with pytest.raises(TypeError, match=re.escape("claims are not compared: write 'assert pruned.accuracy() >= 0.9'")):
        _ = claim == True  # noqa: E712
    with pytest.raises(TypeError, match="unhashable"):
        hash(claim)


@pytest.mark.parametrize(
    ("value", "tolerance", "holds"), [(0.9, 0, True), (0.92, 0.02, True), (0.921, 0.02, False), (0.87, 0.03, True)]
)
def test_within_is_two_sided_and_closed(pruned: Subject, value: float, tolerance: float, holds: bool) -> None:
    assert bool(within(pruned.accuracy(), value, tolerance)) is holds


def test_within_says_what_it_takes(pruned: Subject, dense: Subject) -> None:
    claim = within(pruned.accuracy(), dense.accuracy(), 0.03)
    assert claim.text == "within(pruned.accuracy(), dense.accuracy(), 0.03)"
    assert claim
    with pytest.raises(ClaimError, match=re.escape("within(..., tolerance=-0.1): the tolerance is negative")):
        within(pruned.accuracy(), 0.9, -0.1)
    with pytest.raises(TypeError, match=re.escape("takes a quantity first, received 0.9")):
        within(0.9, pruned.accuracy(), 0.1)  # type: ignore[arg-type]


def test_claims_that_cannot_be_judged_are_on_record_and_refused(fake: Fake, pruned: Subject) -> None:
    other = Subject("dense", "d", "npz:other.npz", "other", fake)
    with pytest.raises(ClaimError, match=r"compares subjects on unrelated datasets: digits, npz:other\.npz"):
        _ = pruned.accuracy() >= other.accuracy()
    assert len(fake.made) == 1
    with pytest.raises(ClaimError, match="compares numbers only: nothing is measured"):
        _ = pruned.accuracy() - pruned.accuracy() >= 0
    assert len(fake.made) == 2
    with pytest.raises(
        ClaimError, match=re.escape("flips(dense, pruned) compares unrelated datasets: npz:other.npz, di")
    ):
        flips(other, pruned)
    with pytest.raises(ClaimError, match="belong to two different tests"):
        pruned.accuracy() - Subject("dense", "d", "digits", "d", Fake()).accuracy()
    assert pruned.parameters() <= Subject("dense", "d", "npz", "other", fake).parameters() * 1  # not about samples


# ---- subjects


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.robust_accuracy(FMN), "robust_accuracy(fmn 20 steps, linf) needs a plan with ε"),
        (lambda s: s.security_curve(AA, ["0.1"]), "needs a minimum-norm plan, such as fmn(...)"),
        (lambda s: s.security_curve(FMN, []), "has no ε"),
        (lambda s: s.security_curve(FMN, ["0.2", "0.1"]), "takes rising values, each once"),
        (lambda s: s.security_curve(FMN, ["0.1", "0.2"]).at("0.3"), "unknown ε of this curve '0.3'"),
        (lambda s: s.distance(AA), "needs a minimum-norm plan, such as fmn(...)"),
        (
            lambda s: s.robust_accuracy("standard"),
            "takes a plan such as autoattack(...) or fmn(...), received 'standard'",
        ),
        (
            lambda s: s.sparsity(unit="weigths"),
            "unknown sparsity unit 'weigths': allowed are channels, filters, kernels, weights; did you",
        ),
        (lambda s: s.sparsity(scope="conv"), "unknown sparsity scope 'conv': allowed are all, prunable"),
        (lambda s: s.distance(FMN).quantile(1.5), "quantile(1.5) is not between 0 and 1"),
        (lambda s: flips(s, s).share("S2"), "unknown population 'S2': allowed are S00, S01, S10, S11"),
        (lambda s: flips(s, s).auc_s10(by=AA), "auc_s10(autoattack standard, linf, ε=0.2) needs a minimum-norm plan"),
        (lambda s: flips(s, "pruned"), "flips(dense, pruned) takes two subjects, received str"),
    ],
)
def test_wrong_questions_are_one_sentence(pruned: Subject, ask: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ClaimError, match=re.escape(message)):
        ask(pruned)


def test_measures_name_metric_plan_and_options(dense: Subject, pruned: Subject) -> None:
    distance = pruned.distance(FMN)
    assert isinstance(distance, Distance)
    ((measure, factor),) = distance.quantile(0.25).terms
    assert (measure.metric, measure.plan, measure.options, factor) == ("distance", FMN, (("quantile", "1/4"),), 1)
    assert distance.failed().terms[0][0].metric == "failed"
    pair = flips(dense, pruned)
    for quantity, metric in ((pair.auc_s01(by=FMN), "auc_s01"), (pair.p_s10(FMN), "p_s10"), (pair.p_s01(FMN), "p_s01")):
        assert quantity.terms == ((Measure(metric, (dense, pruned), FMN), Fraction(1)),)
    assert pair.share("S10").terms[0][0].options == (("population", "S10"),)
    assert pair.ids("S10") == (1, 7)
    assert pruned.sparsity("filters").terms[0][0].options == (("unit", "filters"), ("scope", "prunable"))


def test_a_reported_number_counts_as_its_interval(fake: Fake, pruned: Subject) -> None:
    reported = Reported(fake, NUMBER)
    assert (reported.value, reported.low, reported.high) == (0.4407, 0.44065, 0.44075)
    assert reported.source == "t.csv: a: aa"
    assert (reported - pruned.accuracy()).text == "reported(44.07) - pruned.accuracy()"
    fake.known["pruned"] = "0.41065"
    assert pruned.accuracy() <= reported - 0.03  # "overestimated by 3 points", to the last printed digit
    fake.known["pruned"] = "0.41066"
    claim = pruned.accuracy() <= reported - 0.03
    assert not claim
    assert claim.verdict is not None
    assert claim.verdict.status == "inconclusive"
    assert claim.verdict.reason == "the difference lies within the printed digits of the reported number"
    fake.known["pruned"] = "0.41076"
    assert not (again := pruned.accuracy() <= reported - 0.03)
    assert again.verdict is not None
    assert again.verdict.status == "refuted"


def test_a_quantity_that_does_not_exist_is_named_with_the_nearest_match() -> None:
    subject = Subject("pruned", "d", "digits", "x", Fake())
    with pytest.raises(AttributeError, match=r"unknown quantity of pruned 'robust_acuracy'.*did you mean 'robust_acc"):
        subject.robust_acuracy  # noqa: B018
    with pytest.raises(AttributeError, match=r"unknown quantity of flips 'auc'.*did you mean 'auc_s"):
        flips(subject, subject).auc  # noqa: B018
    assert not hasattr(subject, "__deepcopy__")
