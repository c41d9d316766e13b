"""docs/ci.md: every command in it exists as written, and the chain from GPU job to gate holds."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_prunerob import cli
from pytest_prunerob.commands import COMMANDS
from pytest_prunerob.plugin.options import _OPTIONS

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> list[list[str]]:
    """The commands of a page's code blocks, without what a shell does with them."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```(?:yaml|console)\n(.*?)```", text, flags=re.DOTALL)).splitlines()
    found = [re.search(r"(?:- run: |^ *- |^\$ )((?:prunerob|pytest) .*)", line) for line in lines]
    bare = [re.split(r" > | >> | \|\| ", match[1])[0] for match in found if match]
    return [shlex.split(re.sub(r"\$\{\{[^}]*\}\}", "part", line).replace("*", "a")) for line in bare]


RECIPES = commands("ci.md")


def test_all_commands_of_the_recipes_are_found() -> None:
    assert len(RECIPES) == len(
        re.findall(r"^(?:.*- run: | *- |\$ )(?:prunerob|pytest) ", (DOCS / "ci.md").read_text(), re.M)
    )
    assert {recipe[1] for recipe in RECIPES if recipe[0] == "prunerob"} == {
        "diff", "lock", "merge", "report", "store", "verify"
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: " ".join(recipe)[:60])
def test_every_command_of_the_recipes_can_be_given(recipe: list[str]) -> None:
    if recipe[0] == "prunerob":
        parser = argparse.ArgumentParser(exit_on_error=False)
        COMMANDS[recipe[1]].add_arguments(parser)
        parser.parse_args(recipe[2:])
    else:
        options = {word.partition("=")[0] for word in recipe if word.startswith("--prunerob")}
        assert options <= {f"--prunerob-{option.name}" for option in _OPTIONS}


def test_every_command_has_its_exit_codes() -> None:
    rows = [line for line in (DOCS / "exit_codes.md").read_text().splitlines() if line.startswith("| `prunerob")]
    assert set(COMMANDS) <= {row.split("`")[1].split(" ")[1] for row in rows}


def test_what_one_job_measured_another_judges(
    suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pytester.path)

    def prunerob(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(arguments) == 0
        return capsys.readouterr().out

    claims = """
        @cells()
        def test_keeps_accuracy(pruned):
            assert pruned.accuracy() >= 0.9

        @cells()
        def test_keeps_robustness(dense, pruned):
            assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.3
        """
    measured = suite(claims, "--prunerob-store=gpu")
    assert measured.ret == 0
    Path("claims.lock").write_text(prunerob("lock", "results.json"))
    prunerob("store", "export", "--store=gpu", "handover")
    gate = ("--prunerob-store=cpu", "--prunerob-store-mode=ro")
    missing = suite(None, *gate)
    assert missing.ret == 1
    assert "is not in the store" in missing.out
    prunerob("store", "import", "--store=cpu", "handover")
    judged = suite(None, *gate)
    assert judged.ret == 0
    assert judged.results["cost"]["backward"] == 0
    assert "2 locked claims: as locked" in prunerob("verify", "results.json", "--lock=claims.lock", "--max-age=1h")
    parts = []
    for part in ("keeps_accuracy", "keeps_robustness"):
        run = suite(None, *gate, "-k", part)
        assert run.ret == 0
        parts.append(f"results-{part}.json")
        run.path.rename(parts[-1])
    Path("results.json").write_text(prunerob("merge", *parts))
    assert "2 locked claims: as locked" in prunerob("verify", "results.json", "--lock=claims.lock", "--max-age=1h")
    assert cli.main(["verify", parts[0], "--lock=claims.lock"]) == 1
    assert prunerob("diff", "results.json", "results.json", "--store=cpu") == "nothing changed\n"
    assert json.loads(Path("results.json").read_text())["status"] == "complete"
