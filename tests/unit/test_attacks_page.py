"""``docs/attacks.md`` and ``prunerob attacks`` name every attack as it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pytest_prunerob
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.cli import main
from pytest_prunerob.commands.attacks import table
from pytest_prunerob.plans import PLANS
from pytest_prunerob.plans.clever import clever
from pytest_prunerob.plans.examples import EXAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_the_table_of_the_page_is_that_of_the_catalogue() -> None:
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert shown[: len(ATTACKS) + 2] == list(table()), "write what `prunerob attacks` prints into docs/attacks.md"


def test_every_attack_has_an_example_that_gives_its_plan() -> None:
    assert EXAMPLES.keys() == ATTACKS.keys()
    for name, (text, plan) in EXAMPLES.items():
        # The texts are literals of the package; nothing else is evaluated.
        pruned = SimpleNamespace(clever=clever)  # an estimate has no plan of its own in a test
        assert eval(text, {"presets": None, "pruned": pruned, **vars(pytest_prunerob), **PLANS}) == plan, name
        assert name in [stage.attack for stage in plan.stages]


def test_every_constructor_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in PLANS if f"`{name}(" not in text] == []


def test_the_presets_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    found: dict[str, Any] = {}
    exec(block, found)  # a literal of this repository
    assert found["radii"] == (10, 15, 20, 25)
    assert found["autoattack_plus"].kind == "fixed"
    assert "bim" in capsys.readouterr().out


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attacks", "pgd", "fmn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| pgd", "| fmn"]
    assert main(["attacks", "pdg"]) == 4
    error = capsys.readouterr().err
    assert error.startswith("prunerob attacks: unknown attack 'pdg'")
    assert "did you mean 'pgd'?" in error


def test_the_command_is_installed() -> None:
    command = shutil.which("prunerob", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "attacks", "fgsm"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
