"""``docs/compression.md``, ``prunerob compression`` and the survey name everything that there is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.commands.compression import PARTS
from pytest_prunerob.compression import AFTER, METHODS
from pytest_prunerob.networks import NETWORKS
from pytest_prunerob.training import TRAININGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compression.md").read_text()
NAMES = {"methods": METHODS, "after": AFTER, "networks": NETWORKS, "trainings": TRAININGS}


@pytest.fixture(scope="module")
def survey() -> ModuleType:
    path = ROOT / "robustness_suites" / "compression" / "test_compression.py"
    spec = importlib.util.spec_from_file_location("survey", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", PARTS)
def test_the_tables_of_the_page_are_those_of_the_catalogues(part: str) -> None:
    lines = list(PARTS[part]())
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == list(NAMES[part])
    assert "\n".join(lines) in PAGE, f"write what `prunerob compression {part}` prints into docs/compression.md"


def test_the_command_prints_one_part_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compression", "after"]) == 0
    assert capsys.readouterr().out.splitlines() == [*PARTS["after"](), ""]
    assert main(["compression"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == sum(len(names) + 3 for names in NAMES.values())
    assert main(["compression", "method"]) == 4
    assert "did you mean 'methods'?" in capsys.readouterr().err


def test_the_survey_and_the_table_have_every_method_and_scheme(survey: ModuleType) -> None:
    grids = list(survey.PROFILES.values())
    methods = [
        name for grid in grids for name in ([grid["method"]] if isinstance(grid["method"], str) else grid["method"])
    ]
    assert set(methods) == METHODS.keys()
    assert {name for grid in grids for name in grid.get("after", [])} == AFTER.keys()
    table = PAGE.split("## Robust accuracy on the digits")[1]
    assert [name for name in METHODS if f"| {name} | fine-tuning |" not in table] == []
    assert [name for name in AFTER if f"| {name} |" not in table] == []
