from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_prunerob.budget import Budget
from pytest_prunerob.claims import Claim, Measure, Quantity, Reported, Subject
from pytest_prunerob.errors import BudgetSpentError, ClaimError
from pytest_prunerob.factsheet import Factsheet
from pytest_prunerob.known import Known
from pytest_prunerob.latency import latency_ratio
from pytest_prunerob.ledger import Cost
from pytest_prunerob.reported import Number
from pytest_prunerob.speed import WARM_UP
from pytest_prunerob.verdicts import Verdict, judge
from tests.unit.test_speed import Clock, Slow


class Machinery:
    """Judges claims about timings by a sheet whose clock is moved by the models alone."""

    def __init__(self, *models: nn.Module, clock: Clock, budget: Budget = Budget()) -> None:
        self.spent: list[Cost] = []
        engine = SimpleNamespace(device="cpu")
        bench: Any = SimpleNamespace(engine=engine, budget=budget, report=lambda _: None, spent=self.spent.append)
        self.sheet = Factsheet(bench, 0.95, clock)
        self.dense, self.pruned = (Subject(role, role, "d", "d", self) for role in ("dense", "pruned"))  # type: ignore[arg-type]
        data = SimpleNamespace(x=torch.zeros(4, 1))
        self.prepared: dict[str, Any] = {
            role: SimpleNamespace(loaded=SimpleNamespace(module=model), data=data)
            for role, model in zip(("dense", "pruned"), models, strict=False)
        }

    def built(self, claim: Claim) -> None: ...

    def known(self, measure: Measure) -> Any:
        if measure.number is not None:
            return Known(measure.number.low, measure.number.high, value=measure.number.value)
        return self.sheet.known(measure, [self.prepared[subject.role] for subject in measure.subjects])

    def judge(self, claim: Claim) -> Verdict:
        known = {measure: self.known(measure) for one in claim.differences for measure, _ in one.terms}
        return judge(claim, known, population="testset", confidence=0.95, flags=lambda _: [])

    def verdict(self, claim: Claim) -> Verdict:
        bool(claim)
        assert claim.verdict is not None
        return claim.verdict


def of(quantity: Quantity) -> Measure:
    return quantity.terms[0][0]


def test_a_mean_time_is_known_as_the_interval_of_one_more() -> None:
    """Five runs of 11 to 15 ms: mean 13 ms, standard deviation √2.5 ms, and t(0.975, 4) = 2.776."""
    clock = Clock()
    seconds = [0.5] * WARM_UP + [0.011, 0.012, 0.013, 0.014, 0.015, 77.0]
    machinery = Machinery(Slow("a", clock, *seconds), clock=clock)
    quantity = machinery.dense.latency(batch_size=6, runs=5)
    half = 2.7764451 * math.sqrt(2.5 * 1.2)
    known = machinery.known(of(quantity))
    assert (float(known.low), float(known.high)) == pytest.approx((13 - half, 13 + half))
    assert float(known.number) == pytest.approx(13)
    assert machinery.verdict(quantity <= 13 + 1.001 * half).status == "supported"
    assert machinery.verdict(quantity <= 13 - 1.001 * half).status == "refuted"
    between = machinery.verdict(quantity <= 13 + 0.999 * half)
    assert between.status == "inconclusive"
    assert between.settle == "a machine on which forwards take a time that varies less"
    assert between.reason.startswith(
        "dense.latency(6, 5): 13 ± 1.6 ms (mean ± sd of 5 runs of 6 samples), 95 % interval of one more [8.191, 17.81]"
    )
    assert between.terms[0].interval == pytest.approx((13 - half, 13 + half))
    assert len(clock.called) == WARM_UP + 5, "timed once, the same number in every claim"
    assert [cost.forward for cost in machinery.spent] == [6 * (WARM_UP + 5)]


def test_a_ratio_is_the_median_of_pairs_with_its_interval() -> None:
    """Ratios 1 to 8: the interval at 95 % is from the smallest to the largest, 1 − 2·2⁻⁸ of confidence."""
    clock = Clock()
    dense, pruned = Slow("a", clock, *[9.0] * WARM_UP, *map(float, range(1, 9))), Slow("b", clock, 1.0)
    machinery = Machinery(dense, pruned, clock=clock)
    quantity = latency_ratio(machinery.dense, machinery.pruned, 2, 8)
    known = machinery.known(of(quantity))
    assert (known.low, known.high, known.number) == (1, 8, Fraction(9, 2))
    assert machinery.verdict(quantity >= 1).status == "supported"
    assert machinery.verdict(quantity > 8).status == "refuted"
    open_ = machinery.verdict(quantity >= 1.01)
    assert open_.status == "inconclusive"
    assert open_.settle == "more pairs, such as latency_ratio(dense, pruned, 2, 32), or an idle machine"
    assert quantity.text == "latency_ratio(dense, pruned, 2, 8)"


def test_a_published_time_is_no_matter_of_printed_digits() -> None:
    clock = Clock()
    machinery = Machinery(Slow("a", clock, *[9.0] * WARM_UP, 0.001, 0.003), clock=clock)
    number = Number("2.0", Fraction(2), Fraction("1.95"), Fraction("2.05"), "table 3", "", "latency")
    found = machinery.verdict(machinery.dense.latency(1, 2) >= Reported(machinery, number))  # type: ignore[arg-type]
    assert found.status == "inconclusive"
    assert found.settle.startswith("a machine on which")


def test_too_few_pairs_settle_nothing() -> None:
    clock = Clock()
    machinery = Machinery(Slow("a", clock, 2.0), Slow("b", clock, 1.0), clock=clock)
    quantity = latency_ratio(machinery.dense, machinery.pruned, 2, 5)
    assert machinery.verdict(quantity >= 0.001).status == "inconclusive"
    assert machinery.verdict(latency_ratio(machinery.dense, machinery.pruned, 2, 6) >= 2).status == "supported"


def test_nothing_is_timed_once_the_budget_is_spent() -> None:
    clock = Clock()
    machinery = Machinery(Slow("a", clock, 1.0), clock=clock, budget=Budget(0.0))
    with pytest.raises(BudgetSpentError, match=r"was spent before the timing dense\.latency\(64, 100\)"):
        machinery.known(of(machinery.dense.latency()))
    assert clock.called == []


def test_wrong_numbers_and_subjects_are_one_sentence() -> None:
    machinery = Machinery(clock=Clock())
    other = Subject("other", "o", "e", "e", machinery)  # type: ignore[arg-type]
    for make, sentence in (
        (lambda: machinery.dense.latency(runs=1), r"latency\(runs=1\): whole numbers from 2 are allowed"),
        (lambda: machinery.dense.latency(0), r"latency\(batch_size=0\): whole numbers from 1 are allowed"),
        (lambda: machinery.dense.latency(1.5), r"latency\(batch_size=1\.5\): whole numbers"),  # type: ignore[arg-type]
        (lambda: latency_ratio(machinery.dense, machinery.pruned, pairs=True), r"latency_ratio\(pairs=True\): whole"),
        (lambda: latency_ratio(machinery.dense, other), r"latency_ratio\(dense, other\) needs one dataset: d, e"),
        (
            lambda: machinery.dense.latency() * 2 <= machinery.pruned.latency(),
            "not taken in turns: write latency_ratio",
        ),
        (lambda: latency_ratio(machinery.dense, "pruned"), r"takes two subjects, received str"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ClaimError, match=sentence):
            make()
