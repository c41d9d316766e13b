"""Claims about attacks with a target: what is a break in a run, in its results file and in ``verify --deep``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.store import Store, Witness
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# The dense model breaks 10 of 40 samples at this ε (see conftest). A sample of class 0 has class 1 behind it, which
# is where the break leads; one of class 1 has class 2, which the model never says. The least likely class of all is 3
# of two that are alike, or 2: neither is in reach.
SUITE = """
NEXT = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False, target="next")
LEAST = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False, target="least-likely")

@cells()
def test_next(dense):
    assert within(dense.robust_accuracy(NEXT), 35 / 40, 0)

@cells()
def test_least_likely(dense):
    assert within(dense.robust_accuracy(LEAST), 1, 0)

@cells()
def test_any(dense):
    assert within(dense.robust_accuracy(P), 30 / 40, 0)
"""


def test_a_witness_of_a_targeted_plan_is_of_its_class(
    suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(toy=CONFTEST.replace("@pytest.fixture\n", ""))
    pytester.syspathinsert()
    run = suite(SUITE)
    run.result.assert_outcomes(passed=3)
    threats = [measured["threat"] for measured in run.results["measurements"].values() if measured["kind"] == "decide"]
    assert sorted(threat.get("target", "") for threat in threats) == ["", "least-likely", "next"]
    lock = pytester.path / "claims.lock"
    lock.write_text(json.dumps(lock_of(run.results, waived=[])))
    command = ["verify", str(run.path), "--lock", str(lock), "--deep", "--store", ".prunerob"]
    command += ["--model", "dense=toy:dense_model", "--dataset", "toy:dataset"]
    capsys.readouterr()
    assert main(command) == 0
    assert "15 witnesses of" in capsys.readouterr().out  # 5 of class 1 where the label is 0, and 10 of any other

    honest = Store.witnesses

    def target(store: Store, key: str) -> str | None:
        content = store.manifest(key)
        return None if content is None or content["plan"] is None else content["plan"]["target"]

    def lent(self: Store, key: str) -> dict[int, Witness]:
        """Breaks of the plan with the target "next" are given out as those of the plan with the least likely class."""
        if target(self, key) == "least-likely":
            key = next(other for other in run.results["measurements"] if target(self, other) == "next")
        return honest(self, key)

    monkeypatch.setattr(Store, "witnesses", lent)
    assert main(command) == 1
    assert "is classified as 1, which is no break" in capsys.readouterr().out
