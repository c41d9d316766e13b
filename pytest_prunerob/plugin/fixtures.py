"""The fixtures of a claim test.

People override ``dataset``, ``dense_model`` and ``pruned_model``; ``dense``, ``pruned``, ``reported``, ``cell``,
``make_subject`` and ``build_model`` stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.cells import Cell
from pytest_prunerob.errors import CellsError, DatasetError
from pytest_prunerob.plugin.stash import COMPRESSED, EVALUATION, OPTIONS

if TYPE_CHECKING:
    from torch import nn

    from pytest_prunerob.claims import Reported, Subject
    from pytest_prunerob.datasets import Dataset
    from pytest_prunerob.evaluation import TestEvaluation
    from pytest_prunerob.plugin.runtime import Runtime


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """The cell of the grid that this test is about."""
    if not hasattr(request, "param"):
        raise CellsError(f"{request.node.name} asks for a claim fixture but has no @cells(...) decorator")
    found: Cell = request.param
    return found


@pytest.fixture
def dataset(request: pytest.FixtureRequest, cell: Cell) -> Dataset:
    """The samples claims are about; override it to return an own ``Dataset``."""
    return _runtime(request).builder.splits(cell.dataset).test


@pytest.fixture
def dense_model(request: pytest.FixtureRequest, cell: Cell) -> nn.Module:
    """The dense model; override it to return an own ``nn.Module`` or ``Model``."""
    if "dense" in cell.parameters:
        return _reference(request, cell["dense"])
    shared = _runtime(request)
    with shared.visible():
        return shared.builder.dense(cell)


@pytest.fixture
def pruned_model(request: pytest.FixtureRequest, cell: Cell) -> nn.Module:
    """The pruned model; override it to return an own ``nn.Module`` or ``Model``."""
    if "pruned" in cell.parameters:
        return _reference(request, cell["pruned"])
    # Asked for here, so that a reference to a pruned model needs no dense one.
    dense: nn.Module = request.getfixturevalue("dense_model")
    shared = _runtime(request)
    with shared.visible():
        model = shared.builder.pruned(cell, dense)
    # A run that is only planned has stand-ins, of which nothing was measured.
    measured = getattr(shared.builder, "compressed", {})
    if cell.id in measured:
        request.node.stash[COMPRESSED] = measured[cell.id]
    return model


@pytest.fixture
def make_subject(request: pytest.FixtureRequest, cell: Cell) -> Callable[..., Subject]:
    """``make_subject(model, role, dataset=None)``: one more subject, such as the last release."""

    def make(model: object, role: str, dataset: Dataset | None = None) -> Subject:
        data: object = request.getfixturevalue("dataset") if dataset is None else dataset
        return _evaluation(request, cell).subject(model, _samples(data, cell), role)

    return make


@pytest.fixture
def build_model(
    request: pytest.FixtureRequest, cell: Cell, make_subject: Callable[..., Subject]
) -> Callable[..., Subject]:
    """``build_model(network=..., training=..., method=..., sparsity=..., seed=...)``: one more model of this package.

    It takes all names of ``cells(...)`` that describe a model. Names that are left out are those of the cell; without
    any of ``method``, ``sparsity``, ``rate``, ``iterations`` and ``after`` the model is dense. It is a subject
    on the samples of the cell, with ``role`` or its names as its role.
    """

    def build(
        *,
        network: str | None = None,
        training: str | None = None,
        method: str | None = None,
        sparsity: str | float | None = None,
        rate: str | float | None = None,
        iterations: int | None = None,
        after: str | None = None,
        seed: int | None = None,
        role: str | None = None,
    ) -> Subject:
        from pytest_prunerob.models import check_names

        how = {"method": method, "sparsity": sparsity, "rate": rate, "iterations": iterations, "after": after}
        pruned = any(value is not None for value in how.values())
        given = {"network": network, "training": training, **how, "seed": seed}
        wanted = {name: value for name, value in given.items() if value is not None}
        kept = [name for name in how if name != "iterations" or method is None] if pruned else []
        one = cell.another(wanted, keep=("network", "training", "seed", *kept))
        check_names(one, ("dataset", "network", "training", *(("method",) if pruned else ())))
        shared = _runtime(request)
        with shared.visible():
            model = shared.builder.dense(one)
            model = shared.builder.pruned(one, model) if pruned else model
        return make_subject(model, one.id if role is None else role)

    return build


@pytest.fixture
def dense(make_subject: Callable[..., Subject], dense_model: object) -> Subject:
    """The dense model as the subject of claims."""
    return make_subject(dense_model, "dense")


@pytest.fixture
def pruned(make_subject: Callable[..., Subject], pruned_model: object) -> Subject:
    """The pruned model as the subject of claims."""
    return make_subject(pruned_model, "pruned")


@pytest.fixture
def reported(request: pytest.FixtureRequest, cell: Cell) -> Reported:
    """The published number of the cell."""
    from pytest_prunerob.claims import Reported

    if cell.reported is None:
        raise CellsError(f"{request.node.name} asks for 'reported': write cells(..., reported=table(...))")
    evaluation = _evaluation(request, cell)
    assert evaluation.reported is not None
    return Reported(evaluation, evaluation.reported)


def _runtime(request: pytest.FixtureRequest) -> Runtime:
    from pytest_prunerob.plugin.runtime import runtime

    shared = runtime(request.config)
    shared.heartbeat.cell = request.node.nodeid
    return shared


def _reference(request: pytest.FixtureRequest, reference: str) -> nn.Module:
    from pytest_prunerob.checkpoints import load_reference

    return load_reference(reference, root=request.config.rootpath)


def _samples(data: object, cell: Cell) -> Dataset:
    from pytest_prunerob.datasets import Dataset

    if not isinstance(data, Dataset):
        raise DatasetError(f"the dataset fixture returned {type(data).__name__}: return a pytest_prunerob.Dataset")
    return data.first(cell.samples)


def _evaluation(request: pytest.FixtureRequest, cell: Cell) -> TestEvaluation:
    from pytest_prunerob.evaluation import TestEvaluation

    stash = request.node.stash
    if EVALUATION not in stash:
        options = request.config.stash[OPTIONS]
        number = None
        if cell.reported is not None:
            number = cell.reported.look_up(cell.parameters, Path(request.path).parent)
        shared = _runtime(request)
        stash[EVALUATION] = TestEvaluation(shared.bench, options.population, options.confidence, number, options.decide)
    found: TestEvaluation = stash[EVALUATION]
    return found
