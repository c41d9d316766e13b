from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_prunerob import axis, table
from pytest_prunerob.cells import ATTRIBUTE, Cell, cells
from pytest_prunerob.errors import CellsError


def expand(*, profile: str | None = None, **grid: Any) -> tuple[Cell, ...]:
    def test() -> None: ...

    return getattr(cells(**grid)(test), ATTRIBUTE).expand(profile)  # type: ignore[no-any-return]


def ids(**grid: Any) -> list[str]:
    return [cell.id for cell in expand(**grid)]


def test_ids_hold_every_parameter_in_fixed_order_and_width() -> None:
    assert ids(sparsity=["0.9", 0.5, "0.995"], seed=1, method=["b", "a"], network="cnn", dataset="digits") == [
        "digits-cnn-a-s0.500-seed1",
        "digits-cnn-a-s0.900-seed1",
        "digits-cnn-a-s0.995-seed1",
        "digits-cnn-b-s0.500-seed1",
        "digits-cnn-b-s0.900-seed1",
        "digits-cnn-b-s0.995-seed1",
    ]
    assert ids(sparsity=[0.9, "0", "-0.0", np.float64(0.25)][:2]) == ["s0.00", "s0.90"]
    assert ids(sparsity=np.float64(0.25)) == ["s0.25"]
    assert ids(sparsity="-0") == ["s0.00"]
    assert ids(seed=range(8, 12)) == ["seed8", "seed9", "seed10", "seed11"]
    assert ids(pruned="my.module:make", dense="runs/dense.pt2") == ["runs_dense.pt2-my.module_make"]
    assert ids() == ["cell"]


def test_order_and_ids_do_not_depend_on_how_the_grid_was_written() -> None:
    first = expand(dataset="digits", method=["x", "y"], sparsity=["0.5", "0.9"], seed=[2, 10])
    second = expand(seed=[10, 2], sparsity=["0.90", 0.5], method=("y", "x"), dataset=["digits"])
    assert first == second
    assert len(first) == 8


names = st.text(min_size=1, max_size=70).filter(str.strip)


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.lists(names, min_size=1, max_size=4, unique=True))
def test_ids_are_unique_short_and_safe(methods: list[str], networks: list[str]) -> None:
    found = ids(method=methods, network=networks, sparsity=["0.5", "0.90"])
    assert len(found) == len(set(found)) == 2 * len(methods) * len(networks)
    assert all(re.fullmatch(r"[A-Za-z0-9._+=-]{1,100}", name) for name in found)
    assert ids(method=methods[::-1], network=networks, sparsity=["0.90", "0.5"]) == found


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sparsty": "0.9"}, "unknown name in cells(...) 'sparsty'"),
        ({"sparsty": "0.9"}, "did you mean 'sparsity'?"),
        ({"profiles": {"paper": {"methods": "a"}}}, "did you mean 'method'?"),
        ({"method": []}, "cells(method=[]) is an empty grid: give at least one value"),
        ({"method": ""}, "cells(method=...) takes names, received ''"),
        ({"method": {"a"}}, "cells(method=...) takes names, received {'a'}"),
        ({"method": ["a", 3]}, "cells(method=...) takes names, received 3"),
        ({"method": ["a", "a"]}, "cells(method=['a', 'a']) names a value twice"),
        ({"sparsity": ["0.9", 0.90]}, "names a value twice"),
        ({"sparsity": [0, "-0"]}, "names a value twice"),
        ({"sparsity": 1}, "sparsity=1 is not in [0, 1): it is the share that is removed"),
        ({"sparsity": -0.1}, "sparsity=-0.1 is not in [0, 1)"),
        ({"sparsity": "90"}, "sparsity='90' is not in [0, 1): it is the share that is removed; did you mean '0.9'?"),
        ({"sparsity": "nan"}, "sparsity='nan' is not in [0, 1)"),
        ({"sparsity": float("nan")}, "sparsity=nan is not in [0, 1)"),
        ({"sparsity": "inf"}, "sparsity='inf' is not in [0, 1)"),
        ({"sparsity": "half"}, "sparsity='half' is not a number between 0 and 1, such as '0.90'"),
        ({"sparsity": "1e-999999999"}, "sparsity='1e-999999999' has more than 20 decimal places"),  # would fill memory
        ({"sparsity": True}, "sparsity=True is not a number"),
        ({"sparsity": None}, "sparsity=None is not a number"),
        ({"seed": "1"}, "seed='1' is not a whole number of at least 0"),
        ({"seed": -1}, "seed=-1 is not a whole number"),
        ({"iterations": 0}, "iterations=0 is not a whole number of at least 1"),
        (
            {"rate": "half"},
            "rate='half' is not a number of at least 1: at rate c one c-th of the units stays, such as 4",
        ),
        ({"rate": 0.5}, "rate=0.5 is not a number of at least 1"),
        ({"rate": True}, "rate=True is not a number of at least 1"),
        ({"rate": "inf"}, "rate='inf' is not a number of at least 1"),
        ({"rate": "1e999999999"}, "rate='1e999999999' has more than 20 digits"),  # would fill memory
        ({"rate": [2, "2.0"]}, "names a value twice"),
        ({"rate": 2, "sparsity": "0.5"}, "has both sparsity and rate: one of them says how much is removed"),
        ({"samples": 0}, "samples=0 is not a whole number of at least 1 (None judges all samples)"),
        ({"samples": "9"}, "samples='9' is not a whole number"),
        ({"method": "a", "xfail": {"b*": "why"}}, "xfail pattern 'b*' matches no cell: the cells are a"),
    ],
)
def test_bad_grids_are_one_sentence(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(CellsError, match=re.escape(message)):
        expand(**grid)


def test_profiles_replace_parts_of_the_grid() -> None:
    grid: dict[str, Any] = {
        "method": "a",
        "sparsity": ["0.5", "0.9"],
        "samples": 20,
        "profiles": {"paper": {"method": ["a", "b"], "sparsity": "0.99", "samples": None}, "small": {"samples": 3}},
    }
    assert [(c.id, c.samples) for c in expand(**grid)] == [("a-s0.50", 20), ("a-s0.90", 20)]
    assert [(c.id, c.samples) for c in expand(profile="paper", **grid)] == [("a-s0.99", None), ("b-s0.99", None)]
    assert {c.samples for c in expand(profile="small", **grid)} == {3}
    with pytest.raises(CellsError, match=re.escape("unknown profile 'papr': allowed are paper, small; did you mean")):
        expand(profile="papr", **grid)
    assert [c.id for c in expand(profile="papr", method="a")] == ["a"]  # a test without profiles has nothing to switch
    with pytest.raises(CellsError, match="samples=0 is not a whole number"):
        expand(profile="x", method="a", profiles={"x": {"samples": 0}})


def test_xfail_marks_by_glob_and_the_first_match_gives_the_reason() -> None:
    found = expand(method=["a", "b"], sparsity=["0.5", "0.9"], xfail={"a-*": "one", "*-s0.90": "two"})
    assert {c.id: c.xfail for c in found} == {"a-s0.50": "one", "a-s0.90": "one", "b-s0.50": None, "b-s0.90": "two"}


def test_the_decorator_takes_one_grid_and_a_function() -> None:
    def test() -> None: ...

    assert cells(method="a")(test) is test
    with pytest.raises(CellsError, match=re.escape("test has cells(...) twice: write one grid")):
        cells(method="b")(test)
    with pytest.raises(CellsError, match="decorates test functions, not the class TestAll"):
        cells(method="a")(type("TestAll", (), {}))


def test_a_cell_gives_its_parameters_and_says_what_is_missing() -> None:
    (cell,) = expand(dataset="digits", sparsity="0.90", reported=(reported := table("t.csv", key={}, column="c")))
    assert (cell.dataset, cell.sparsity, cell.seed) == ("digits", Fraction(9, 10), 0)
    assert cell.reported is reported
    with pytest.raises(CellsError, match=re.escape("'digits-s0.90' has no 'method': write cells(method=...)")):
        _ = cell.method


def test_a_rate_says_how_much_is_removed() -> None:
    assert ids(method="a", rate=[2, "2.50", 4.0, 16], after=["none", "scratch-e"], iterations=3) == [
        "a-r2-k3-none",
        "a-r2-k3-scratch-e",
        "a-r2.5-k3-none",
        "a-r2.5-k3-scratch-e",
        "a-r4-k3-none",
        "a-r4-k3-scratch-e",
        "a-r16-k3-none",
        "a-r16-k3-scratch-e",
    ]
    (cell,) = expand(method="a", rate="2.5", iterations=3)
    assert (cell.sparsity, cell.amount_text, cell.iterations) == (Fraction(3, 5), "rate 2.5", 3)
    (plain,) = expand(method="a", sparsity="0.9")
    assert (plain.amount_text, plain.iterations) == ("0.90", None)
    # One of the two ways to say it replaces the other.
    keep = ("method", "sparsity", "rate", "iterations")
    assert dict(cell.another({"sparsity": "0.5"}, keep).parameters) == {
        "method": "a",
        "sparsity": "0.50",
        "iterations": "3",
    }
    assert cell.another({"method": "b"}, keep).id == "b-r2.5-k3"


def test_reported_keys_may_follow_axes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("m,s,aa\ngm,90,44.07\n")
    reported = table(
        "t.csv", key={"m": axis("method", {"a": "gm"}), "s": axis("sparsity", {"0.90": "90"})}, column="aa"
    )
    (cell,) = expand(method="a", sparsity=0.9, reported=reported)
    assert reported.look_up(cell.parameters, tmp_path).text == "44.07"
