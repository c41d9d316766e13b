"""``--prunerob-decide=sequential``: the first samples decide, and what they decide is marked as such."""

from __future__ import annotations

from tests.plugin.conftest import Run, Suite

SUITE = """
import torch
from pytest_prunerob import Dataset

A = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False, micro_batch=20)

@pytest.fixture
def dataset():
    # Off the grey 0.5 by 0.1, which survives ε = 0.0525 with both models; every tenth by 0.01, which does not.
    margins = torch.full((400,), 0.1)
    margins[::10] = {weak}
    margins += torch.linspace(0, 1e-3, 400)  # no two samples are the same
    x = 0.5 + margins[:, None, None, None] * torch.ones(400, 1, 4, 4)
    y = torch.zeros(400, dtype=torch.int64)
    y[5::20] = 1  # clean errors, which are known before anything is attacked, and count only in their turn
    return Dataset("four hundred", x, y, classes=4)

{tests}
"""

THRESHOLD = """
@cells()
def test_it(pruned):
    assert pruned.robust_accuracy(A) >= {threshold}
"""

PAIRED = """
@cells()
def test_it(dense, pruned):
    assert pruned.robust_accuracy(A) >= dense.robust_accuracy(A) - 0.05
"""


def run(suite: Suite, tests: str, *args: str, weak: str = "0.01", decide: str = "sequential") -> Run:
    text = SUITE.replace("{weak}", weak).replace("{tests}", tests)
    return suite(text, f"--prunerob-decide={decide}", *args)


def done(found: Run) -> list[tuple[int, int]]:
    measured = [m for m in found.results["measurements"].values() if m["kind"] == "decide"]
    return [(stage["done"], stage["of"]) for m in measured for stage in m["stages"]]


def test_the_first_samples_decide_and_the_rest_is_not_measured(suite: Suite) -> None:
    found = run(suite, THRESHOLD.format(threshold="0.7"))
    assert found.ret == 0
    (claim,) = found.results["claims"]
    assert (claim["verdict"], claim["decision"], claim["complete"]) == ("supported", "sequential", False)
    ((measured, all_of_them),) = done(found)
    assert all_of_them == 20
    assert measured <= 5
    seen = int(claim["reason"].split()[1])
    assert 20 * (measured - 1) < seen <= 20 * measured  # no more than the micro-batch that decided
    assert f"after {seen} of 400 samples the 95 % confidence set of" in claim["reason"]
    assert 0 <= claim["margin"]["low"] < 0.15 < claim["margin"]["high"]
    assert claim["p_value"] <= 0.05
    assert claim["holm"] == claim["p_value"]  # a family of one
    # A later run goes on from there: the same store, all of it, decided exactly.
    exact = run(suite, THRESHOLD.format(threshold="0.7"), decide="exact")
    (claim,) = exact.results["claims"]
    assert (claim["verdict"], claim["decision"], claim["reason"]) == ("supported", "exact", "")
    assert done(exact)[0][0] > measured


def test_breaks_refute_early_too(suite: Suite) -> None:
    found = run(suite, THRESHOLD.format(threshold="0.99"))
    assert found.ret == 1
    (claim,) = found.results["claims"]
    assert claim["verdict"] == "refuted"
    assert claim["margin"]["high"] < 0
    assert done(found)[0][0] < 15


def test_at_the_border_everything_is_measured_and_decided_exactly(suite: Suite) -> None:
    for threshold, verdict in (("0.85", "supported"), ("0.8525", "refuted")):
        found = run(suite, THRESHOLD.format(threshold=threshold))
        (claim,) = found.results["claims"]
        assert (claim["verdict"], claim["decision"]) == (verdict, "exact")


def test_pairs_decide_a_difference(suite: Suite) -> None:
    found = run(suite, PAIRED)
    assert found.ret == 0
    (claim,) = found.results["claims"]
    assert (claim["verdict"], claim["decision"]) == ("supported", "sequential")
    assert claim["margin"]["low"] >= 0
    counts = done(found)
    assert len(counts) == 2
    assert counts[0] == counts[1]  # both models, micro-batch by micro-batch
    assert counts[0][0] < 15
    assert "pruned: " in claim["stands_on"]
    assert "dense: " not in claim["stands_on"]


def test_a_population_is_never_decided_by_the_first_samples(suite: Suite) -> None:
    found = run(suite, THRESHOLD.format(threshold="0.7"), "--prunerob-population=distribution")
    (claim,) = found.results["claims"]
    assert (claim["verdict"], claim["decision"], claim["complete"]) == ("supported", "bound", True)


def test_a_published_number_is_compared_with_a_complete_measurement(suite: Suite) -> None:
    suite_text = """
import pathlib
from pytest_prunerob import table
pathlib.Path(__file__).with_name("t.csv").write_text("name,value\\na,90\\n")

@cells(reported=table("t.csv", key={"name": "a"}, column="value"))
def test_it(pruned):
    assert pruned.robust_accuracy(A) >= 0.7
"""
    found = run(suite, suite_text)
    (claim,) = found.results["claims"]
    assert (claim["verdict"], claim["decision"], claim["complete"]) == ("supported", "exact", True)
    assert claim["comparison"]["value"] == 0.85
