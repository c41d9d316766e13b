"""No indicator fires on an ordinary trained, adversarially trained or pruned network of the suites.

The networks are those of the quickstart, from the same store. A stage whose own loss saturates is no finding about the
network: another stage is adequate then.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pytest_prunerob.adequacy import INDICATORS
from pytest_prunerob.auditing import audited
from pytest_prunerob.cells import ATTRIBUTE, Cell, Grid, cells
from pytest_prunerob.engine import Engine
from pytest_prunerob.measurement import Bench
from pytest_prunerob.models import Builder
from pytest_prunerob.plans import Plan, autoattack, brendel_bethge, fmn
from pytest_prunerob.store import Store
from tests.suites.conftest import ROOT


def quiet(what: str) -> None:
    """Nobody reads it."""


def cell(**grid: str) -> Cell:
    def test() -> None: ...

    cells(dataset="digits", network="cnn", **grid)(test)
    found: Grid = getattr(test, ATTRIBUTE)
    return found.expand(None)[0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    torch.set_num_threads(1)
    return Bench(Store(tmp_path / "store"), Engine("cpu", 250, 0), quiet)


@pytest.fixture
def builder() -> Builder:
    return Builder(Store(ROOT / ".prunerob"), "cpu", False, quiet, ROOT)


@pytest.mark.parametrize(
    ("training", "method", "sparsity", "eps"),
    [
        ("standard", "", "", "0.1"),
        ("pgd", "", "", "0.25"),
        ("pgd", "global-magnitude", "0.50", "0.25"),
        ("pgd", "global-magnitude", "0.90", "0.1"),
        ("pgd", "filter-l1", "0.50", "0.25"),
    ],
)
def test_no_indicator_fires(
    bench: Bench, builder: Builder, training: str, method: str, sparsity: str, eps: str
) -> None:
    grid = cell(training=training, method=method or "global-magnitude", sparsity=sparsity or "0.50")
    model = builder.dense(grid)
    if method:
        model = builder.pruned(grid, model)
    data = builder.splits("digits").test.first(40)
    prepared = bench.prepare(model, data, "dense")
    assert prepared.findings() == ()
    assert {check.indicator for check in prepared.known_checks if check.outcome == "passed"} >= set(INDICATORS)
    measurement = prepared.measurement("decide", autoattack(["apgd-ce", "apgd-t"], norm="linf", eps=eps))
    measurement.finish()
    assert measurement.ledger.survived
    found = audited(measurement, "full")
    assert found.problem == ""
    assert "apgd-t" in found.adequate
    whole = {check.indicator: check.outcome for check in found.checks if not check.stage}
    assert whole == {
        "black-box": "not applicable",
        "rerun": "passed",
        "unstable": "passed",
        "second-loss": "not applicable",
        "steps": "passed",
        "unbounded": "passed",
        "eps-sweep": "passed",
        "binarised-readout": "passed",
    }


@pytest.mark.parametrize(
    ("training", "plan"),
    [
        ("standard", fmn(norm="linf")),
        ("pgd", fmn(norm="linf")),
        ("pgd", fmn(norm="l2", steps=50)),
        pytest.param("standard", brendel_bethge(steps=40, binary_search_steps=10), marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else value.text,
)
def test_the_distances_of_the_dense_networks_are_trusted(
    bench: Bench, builder: Builder, training: str, plan: Plan
) -> None:
    model = builder.dense(cell(training=training, method="global-magnitude", sparsity="0.50"))
    prepared = bench.prepare(model, builder.splits("digits").test.first(60), "dense")
    measurement = prepared.measurement("minimise", plan)
    measurement.finish()
    assert audited(measurement, "basic").problem == ""
