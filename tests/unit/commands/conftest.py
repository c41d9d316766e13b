"""The example run of tests/data, completed and with every claim as its suite expects: what a gate lets pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.report.results import read

EXAMPLE = Path(__file__).parents[2] / "data" / "results_example.json"
SUITE = "robustness_suites/quickstart/test_quickstart.py::"
PAIRED = f"{SUITE}test_pruning_keeps_robustness[digits-cnn-pgd-global-magnitude-0.50]#0"
CONTROL = f"{SUITE}test_pgd_overestimates[digits-cnn-pgd-global-magnitude-0.50]#0"

Write = Callable[[str, dict[str, Any]], Path]


@pytest.fixture
def results() -> dict[str, Any]:
    document = read(EXAMPLE)
    document["status"], document["exit_status"] = "complete", 0
    document["options"].update(decide="exact", adequacy="basic")
    document["budget"]["exhausted"] = False
    document["cells"] = [cell for cell in document["cells"] if cell["status"] in ("passed", "xfailed")]
    document["selection"]["planned"] = len(document["cells"])
    cells = {cell["id"]: cell for cell in document["cells"]}
    document["claims"] = [claim for claim in document["claims"] if claim["cell"] in cells]
    for claim in document["claims"]:  # each is a family of its own now
        claim["holm"] = claim["p_value"]
    for cell in document["cells"]:
        cell["dataset"] = {"name": "digits", "digest": "d1"}
    return document


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, document)``: the document as a file."""

    def to_file(name: str, document: dict[str, Any]) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(document))
        return path

    return to_file


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prunerob(capsys: pytest.CaptureFixture[str]) -> Command:
    """``prunerob(*arguments)``: exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def entry(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The claim or cell whose id is ``name``."""
    (found,) = (document for document in documents if document["id"] == name)
    return found
