from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import pytest_prunerob
from pytest_prunerob.plans import PLANS


def test_all_is_what_the_package_exports() -> None:
    others = [
        "Cell",
        "Dataset",
        "Model",
        "axis",
        "cells",
        "critical_strength",
        "flips",
        "latency_ratio",
        "load_reference",
        "load_state",
        "presets",
        "shrink",
        "table",
        "transfer",
        "within",
        "worst_case",
    ]
    assert pytest_prunerob.__all__ == sorted([*others, *PLANS])  # and every attack's constructor
    tree = ast.parse(Path(pytest_prunerob.__file__).read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("pytest_")]
    assert sorted(alias.name for node in imports for alias in node.names) == pytest_prunerob.__all__


@pytest.mark.parametrize("name", sorted({*pytest_prunerob.__all__} - {"presets"}))
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(pytest_prunerob, name)
    assert callable(value)
    assert value.__name__ == name
    assert value.__doc__
    assert value.__module__.startswith("pytest_prunerob.")


def test_presets_are_a_module() -> None:
    assert isinstance(pytest_prunerob.presets, ModuleType)
    assert pytest_prunerob.presets.__doc__


def test_functions_are_not_hidden_by_modules_of_their_name() -> None:
    importlib.import_module("pytest_prunerob.cells")
    from pytest_prunerob import cells

    assert isinstance(cells, FunctionType)
    with pytest.raises(AttributeError, match="module 'pytest_prunerob' has no attribute 'cell'"):
        _ = pytest_prunerob.cell  # type: ignore[attr-defined]
