from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_prunerob import inference
from pytest_prunerob.errors import ClaimError
from pytest_prunerob.inference import MOST_SAMPLES, Demand, Evidence, Pairs, Separation, Share, how_many, infer


def demand(evidence: Evidence, threshold: str, *, strict: bool = False, gives_up: str | None = None) -> Demand:
    return Demand(evidence, Fraction(threshold), Fraction(gives_up or threshold), Fraction(1), strict)


evidences = st.one_of(
    st.integers(1, 200).flatmap(lambda n: st.integers(0, n).map(lambda k: Share(k, n))),
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 100)).map(
        lambda t: Pairs(t[0], t[1], t[0] + t[1] + t[2] + 1)
    ),
    st.tuples(st.fractions(0, 1), st.integers(30, 200)).map(lambda t: Separation(t[0], t[1])),
)


@given(evidences, st.fractions(-1, 1, max_denominator=40), st.booleans())
def test_bounds_hold_the_point_and_agree_with_the_status(evidence: Evidence, threshold: Fraction, strict: bool) -> None:
    one = Demand(evidence, threshold, threshold, Fraction(2), strict)
    found = infer([one], 0.95)
    assert found.bounds[0] - 1e-9 <= 2 * float(evidence.point - threshold) <= found.bounds[1] + 1e-9
    if found.status == "supported":
        assert evidence.point >= threshold
        assert found.bounds[0] >= 0
    if found.status == "refuted":
        assert evidence.point <= threshold
        assert found.bounds[1] <= 0
    mirror, whole = evidence.mirrored()
    assert mirror.point == whole - evidence.point
    opposite = infer([Demand(mirror, whole - threshold, whole - threshold, Fraction(2), not strict)], 0.95)
    swap = {"refuted": "supported", "supported": "refuted", "inconclusive": "inconclusive"}
    assert opposite.status == swap[found.status]


@given(st.integers(1, 100).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.fractions("0.05", "0.95"))
def test_the_p_value_of_a_share_is_small_where_its_bound_supports(case: tuple[int, int], threshold: Fraction) -> None:
    found = infer([demand(Share(*case), str(threshold))], 0.95)
    if not 0.0499 < found.p_value < 0.0501:
        assert (found.status == "supported") is (found.p_value <= 0.05)


def test_p_values_of_pairs() -> None:
    exact = infer([demand(Pairs(12, 5, 200), "0")], 0.95)
    assert exact.p_value == pytest.approx(0.0717, abs=1e-4)  # the binomial 12 or more of 17
    score = infer([demand(Pairs(12, 5, 200), "-0.03")], 0.95)
    assert 0 < score.p_value < 0.01
    assert infer([demand(Separation(Fraction(9, 10), 30), "0.9")], 0.95).p_value == 1.0


def test_all_of_several_demands_must_be_met_and_refuting_one_of_them_costs_more() -> None:
    met, open_, failed = (demand(Share(90, 100), t) for t in ("0.8", "0.89", "0.99"))
    assert infer([met, met], 0.95).status == "supported"
    both = infer([met, open_], 0.95)
    assert (both.status, both.p_value) == ("inconclusive", infer([open_], 0.95).p_value)
    assert infer([met, failed], 0.95).status == "refuted"
    # The upper bound of 92/100 is 0.9596 at 95 % and 0.9648 at 97.5 %.
    between = demand(Share(92, 100), "0.963")
    assert infer([between], 0.95).status == "refuted"
    assert infer([between, between], 0.95).status == "inconclusive"


@pytest.mark.parametrize(
    ("evidence", "threshold", "text"),
    [
        (Share(5, 5), "0.9", "about 29 samples at the rates of these 5"),  # 0.9²⁹ < 0.05
        (Pairs(0, 0, 100), "-0.03", "about 122 samples at the rates of these 100"),  # 0.97¹²² < 0.025
        (
            Separation(Fraction(9, 10), 34),
            "0.85",
            f"about {math.ceil(math.log(20) / (0.9 * math.log(0.9 / 0.85) + 0.1 * math.log(0.1 / 0.15)))} "
            "samples in the smaller of the two groups at the rates of these 34",
        ),
        (Share(0, 5), "0.1", "about 29 samples at the rates of these 5, which would refute it"),
        (
            Share(90, 100),
            "0.9",
            "no number of samples while the rates stay what they are: the measured value is the threshold itself",
        ),
        (Share(900_001, 1_000_000), "0.9", f"more than {MOST_SAMPLES:,} samples at the rates of these 1,000,000"),
    ],
)
def test_how_many_would_settle_it(evidence: Evidence, threshold: str, text: str) -> None:
    found = infer([demand(evidence, threshold)], 0.95)
    assert (found.status, found.settle) == ("inconclusive", text)


def test_within_the_printed_digits_no_number_settles_it() -> None:
    between = demand(Share(90, 100), "0.905", gives_up="0.895")
    assert (
        how_many(between, 0.95, 0.95)
        == "no number of samples: the value lies within the printed digits of the reported number"
    )


@given(evidences, st.fractions("-0.5", "0.95", max_denominator=20))
def test_as_many_samples_as_told_do_settle_it(evidence: Evidence, threshold: Fraction) -> None:
    found = infer([demand(evidence, str(threshold))], 0.95)
    if found.status != "inconclusive" or not found.settle.startswith("about"):
        assert (found.settle == "") is (found.status != "inconclusive")
        return
    size = int(found.settle.split()[1].replace(",", ""))
    assert size > evidence.size
    if found.settle.endswith("refute it"):
        mirror, whole = evidence.mirrored()
        assert infer([demand(mirror.grown(size), str(whole - threshold), strict=True)], 0.95).status == "supported"
    else:
        assert infer([demand(evidence.grown(size), str(threshold))], 0.95).status == "supported"
        if size > evidence.size + 1:
            assert infer([demand(evidence.grown(size - 1), str(threshold))], 0.95).status != "supported"


def test_18_a_bound_or_p_value_that_is_nan_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "lower_bound", lambda *_: math.nan)
    with pytest.raises(ClaimError, match="a confidence bound is NaN"):
        infer([demand(Share(5, 5), "0.1")], 0.95)
    monkeypatch.undo()
    monkeypatch.setattr(inference, "binomial_p", lambda *_: math.nan)
    with pytest.raises(ClaimError, match="a p-value is NaN"):
        infer([demand(Share(5, 5), "0.1")], 0.95)
