from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.commands import COMMANDS
from pytest_prunerob.commands.lock import lock_of
from tests.unit.commands.conftest import results as results  # the fixture


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "prunerob-results/1"}', "\x80"])
def test_what_is_no_results_file_is_one_sentence(
    content: str, results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, lock = tmp_path / "results.json", tmp_path / "claims.lock"
    lock.write_text(json.dumps(lock_of(results)))
    path.write_bytes(content.encode("latin-1"))
    assert main(["verify", str(path), "--lock", str(lock)]) == 4
    assert main(["lock", str(path)]) == 4
    error = capsys.readouterr().err
    assert error.startswith("prunerob verify: ")
    assert len(error.splitlines()) == 2


def test_missing_files_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "results.json"), "--lock", str(tmp_path / "claims.lock")]) == 4
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: prunerob {command}" in capsys.readouterr().out
