from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

TOML = """
[[claims]]
name = "counts"
claim = "pruned.nonzeros() <= dense.nonzeros() - 8"

[[claims]]
name = "faster"
claim = "latency_ratio(dense, pruned, 4, 20) >= 1000000"
"""


def test_facts_are_claimed_in_both_kinds_of_files(suite: Suite, pytester: pytest.Pytester) -> None:
    """The toy models: 68 parameters each, of which 36 and 20 are not zero; one matrix product of 16 × 4."""
    (pytester.path / "release.claims.toml").write_text(TOML, encoding="utf-8")
    run = suite(
        """
        from pytest_prunerob import latency_ratio

        @cells()
        def test_counted(dense, pruned):
            assert within(pruned.nonzeros(), 20, 0)
            assert within(dense.flops() - pruned.flops() * 0.5, 64, 0)
            assert pruned.size_bytes("compressed") < pruned.size_bytes()

        @cells()
        def test_timed(dense, pruned):
            ratio = latency_ratio(dense, pruned, batch_size=4, pairs=20)
            assert float(ratio) == float(ratio) > 0
            assert ratio <= 1000000
            assert pruned.latency(4, 3) + dense.accuracy() > 0

        @cells()
        @pytest.mark.xfail(reason="a million times", strict=True)
        def test_not_faster(dense, pruned):
            assert latency_ratio(dense, pruned, batch_size=4, pairs=20) >= 1000000

        @cells()
        def test_in_training_mode(dense_model, make_subject):
            assert make_subject(dense_model.train(), "trained").latency(4, 3) >= 0
        """
    )
    assert run.statuses == {
        "counts": "passed",
        "faster": "failed",
        "test_counted": "passed",
        "test_timed": "passed",
        "test_not_faster": "xfailed",
        "test_in_training_mode": "failed",
    }
    run.result.stdout.re_match_lines([r"measured: dense\+pruned\.latency_ratio \S+ \(between \S+ and \S+\)"])
    claims = {claim["text"]: claim for claim in run.results["claims"]}
    flops = claims["within(dense.flops() - 0.5 * pruned.flops(), 64, 0)"]["terms"]
    assert [(term["value"], term["n"], term["measurement"]) for term in flops] == [(128, 0, None), (128, 0, None)]
    timed = claims["latency_ratio(dense, pruned, 4, 20) <= 1000000"]
    (term,) = timed["terms"]
    assert (timed["verdict"], timed["n"]) == ("supported", 0)
    assert 0 < term["low"] <= term["value"] <= term["high"] < 1000000
    assert (term["subject"], term["interval"]["low"]) == ("dense+pruned", term["low"])
    assert "20 pairs of 4 samples" in timed["reason"]
    assert "in train mode" in claims["trained.latency(4, 3) >= 0"]["reason"]
