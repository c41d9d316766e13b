from __future__ import annotations

import math
from fractions import Fraction

import pytest

from pytest_prunerob import metrics
from pytest_prunerob.ledger import Ledger, Segment

inf = math.inf
NAMES = ("S10", "S11")


def measured(values: dict[int, float], n: int | None = None, errors: dict[int, str] | None = None) -> Ledger:
    n = n or len(values)
    ledger = Ledger("k", "minimise", n, n, ("fmn",), frozenset(range(n)))
    ledger.add(Segment("k", 0, 0, tuple(range(n)), {}, errors or {}, values))
    return ledger


def test_accuracy_with_outputs_that_are_not_finite_is_an_error() -> None:
    plain = metrics.accuracy(7, 0, 10)
    assert (plain.low, plain.high, plain.error, plain.share) == (Fraction(7, 10), Fraction(7, 10), "", True)
    broken = metrics.accuracy(7, 2, 10)
    assert (broken.low, broken.high) == (Fraction(7, 10), Fraction(9, 10))
    assert broken.error == "2 of 10 samples have a clean output that is not finite"


def test_surviving_counts_every_sample_once() -> None:
    ledger = Ledger("k", "decide", 10, 5, ("a", "b"), frozenset(range(8)))
    assert (metrics.surviving(ledger, "ab").low, metrics.surviving(ledger, "ab").high) == (0, Fraction(8, 10))
    ledger.add(Segment("k", 0, 0, (0, 1, 2, 3, 4), {0: 0.1}, {1: "NaN"}))
    ledger.add(Segment("k", 1, 0, (2, 3, 4), {2: 0.1}))
    half = metrics.surviving(ledger, "ab")
    assert (half.low, half.high, half.complete, half.number) == (Fraction(2, 10), Fraction(6, 10), False, None)
    ledger.add(Segment("k", 0, 1, (5, 6, 7)))
    ledger.add(Segment("k", 1, 1, (5, 6, 7)))
    whole = metrics.surviving(ledger, "ab")
    assert (whole.low, whole.high, whole.complete, whole.value) == (Fraction(5, 10), Fraction(6, 10), True, None)
    assert whole.note == "1 of 10 samples are undecided: NaN"
    distrusted = metrics.surviving(ledger, "ab", "zero gradients")
    assert (distrusted.low, distrusted.high, distrusted.distrust) == (0, Fraction(6, 10), "zero gradients")
    assert (distrusted.attack, distrusted.measurement, distrusted.n) == ("ab", "k", 10)


def test_quantiles_of_distances() -> None:
    ledger = measured({0: 0.25, 1: 0.5, 2: 0.75, 3: -0.125})
    known = metrics.distance_quantile(ledger, [0, 1, 2], Fraction(1, 2), "fmn")
    assert (known.low, known.high, known.n, known.distrust) == (Fraction(1, 2), Fraction(1, 2), 3, "")
    missing = metrics.distance_quantile(measured({0: 0.25}, 2, {1: "NaN"}), [0, 1], Fraction(1, 2), "fmn")
    assert (missing.low, missing.high) == (0, inf)
    assert missing.distrust == "1 of 2 samples have no distance: NaN"
    failed = metrics.distance_quantile(measured({0: 0.25, 1: inf}), [0, 1], Fraction(1, 2), "fmn")
    assert (failed.low, failed.high, failed.number) == (0, inf, Fraction(1, 4))
    assert failed.distrust == "1 of 2 minimum-norm searches found no adversarial input"
    none = metrics.distance_quantile(ledger, [], Fraction(1, 2), "fmn")
    assert (none.low, none.high, none.distrust) == (0, inf, "no sample is classified correctly")
    few = metrics.distance_quantile(measured({p: 0.5 if p else inf for p in range(100)}), range(100), Fraction(1), "f")
    assert (few.low, few.high, few.distrust) == (inf, inf, "")  # 1 % of failed searches, no more


def test_share_of_failed_searches() -> None:
    ledger = measured({0: 0.25, 1: inf, 2: -inf, 3: 0.5})
    known = metrics.distance_failed(ledger, [0, 1, 3], "fmn")
    assert (known.low, known.high) == (Fraction(1, 3), Fraction(1, 3))
    doubted = metrics.distance_failed(ledger, [0, 1, 3], "fmn", "no gradients")
    assert (doubted.low, doubted.high, doubted.value) == (0, known.high, known.value)
    assert doubted.distrust == "no gradients"
    missing = metrics.distance_failed(measured({0: 0.25}, 2), [0, 1], "fmn")
    assert (missing.low, missing.high, missing.distrust) == (
        0,
        1,
        "1 of 2 samples have no distance: the attack returned none",
    )
    assert metrics.distance_failed(ledger, [], "fmn").distrust == "no sample is classified correctly"


@pytest.mark.parametrize("p_value", [False, True])
def test_separation_needs_groups_that_are_large_enough(p_value: bool) -> None:
    def ask(changed: int, kept: int, **values: float) -> metrics.Known:
        distances = {p: 0.125 * (p + 1) for p in range(changed + kept)} | {int(k[1:]): v for k, v in values.items()}
        group = range(changed), range(changed, changed + kept)
        return metrics.separation(measured(distances), *group, NAMES, "fmn", p_value=p_value)

    small = ask(9, 50)
    assert (small.low, small.high) == (0, 1)
    assert small.distrust == "S10 has 9 samples; an AUC needs at least 10"
    assert ask(50, 9).distrust == "S11 has 9 samples; an AUC needs at least 10"
    assert ask(0, 50).distrust == "S10 has 0 samples; an AUC needs at least 10"
    flagged = ask(10, 50)
    assert flagged.low == flagged.high
    assert (flagged.note, flagged.distrust) == ("few samples: 10 in S10, 50 in S11", "")
    assert ask(29, 30).note == "few samples: 29 in S10, 30 in S11"
    assert (ask(30, 30).note, ask(30, 30).distrust) == ("", "")
    failed = ask(30, 30, p3=inf)
    assert (failed.low, failed.high) == (0, 1)
    assert failed.distrust == "1 of 60 minimum-norm searches found no adversarial input"
    if not p_value:
        assert ask(30, 30).low == 1
        assert ask(10, 50, p0=-100.0).low == Fraction(450, 500)  # absolute distances count


def test_groups_that_are_too_small_say_how_many_samples_fill_them() -> None:
    def enough(changed: int, kept: int) -> str:
        return metrics.enough_for_groups(range(changed), range(kept), NAMES, 2000)

    assert enough(3, 1500) == "about 6,667 samples at the rates of these 2,000"  # 10 of 6,667 · 3 / 2,000
    assert enough(3, 2) == "about 10,000 samples at the rates of these 2,000"
    assert enough(3, 0) == "more samples; how many cannot be told, since S11 has none of these 2,000"
    known = metrics.separation(
        measured({p: 1.0 for p in range(60)}), range(20), range(20, 60), NAMES, "fmn", p_value=False
    )
    assert known.smaller == 20


def test_populations_by_dense_and_pruned() -> None:
    groups = metrics.populations([True, True, False, False, True], [True, False, True, False, True])
    assert groups == {"S11": (0, 4), "S10": (1,), "S01": (2,), "S00": (3,)}
    with pytest.raises(ValueError, match="shorter"):
        metrics.populations([True], [])


def test_no_samples_have_no_share() -> None:
    assert metrics.share(0, 0).distrust == "there are no samples"
    assert (metrics.share(1, 4).low, metrics.share(1, 4).high) == (Fraction(1, 4), Fraction(1, 4))
