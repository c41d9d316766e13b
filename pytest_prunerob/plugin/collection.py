"""Collection: from a ``cells(...)`` decorator to parametrized items, and its errors as one sentence."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.cells import ATTRIBUTE, Cell, Grid
from pytest_prunerob.errors import CellsError, ClaimsFileError, PrunerobError
from pytest_prunerob.plugin import fixtures
from pytest_prunerob.plugin.stash import OPTIONS, PROFILES


def grid_of(item: object) -> Grid | None:
    """The grid of a test item or function, if it has one."""
    function = getattr(item, "function", item)
    found = getattr(function, ATTRIBUTE, None)
    return found if isinstance(found, Grid) else None


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: object, name: str, obj: object) -> None:
    """Give a decorated test the ``cell`` fixture, whether or not it names it."""
    if grid_of(obj) is not None and callable(obj):
        pytest.mark.usefixtures("cell")(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each cell."""
    grid = grid_of(metafunc.function)
    if grid is None:
        return
    _refuse_reruns(metafunc)
    if grid.profiles:
        metafunc.config.stash[PROFILES] = True
    found = grid.expand(metafunc.config.stash[OPTIONS].profile)
    folder = Path(metafunc.definition.path).parent
    for one in found:
        _check(metafunc, one)
        if one.reported is not None:
            one.reported.look_up(one.parameters, folder)
    metafunc.parametrize("cell", [_param(one) for one in found], indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a profile that no grid knows: a run of the default grid is not what was asked for."""
    profile = session.config.stash[OPTIONS].profile
    if profile is None or PROFILES in session.config.stash:
        return
    if any(grid_of(item) is not None for item in session.items):
        raise pytest.UsageError(f"--prunerob-profile={profile!r}: no cells(...) of this run has profiles")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Show our own errors of collection as one sentence."""
    report = yield
    call = getattr(report, "call", None)
    error = call.excinfo.value if call is not None and call.excinfo is not None else None
    if report.failed and isinstance(error, PrunerobError) and not collector.config.getoption("fulltrace", False):
        placed = isinstance(error, ClaimsFileError)  # its sentence starts with file, line and column
        report.longrepr = str(error) if placed else f"{collector.nodeid}: {error}"
    return report


def _param(cell: Cell) -> object:
    marks = [pytest.mark.xfail(reason=cell.xfail, strict=True)] if cell.xfail is not None else []
    return pytest.param(cell, id=cell.id, marks=marks)


def _check(metafunc: pytest.Metafunc, cell: Cell) -> None:
    """Look up the names that our own fixtures need; a fixture that is overridden gives its names its own meaning."""
    from pytest_prunerob.models import check_names

    for role in ("dense", "pruned"):
        if role in cell.parameters and _used(metafunc, role) and not _may_read_cell(metafunc, f"{role}_model"):
            raise CellsError(
                f"{cell.id}: {role}={cell[role]!r} is not what would be judged: the fixture {role}_model is overridden "
                f"and does not read the cell; leave out one of the two"
            )
    needed: list[str] = []
    if _ours(metafunc, "dataset") and _used(metafunc, "dataset", "dense", "pruned"):
        needed.append("dataset")
    dense = _ours(metafunc, "dense_model") and "dense" not in cell.parameters
    pruned = _used(metafunc, "pruned") and _ours(metafunc, "pruned_model") and "pruned" not in cell.parameters
    if dense and (_used(metafunc, "dense") or pruned):
        needed += ["dataset", "network", "training"]
    if pruned:
        needed += ["method"]
    check_names(cell, tuple(dict.fromkeys(needed)))


def _refuse_reruns(metafunc: pytest.Metafunc) -> None:
    """Running a claim until it is supported is no evidence; suites without claims may rerun as they like."""
    for name in ("reruns", "retries"):
        if metafunc.config.getoption(name, 0):
            raise CellsError(f"--{name} is refused: running a claim until it is supported is no evidence for it")
    if metafunc.definition.get_closest_marker("flaky") is not None:
        raise CellsError("the marker 'flaky' is refused: running a claim until it is supported is no evidence for it")


def _used(metafunc: pytest.Metafunc, *names: str) -> bool:
    return any(name in metafunc.fixturenames or f"{name}_model" in metafunc.fixturenames for name in names)


def _may_read_cell(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether the fixture ``name`` asks for ``cell`` or ``request``, itself or through a fixture that it asks for."""
    seen, ahead = set[str](), [name]
    while ahead:
        one = ahead.pop()
        found = None if one in seen else _definitions(metafunc, one)
        seen.add(one)
        if found and one in found[-1].argnames:  # extends the fixture that it overrides
            return True
        if found:
            ahead += found[-1].argnames
    return not seen.isdisjoint(("cell", "request"))


def _ours(metafunc: pytest.Metafunc, name: str) -> bool:
    found = _definitions(metafunc, name)
    return not found or found[-1].func is getattr(fixtures, name).__wrapped__


def _definitions(metafunc: pytest.Metafunc, name: str) -> Sequence[Any] | None:
    # The definitions are looked up privately: pytest has no public way to ask whether a fixture is overridden.
    found = metafunc.definition._fixtureinfo.name2fixturedefs.get(name)
    if found is None:
        found = metafunc.config.pluginmanager.getplugin("funcmanage").session._fixturemanager.getfixturedefs(
            name, metafunc.definition
        )
    definitions: Sequence[Any] | None = found
    return definitions
