"""The grid of a claim test: ``cells(...)`` turns one test function into a parametrized family of cells.

A cell is one point of the grid: a dataset, a dense model, how it is pruned, how many samples are judged.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, TypeVar

from pytest_prunerob.errors import CellsError, unknown
from pytest_prunerob.reported import Table

AXES = (
    "dataset", "network", "training", "method", "sparsity", "rate", "iterations", "after", "seed", "dense", "pruned",
)  # fmt: skip
AMOUNTS = ("sparsity", "rate")  # two ways to say how much goes
ATTRIBUTE = "__prunerob_cells__"
ID_LENGTH = 100
COUNTS = {"seed": 0, "iterations": 1}  # the axes of whole numbers with the least one
PLACES = 20  # decimal places of a sparsity (ours): a float has 17, and a giant exponent would fill memory
Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    ``parameters`` holds what was given, in the order of ``AXES``; the properties give single parameters and raise
    ``CellsError`` where the grid has no such axis. ``samples`` is the number of samples judged, ``None`` for all.
    """

    id: str
    parameters: Mapping[str, str]
    samples: int | None = None
    reported: Table | None = None
    xfail: str | None = None

    def __getitem__(self, axis: str) -> str:
        if axis not in self.parameters:
            raise CellsError(
                f"the cell {self.id!r} has no {axis!r}: write cells({axis}=...) or override the fixture that needs it"
            )
        return self.parameters[axis]

    @property
    def dataset(self) -> str:
        """The name of the dataset, such as ``digits`` or ``npz:PATH``."""
        return self["dataset"]

    @property
    def network(self) -> str:
        """The name of the network."""
        return self["network"]

    @property
    def training(self) -> str:
        """The name of the training recipe."""
        return self["training"]

    @property
    def method(self) -> str:
        """The name of the compression method."""
        return self["method"]

    @property
    def sparsity(self) -> Fraction:
        """The requested share of removed units, exactly as written; 1 − 1/c where the grid has a compression rate c."""
        if "rate" in self.parameters:
            return 1 - 1 / Fraction(self["rate"])
        return Fraction(self["sparsity"])

    @property
    def amount_text(self) -> str:
        """How much is removed, as the grid says it."""
        return f"rate {self['rate']}" if "rate" in self.parameters else self["sparsity"]

    @property
    def iterations(self) -> int | None:
        """The number of pruning steps, ``None`` where the grid does not name one."""
        return int(self["iterations"]) if "iterations" in self.parameters else None

    @property
    def seed(self) -> int:
        """The seed of training; 0 where the grid does not name one."""
        return int(self.parameters.get("seed", "0"))

    def another(self, given: Mapping[str, object], keep: Sequence[str]) -> Cell:
        """The cell on the same dataset with the parameters ``given``, and of this one's those that it is to ``keep``.

        Raises:
            CellsError: for a value that ``cells(...)`` would refuse, or a list of them.
        """
        for axis, value in given.items():
            if isinstance(value, Sequence) and not isinstance(value, str):
                raise CellsError(f"{axis}={value!r} is a list: one model has one {axis}")
        own = {axis: self.parameters[axis] for axis in keep if axis in self.parameters}
        if given.keys() & set(AMOUNTS):
            own = {axis: value for axis, value in own.items() if axis not in AMOUNTS}
        kept = {axis: int(value) if axis in COUNTS else value for axis, value in own.items()}
        (found,) = Grid({**kept, **given}, self.samples).expand()
        data = {"dataset": self.parameters["dataset"]} if "dataset" in self.parameters else {}
        return replace(found, parameters={**data, **found.parameters})


@dataclass(frozen=True)
class Grid:
    """What ``cells(...)`` was given; ``expand`` makes the cells."""

    axes: Mapping[str, object]
    samples: int | None
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    reported: Table | None = None
    xfail: Mapping[str, str] = field(default_factory=dict)

    def expand(self, profile: str | None = None) -> tuple[Cell, ...]:
        """The cells under ``profile``, sorted, with unique ids of at most 100 characters.

        Raises:
            CellsError: for an unknown profile, an empty axis, a bad value, or an xfail pattern without a cell.
        """
        axes, samples = dict(self.axes), self.samples
        if profile is not None and self.profiles:
            if profile not in self.profiles:
                raise CellsError(unknown("profile", profile, self.profiles))
            axes.update(self.profiles[profile])
            samples = _samples(axes.pop("samples", samples))
        if all(axis in axes for axis in AMOUNTS):
            raise CellsError("cells(...) has both sparsity and rate: one of them says how much is removed")
        values = {axis: _values(axis, axes[axis]) for axis in AXES if axis in axes}
        rows = sorted(itertools.product(*values.values()), key=_order)
        cells = []
        for row, name in zip(rows, _ids(list(values), rows), strict=True):
            reasons = [why for glob, why in self.xfail.items() if fnmatch.fnmatchcase(name, glob)]
            parameters = dict(zip(values, row, strict=True))
            cells.append(Cell(name, parameters, samples, self.reported, reasons[0] if reasons else None))
        for glob in self.xfail:
            if not any(fnmatch.fnmatchcase(cell.id, glob) for cell in cells):
                raise CellsError(f"xfail pattern {glob!r} matches no cell: " + _listing(c.id for c in cells))
        return tuple(cells)


def cells(
    *,
    samples: int | None = None,
    profiles: Mapping[str, Mapping[str, object]] | None = None,
    reported: Table | None = None,
    xfail: Mapping[str, str] | None = None,
    **grid: object,
) -> Callable[[Test], Test]:
    """Parametrize a claim test over a grid; a list is an axis, a single value is fixed.

    Axes: ``dataset``, ``network``, ``training``, ``method``, ``sparsity`` (the share that goes) or ``rate`` (c: one
    c-th stays), ``iterations``, ``after`` (what follows pruning) and ``seed`` for the models this plugin builds,
    ``dense`` and ``pruned`` for models by reference ("pkg.mod:callable" or an exported program, ".pt2").
    ``samples`` is the number of samples judged: the first of a fixed permutation of the dataset.
    ``profiles={"paper": {...}}`` replaces parts of the grid under ``--prunerob-profile=paper``. ``reported`` attaches
    the published number of each cell. ``xfail={"id glob": "reason"}`` marks cells expected to be refuted.

    Raises:
        CellsError: at once for an unknown name; values are checked when pytest collects the test.
    """
    profiles = dict(profiles or {})
    for name in itertools.chain(grid, *(set(profile) - {"samples"} for profile in profiles.values())):
        if name not in AXES:
            raise CellsError(unknown("name in cells(...)", name, (*AXES, "samples", "profiles", "reported", "xfail")))
    spec = Grid(grid, _samples(samples), profiles, reported, dict(xfail or {}))

    def decorate(test: Test) -> Test:
        if isinstance(test, type):
            raise CellsError(f"cells(...) decorates test functions, not the class {test.__name__}")
        if hasattr(test, ATTRIBUTE):
            raise CellsError(f"{getattr(test, '__name__', test)} has cells(...) twice: write one grid")
        setattr(test, ATTRIBUTE, spec)
        return test

    return decorate


def _samples(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise CellsError(f"samples={value!r} is not a whole number of at least 1 (None judges all samples)")


def _values(axis: str, given: object) -> tuple[str, ...]:
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not items:
        raise CellsError(f"cells({axis}=[]) is an empty grid: give at least one value")
    if axis == "sparsity":
        values = _sparsities(items)
    elif axis == "rate":
        values = tuple(_rate(item) for item in items)
    elif axis in COUNTS:
        values = tuple(_count(axis, item) for item in items)
    else:
        values = tuple(_text(axis, item) for item in items)
    if len(set(values)) != len(values):
        raise CellsError(f"cells({axis}={items!r}) names a value twice")
    return values


def _text(axis: str, item: object) -> str:
    if not isinstance(item, str) or not item.strip():
        raise CellsError(f"cells({axis}=...) takes names, received {item!r}")
    return item


def _count(axis: str, item: object) -> str:
    if isinstance(item, bool) or not isinstance(item, int) or item < COUNTS[axis]:
        raise CellsError(f"{axis}={item!r} is not a whole number of at least {COUNTS[axis]}")
    return str(item)


def _rate(item: object) -> str:
    """A compression rate c as text without trailing zeros: 1/c of the units stay."""
    try:
        number = Decimal(repr(item) if isinstance(item, float) else str(item))
        valid = not isinstance(item, bool) and number.is_finite() and number >= 1
    except InvalidOperation:
        valid = False
    if not valid:
        raise CellsError(
            f"rate={item!r} is not a number of at least 1: at rate c one c-th of the units stays, such as 4"
        )
    if int(number.as_tuple().exponent) < -PLACES or number.adjusted() > PLACES:
        raise CellsError(f"rate={item!r} has more than {PLACES} digits before or after the decimal point")
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _sparsities(items: list[Any]) -> tuple[str, ...]:
    numbers = []
    for item in items:
        try:
            number = Decimal(repr(float(item)) if isinstance(item, float) else str(item))
            valid = not isinstance(item, bool) and number.is_finite() and 0 <= number < 1
        except InvalidOperation:
            raise CellsError(f"sparsity={item!r} is not a number between 0 and 1, such as '0.90'") from None
        if not valid:
            hint = f"; did you mean '{number / 100}'?" if number.is_finite() and 1 < number < 100 else ""
            raise CellsError(f"sparsity={item!r} is not in [0, 1): it is the share that is removed{hint}")
        if int(number.as_tuple().exponent) < -PLACES:
            raise CellsError(f"sparsity={item!r} has more than {PLACES} decimal places")
        numbers.append(abs(number))  # "-0" is 0
    width = max(2, *(-int(number.as_tuple().exponent) for number in numbers))
    return tuple(f"{number:.{width}f}" for number in numbers)


def _order(row: tuple[str, ...]) -> tuple[tuple[Fraction, str], ...]:
    # Seeds and rates sort as numbers: 2, 2.5, 16.
    numeric = re.compile(r"[0-9]+(\.[0-9]+)?")
    return tuple((Fraction(value) if numeric.fullmatch(value) else Fraction(-1), value) for value in row)


def _ids(axes: list[str], rows: list[tuple[str, ...]]) -> list[str]:
    if not axes:
        return ["cell"]
    plain = ["-".join(_part(axis, value) for axis, value in zip(axes, row, strict=True)) for row in rows]
    names = []
    for name, row in zip(plain, rows, strict=True):
        if len(name) > ID_LENGTH or plain.count(name) > 1:
            name = f"{name[: ID_LENGTH - 9]}-{hashlib.sha256(repr(row).encode()).hexdigest()[:8]}"
        names.append(name)
    return names


def _part(axis: str, value: str) -> str:
    # A cell id goes through shells, file names and pytest's own "::" and "[...]".
    text = re.sub(r"[^A-Za-z0-9._+=-]+", "_", value).strip("_")
    return {"sparsity": f"s{text}", "rate": f"r{text}", "iterations": f"k{text}", "seed": f"seed{text}"}.get(axis, text)


def _listing(names: Any, limit: int = 6) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return "the cells are " + ", ".join(names[:limit]) + more
