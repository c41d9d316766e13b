"""``--prunerob-population=distribution``: bounds, p-values and their adjustment for the claims of one test function."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Suite

SUITE = """
@cells(seed=[0, 1, 2])
def test_threshold(pruned):
    assert pruned.robust_accuracy(P) >= 0.35

@cells(seed=[0, 1])
def test_pair(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.5

@cells()
@pytest.mark.parametrize("two", [True])
def test_others(dense, pruned, two):
    assert dense.sparsity() >= 0
    assert pruned.accuracy() >= 0.9
"""


def test_p_values_are_adjusted_within_a_test_function(suite: Suite) -> None:
    run = suite(SUITE, "--prunerob-population=distribution")
    assert run.ret == 0
    families: dict[str, list[dict[str, float]]] = {}
    for claim in run.results["claims"]:
        families.setdefault(claim["cell"].partition("::")[2].partition("[")[0], []).append(claim)
    threshold = families["test_threshold"]
    assert [claim["p_value"] for claim in threshold] == pytest.approx(
        [0.0363] * 3, abs=1e-4
    )  # 20 or more of 40 at 35 %
    assert [claim["holm"] for claim in threshold] == pytest.approx([3 * threshold[0]["p_value"]] * 3)
    # No correction for the gate: each claim stands for itself, and all must hold.
    assert {claim["verdict"] for claim in threshold} == {"supported"}
    pair = families["test_pair"]
    assert [claim["holm"] for claim in pair] == pytest.approx([2 * pair[0]["p_value"]] * 2)
    (score,) = {(claim["score_interval"]["low"], claim["score_interval"]["high"]) for claim in pair}
    assert score[0] < -0.25 < score[1]  # 10 of 40 survive with the dense model only
    exact, bound = families["test_others"]
    assert (exact["decision"], exact["p_value"], exact["holm"]) == ("exact", None, None)
    assert (bound["decision"], bound["holm"]) == ("bound", bound["p_value"])


def test_on_the_samples_themselves_there_is_no_p_value(suite: Suite) -> None:
    run = suite(SUITE)
    assert run.ret == 0
    claims = run.results["claims"]
    assert {(claim["p_value"], claim["holm"], claim["decision"]) for claim in claims} == {(None, None, "exact")}


def test_an_auc_of_40_samples_says_how_many_it_takes(suite: Suite) -> None:
    run = suite(
        """
        @cells()
        def test_it(dense, pruned):
            assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6
        """,
        "--prunerob-population=distribution",
    )
    (claim,) = run.results["claims"]
    assert claim["verdict"] == "inconclusive"
    assert claim["reason"] == "S10 has 0 samples; an AUC needs at least 10"
    assert claim["settle"] == "more samples; how many cannot be told, since S10 has none of these 40"
