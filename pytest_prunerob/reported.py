"""Published numbers: a table as it was printed, and the number of one cell as an interval by its printed digits."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

from pytest_prunerob.errors import CellsError, unknown

NUMBER_LENGTH = 30  # characters of a printed number (ours)
LARGEST_EXPONENT = 300  # of a printed number (ours): a giant one would fill memory
# Metrics that are shares of all samples.
SHARES = ("accuracy", "robust_accuracy", "accuracy_under", "corruption_accuracy")
TABLE_BYTES = 1_000_000  # ours: a printed table is a few kilobytes, anything above this is the wrong file


@dataclass(frozen=True)
class Axis:
    """Looks a table's key up by a parameter of the cell: ``axis("sparsity", {"0.90": "90"})``."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Number:
    """A published number with its printed digits: 44.07 % is known to lie in [0.44065, 0.44075].

    ``metric`` names the quantity of the pruned model that it is compared with. ``samples`` is how many samples it is
    said to be a share of.
    """

    text: str
    value: Fraction
    low: Fraction
    high: Fraction
    source: str
    note: str
    metric: str
    samples: int | None = None

    @property
    def impossible(self) -> str:
        """Why it cannot be a share of so many samples, in a sentence; empty where it can be, or nothing is said.

        The test of Brown & Heathers 2017 ("GRIM"): some whole number of the samples must be printed like this.
        """
        n = self.samples
        if n is None or max(0, ceil(self.low * n)) <= min(n, floor(self.high * n)):
            return ""
        below, above = (min(n, max(0, k)) for k in (floor(self.low * n), ceil(self.high * n)))
        return (
            f"the reported {self.text} cannot be a share of {n:,} samples: {below:,} of them are "
            f"{float(Fraction(below, n)):.6g} and {above:,} are {float(Fraction(above, n)):.6g}"
        )


@dataclass(frozen=True)
class Table:
    """Where the published number of a cell stands; see :func:`table`."""

    path: str
    key: Mapping[str, str | Axis]
    column: str
    unit: str
    metric: str
    note: str
    samples: int | None = None

    def look_up(self, parameters: Mapping[str, str], folder: Path) -> Number:
        """The number of the cell with ``parameters``; ``folder`` is that of the test file.

        Raises:
            CellsError: where the file, a column or a matching row is missing, or several rows match.
        """
        wanted = {column: _wanted(column, key, parameters) for column, key in self.key.items()}
        path = folder / self.path
        rows = _rows(path)
        for column in (*wanted, self.column):
            if column not in rows[0]:
                raise CellsError(unknown(f"column of {self.path}", column, rows[0]))
        found = [row for row in rows if all(row[column] == value for column, value in wanted.items())]
        if len(found) != 1:
            where = ", ".join(f"{column}={value}" for column, value in wanted.items())
            raise CellsError(f"{self.path} has {len(found)} rows with {where}; exactly one is needed")
        source = f"{self.path}: {', '.join(wanted.values())}: {self.column}"
        number = _number(found[0][self.column], self.unit, source, self.note, self.metric)
        return replace(number, samples=self.samples)


def axis(name: str, values: Mapping[str, str] | None = None) -> Axis:
    """The key of a table row taken from the cell's parameter ``name``, translated through ``values`` if given."""
    return Axis(name, dict(values or {}))


def table(
    path: str,
    *,
    key: Mapping[str, str | Axis],
    column: str,
    unit: str = "percent",
    metric: str = "robust_accuracy",
    note: str = "",
    samples: int | None = None,
) -> Table:
    """The published number of a cell: ``column`` of the row of a CSV file that matches ``key``.

    ``path`` is relative to the test file. ``unit`` is "percent" or "fraction". ``metric`` is the quantity of the
    pruned model with which the number is compared. ``note`` is shown beside it, such as "another data set".
    ``samples`` is on how many samples the publication says it was measured: a number that is no share of so many is
    flagged, and supports nothing.

    Raises:
        CellsError: for an unknown unit or a number of samples that is none, at once; for the table itself when pytest
            collects the test.
    """
    if unit not in ("percent", "fraction"):
        raise CellsError(unknown("unit", unit, ("percent", "fraction")))
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise CellsError(f"samples={samples!r} of a reported table is not a whole number of at least 1")
    if samples is not None and metric not in SHARES:
        raise CellsError(
            f"samples={samples} of a reported table: {metric} is no share of samples ({', '.join(SHARES)})"
        )
    return Table(path, dict(key), column, unit, metric, note, samples)


def _wanted(column: str, key: str | Axis, parameters: Mapping[str, str]) -> str:
    if isinstance(key, str):
        return key
    if key.name not in parameters:
        raise CellsError(f"reported key {column!r} asks for the axis {key.name!r}, which the grid does not have")
    value = parameters[key.name]
    if key.values and value not in key.values:
        raise CellsError(unknown(f"{key.name} in the reported key {column!r}", value, key.values))
    return key.values.get(value, value)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise CellsError(f"there is no reported table {path.name!r} beside the test file")
    if path.stat().st_size > TABLE_BYTES:
        raise CellsError(f"{path.name} is larger than {TABLE_BYTES} bytes: it is no printed table")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (csv.Error, UnicodeDecodeError) as error:
        raise CellsError(f"{path.name} is no table of comma-separated values in UTF-8: {error}") from None
    if len(set(columns)) != len(columns):
        raise CellsError(f"{path.name} has two columns of one name: {', '.join(columns)}")
    if not rows or any(None in row or None in row.values() for row in rows):
        raise CellsError(f"{path.name} is empty or has rows of different lengths")
    return rows


def _number(text: str, unit: str, source: str, note: str, metric: str) -> Number:
    try:
        printed = Decimal(text.strip().replace("\N{MINUS SIGN}", "-"))
        if not printed.is_finite() or len(text) > NUMBER_LENGTH or abs(printed.adjusted()) > LARGEST_EXPONENT:
            raise InvalidOperation
    except InvalidOperation:
        raise CellsError(f"{source} holds {text!r}, which is no number") from None
    scale = Fraction(1, 100) if unit == "percent" else Fraction(1)
    half = Fraction(10) ** int(printed.as_tuple().exponent) / 2
    value = Fraction(printed)
    return Number(text, value * scale, (value - half) * scale, (value + half) * scale, source, note, metric)
