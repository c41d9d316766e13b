"""docs/trust.md: every fault names tests that exist, every indicator is in its table and has a mutant."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_prunerob.adequacy import INDICATORS
from tests.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text("utf-8")
FAULTS = ROOT / "tests" / "faults"


def rows(heading: str) -> list[list[str]]:
    _, _, rest = PAGE.partition(heading)
    table = [line for line in rest.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_every_fault_names_tests_that_exist() -> None:
    faults = rows("## What is tried")
    assert [row[0] for row in faults][:32] == [str(number) for number in range(1, 33)]
    for number, _, _, tests in faults:
        named = re.findall(r"`([^`]+)`", tests)
        assert named, f"row {number} names no test"
        for name in named:
            file, _, function = name.partition("::")
            text = (FAULTS / file).read_text("utf-8")
            assert re.search(rf"^def {function}\(", text, re.MULTILINE), f"row {number}: there is no {name}"
            assert "xfail" not in text.split(f"def {function}(")[0][-200:]


def test_every_indicator_is_listed_and_has_a_mutant() -> None:
    _, _, table = PAGE.partition("| indicator |")
    listed = {n for line in table.split("\n\n")[0].splitlines() for n in re.findall(r"`([a-z-]+)`", line.split("|")[1])}
    used: set[str] = set()
    for path in sorted((ROOT / "pytest_prunerob" / "adequacy").glob("*.py")):
        text = path.read_text("utf-8")
        used |= set(re.findall(r'(?:Check|Finding|_share|_nearer|met_errors)\(\s*"([a-z-]+)"', text))
    assert used | set(INDICATORS) <= listed
    # An exception inside the model and the train mode are no forwards to leave out; "forward" is one of them.
    assert listed - {"forward"} == set(MUTANTS)
