"""Published numbers: a table as it was printed, and the number of one cell as an interval by its printed digits."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from pytest_prunerob.errors import CellsError, unknown

NUMBER_LENGTH = 30  # characters of a printed number (ours)
LARGEST_EXPONENT = 300  # of a printed number (ours): a giant one would fill memory
TABLE_BYTES = 1_000_000  # ours: a printed table is a few kilobytes, anything above this is the wrong file


@dataclass(frozen=True)
class Axis:
    """Looks a table's key up by a parameter of the cell: ``axis("sparsity", {"0.90": "90"})``."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Number:
    """A published number with its printed digits: 44.07 % is known to lie in [0.44065, 0.44075].

    ``metric`` names the quantity of the pruned model that it is compared with.
    """

    text: str
    value: Fraction
    low: Fraction
    high: Fraction
    source: str
    note: str
    metric: str


@dataclass(frozen=True)
class Table:
    """Where the published number of a cell stands; see :func:`table`."""

    path: str
    key: Mapping[str, str | Axis]
    column: str
    unit: str
    metric: str
    note: str

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
        return _number(found[0][self.column], self.unit, source, self.note, self.metric)


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
) -> Table:
    """The published number of a cell: ``column`` of the row of a CSV file that matches ``key``.

    ``path`` is relative to the test file. ``unit`` is "percent" or "fraction". ``metric`` is the quantity of the
    pruned model with which the number is compared. ``note`` is shown beside it, such as "another data set".

    Raises:
        CellsError: for an unknown unit, at once; for the table itself when pytest collects the test.
    """
    if unit not in ("percent", "fraction"):
        raise CellsError(unknown("unit", unit, ("percent", "fraction")))
    return Table(path, dict(key), column, unit, metric, note)


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
