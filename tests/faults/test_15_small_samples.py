"""Five samples say next to nothing about the population that they were drawn from."""

from __future__ import annotations

from tests.faults.conftest import Suite

SUITE = """
@cells(samples=5)
def test_ninety_percent(dense):
    assert dense.accuracy() >= 0.9

@cells(samples=5)
def test_not_worse(dense, pruned):
    assert pruned.accuracy() >= dense.accuracy() - 0.03

@cells(samples=5)
def test_half(dense):
    assert dense.accuracy() >= 0.5
"""


def test_15_five_of_five_do_not_support_ninety_percent_of_a_population(suite: Suite) -> None:
    assert suite(SUITE).ret == 0  # these five samples are all correct
    run = suite(SUITE, "--prunerob-population=distribution")
    assert run.ret == 1
    claims = {claim["text"]: claim for claim in run.results["claims"]}
    ninety = claims["dense.accuracy() >= 0.9"]
    assert (ninety["verdict"], ninety["decision"], ninety["n"]) == ("inconclusive", "bound", 5)
    # 5 of 5: the bound is 0.05^(1/5) = 0.549, the p-value 0.9⁵; 0.9²⁹ is the first power of 0.9 below 0.05.
    assert ninety["reason"] == "the one-sided 95 % bounds of the difference are [-0.3507, +0.1000]"
    assert abs(ninety["p_value"] - 0.9**5) < 1e-12
    assert ninety["settle"] == "about 29 samples at the rates of these 5"
    assert "to settle it: about 29 samples at the rates of these 5" in run.out
    paired = claims["pruned.accuracy() >= dense.accuracy() - 0.03"]
    assert (paired["verdict"], paired["settle"]) == ("inconclusive", "about 122 samples at the rates of these 5")
    assert paired["score_interval"]["low"] < 0 < paired["score_interval"]["high"]
    assert claims["dense.accuracy() >= 0.5"]["verdict"] == "supported"
