"""Claims about inputs crafted on another model, security curves and critical strengths, from test to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.store import Store
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# One step of P from a sample moves every pixel that its source looks at by 0.0525: that undoes margins of the pruned
# model (0.005·k) up to k = 10 whichever of the two is the source; the dense one (0.01·k) loses k = 1 and 2 to half of it.
SUITE = """
from pytest_prunerob import critical_strength, fab, transfer, worst_case

NEAREST = fab(norm="linf", steps=5)

@cells()
def test_grey_box(dense, pruned):
    assert within(transfer(dense, pruned, P), 0.5, 0)
    assert within(transfer(pruned, dense, P), 0.9, 0)

@cells()
def test_itself(dense):
    assert within(transfer(dense, dense, P), dense.accuracy_under(P), 0)
"""


def test_a_transfer_is_planned_measured_reported_and_shared(
    suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester.makepyfile(test_suite="")
    first = suite(SUITE, "--prunerob-report=report.html")
    assert first.statuses == {"test_grey_box": "passed", "test_itself": "passed"}
    kinds = [(m["kind"], m["subject"], m["plan"].rpartition(", ")[2]) for m in first.results["measurements"].values()]
    made = {kind: subject for kind, subject, _ in kinds if kind == "crafted"}
    assert sorted(kind for kind, *_ in kinds) == ["crafted", "crafted", "returned", *3 * ["transferred"]]
    assert made
    page = (pytester.path / "report.html").read_text("utf-8")
    assert "inputs crafted to be tried on other models" in page
    assert "crafted on the pruned model" in page
    assert "40 made, 0 left, 0 errors" in page
    cost = first.results["cost"]
    again = suite(None, "--prunerob-store-mode=ro")
    assert again.verdicts == first.verdicts
    assert again.results["cost"]["backward"] == 0 < cost["backward"]
    capsys.readouterr()
    assert main(["store", "verify", "--store", ".prunerob"]) == 0
    assert main(["store", "list", "--store", ".prunerob"]) == 0
    assert "crafted on the dense model" in capsys.readouterr().out
