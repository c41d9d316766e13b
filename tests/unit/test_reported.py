from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from pytest_prunerob import axis, table
from pytest_prunerob.errors import CellsError
from pytest_prunerob.reported import Number


def look_up(folder: Path, text: str, *, unit: str = "percent", raw: bytes | None = None) -> Number:
    (folder / "t.csv").write_bytes(raw if raw is not None else text.encode())
    source = table("t.csv", key={"name": "a"}, column="value", unit=unit, note="another data set")
    return source.look_up({}, folder)


@pytest.mark.parametrize(
    ("printed", "unit", "low", "high"),
    [
        ("44.07", "percent", "0.44065", "0.44075"),
        ("44", "percent", "0.435", "0.445"),
        ("44.0", "percent", "0.4395", "0.4405"),
        ("0.4407", "fraction", "0.44065", "0.44075"),
        ("100.00", "percent", "0.99995", "1.00005"),
        ("-1.5", "percent", "-0.0155", "-0.0145"),
        ("\N{MINUS SIGN}1.5", "percent", "-0.0155", "-0.0145"),
        (" 0.5 ", "fraction", "0.45", "0.55"),
        ("4e-170", "fraction", "3.5e-170", "4.5e-170"),
        ("1.30E+2", "fraction", "129.5", "130.5"),
    ],
)
def test_a_number_is_an_interval_by_its_printed_digits(
    tmp_path: Path, printed: str, unit: str, low: str, high: str
) -> None:
    number = look_up(tmp_path, f"name,value\na,{printed}\n", unit=unit)
    assert (number.low, number.high) == (Fraction(low), Fraction(high))
    assert number.value == (number.low + number.high) / 2
    assert (number.text, number.source) == (printed, "t.csv: a: value")
    assert (number.note, number.metric) == ("another data set", "robust_accuracy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,value\nb,1\n", "t.csv has 0 rows with name=a; exactly one is needed"),
        ("name,value\na,1\na,1\n", "t.csv has 2 rows with name=a; exactly one is needed"),
        ("name,valve\na,1\n", "unknown column of t.csv 'value': allowed are name, valve; did you mean 'valve'?"),
        ("nome,value\na,1\n", "unknown column of t.csv 'name'"),
        ("name,value\na,1\nb\n", "t.csv is empty or has rows of different lengths"),
        ("name,value\na,1\nb,2,3\n", "t.csv is empty or has rows of different lengths"),
        ("", "t.csv is empty"),
        ("name,value\n", "t.csv is empty"),
        ("name,value,value\na,1,2\n", "t.csv has two columns of one name: name, value, value"),
        ('name,value\na,"1\n', "t.csv is no table of comma-separated values in UTF-8"),
        ("name,value\na,44%\n", "t.csv: a: value holds '44%', which is no number"),
        ("name,value\na,\n", "holds '', which is no number"),
        ("name,value\na,nan\n", "holds 'nan', which is no number"),
        ("name,value\na,inf\n", "holds 'inf', which is no number"),
        ("name,value\na,1e999999999\n", "holds '1e999999999', which is no number"),  # would fill memory
        ("name,value\na,0e-999999999\n", "holds '0e-999999999', which is no number"),
        (f"name,value\na,{'9' * 31}\n", "which is no number"),
    ],
)
def test_bad_tables_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CellsError, match=re.escape(message)):
        look_up(tmp_path, text)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(CellsError, match="no table of comma-separated values in UTF-8"):
        look_up(tmp_path, "", raw=b"name,value\na,\xff\n")
    with pytest.raises(CellsError, match="larger than 1000000 bytes"):
        look_up(tmp_path, "x" * 1_000_001)
    with pytest.raises(CellsError, match=re.escape("there is no reported table 'none.csv' beside")):
        table("none.csv", key={}, column="value").look_up({}, tmp_path)
    # Spreadsheets write a byte order mark, which is no part of the first column's name.
    assert look_up(tmp_path, "", raw=b"\xef\xbb\xbfname,value\na,1\n").value == Fraction(1, 100)


def test_keys_that_do_not_fit_the_grid(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("s,value\n90,1\n")
    with pytest.raises(CellsError, match="reported key 's' asks for the axis 'sparsity', which the grid does not have"):
        table("t.csv", key={"s": axis("sparsity")}, column="value").look_up({"method": "a"}, tmp_path)
    with pytest.raises(
        CellsError, match=re.escape("unknown sparsity in the reported key 's' '0.95': allowed are 0.90")
    ):
        table("t.csv", key={"s": axis("sparsity", {"0.90": "90"})}, column="value").look_up(
            {"sparsity": "0.95"}, tmp_path
        )
    with pytest.raises(CellsError, match=re.escape("unknown unit 'percents': allowed are fraction, percent; did you")):
        table("t.csv", key={}, column="value", unit="percents")
