from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pytest_prunerob.cli import main
from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.commands.verify import deviations
from pytest_prunerob.errors import ResultsError
from pytest_prunerob.fingerprint import weights_digest
from pytest_prunerob.report.results import read

EXAMPLE = Path(__file__).parents[1] / "data" / "results_example.json"
TODAY = date(2026, 11, 21)


def _as_expected() -> dict[str, Any]:
    """The example run, completed and with every claim as its suite expects."""
    results = read(EXAMPLE)
    results["status"], results["exit_status"] = "complete", 0
    kept = [claim for claim in results["claims"] if claim["verdict"] == claim["expected"]]
    names = {claim["id"] for claim in kept}
    for cell in results["cells"]:
        cell["claims"] = [name for name in cell["claims"] if name in names]
    results["cells"] = [cell for cell in results["cells"] if cell["status"] not in ("not evaluated", "crashed")]
    cells = {cell["id"] for cell in results["cells"]}
    results["claims"] = [claim for claim in kept if claim["cell"] in cells]
    return results


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    results, lock = tmp_path / "results.json", tmp_path / "claims.lock"
    results.write_text(json.dumps(_as_expected()))
    assert main(["lock", str(results)]) == 0
    lock.write_text(capsys.readouterr().out)
    return results, lock


def test_a_run_verifies_against_its_own_lock(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    results, lock = files
    assert main(["verify", str(results), "--lock", str(lock)]) == 0
    assert "as locked" in capsys.readouterr().out


def test_every_way_of_not_coming_out_as_locked_is_a_deviation() -> None:
    results = _as_expected()
    lock = lock_of(results)
    first = results["claims"][0]
    assert deviations(results, lock, TODAY) == []

    def changed(**change: object) -> list[str]:
        other = copy.deepcopy(results)
        other["claims"][0].update(change)
        return deviations(other, lock, TODAY)

    assert changed(verdict="inconclusive") == [f"{first['id']} is inconclusive, expected {first['expected']}"]
    assert "locked is" in changed(text="pruned.accuracy() >= 0")[0]
    assert "distribution" in changed(population="distribution")[0]
    assert "confidence" in changed(confidence=0.5)[0]
    assert changed(n=5) == [f"{first['id']} is about 5 samples, locked are {first['n']}"]
    without = {**results, "claims": results["claims"][1:]}
    assert deviations(without, lock, TODAY) == [f"{first['id']} was not judged"]
    for status in ("running", "incomplete"):
        assert deviations({**results, "status": status}, lock, TODAY) == [f"the run is {status}"]


def test_a_waiver_holds_until_its_day() -> None:
    results = _as_expected()
    lock = lock_of(results)
    name = results["claims"][0]["id"]
    lock["claims"][name]["waiver"] = {"reason": "retraining is under way", "expires": "2026-11-21"}
    results["claims"][0]["verdict"] = "refuted" if results["claims"][0]["expected"] == "supported" else "supported"
    assert deviations(results, lock, date(2026, 11, 21)) == []
    (sentence,) = deviations(results, lock, date(2026, 11, 22))
    assert "its waiver expired on 2026-11-21" in sentence


def test_only_a_complete_run_that_came_out_as_expected_can_be_locked() -> None:
    results = _as_expected()
    with pytest.raises(ResultsError, match="the run is running"):
        lock_of({**results, "status": "running"})
    results["claims"][0]["verdict"] = "inconclusive"
    with pytest.raises(ResultsError, match="is inconclusive and the suite expects"):
        lock_of(results)
    with pytest.raises(ResultsError, match="no claim"):
        lock_of({**results, "claims": []})


def test_the_weights_of_a_subject_are_verified(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, lock = files
    state = {"weight": torch.arange(6.0).reshape(2, 3)}
    save_file(state, tmp_path / "model.safetensors")
    data = json.loads(results.read_text())
    for subject in data["subjects"].values():
        subject["weights"] = weights_digest(state)
    results.write_text(json.dumps(data))
    role = next(iter(data["subjects"].values()))["roles"][0]
    verify = ["verify", str(results), "--lock", str(lock), "--model"]
    assert main([*verify, f"{role}={tmp_path / 'model.safetensors'}"]) == 0
    state["weight"][0, 0] = 0.5
    save_file(state, tmp_path / "model.safetensors")
    assert main([*verify, f"{role}={tmp_path / 'model.safetensors'}"]) == 1
    capsys.readouterr()
    assert main([*verify, "prunde=x.safetensors"]) == 4
    assert "unknown subject 'prunde'" in capsys.readouterr().err
    assert main([*verify, "pruned"]) == 4
    assert "is not NAME=PATH" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "prunerob-results/1"}', "\x80"])
def test_what_is_no_results_file_is_one_sentence(
    content: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results, lock = files
    results.write_bytes(content.encode("latin-1"))
    assert main(["verify", str(results), "--lock", str(lock)]) == 4
    assert main(["lock", str(results)]) == 4
    error = capsys.readouterr().err
    assert error.startswith("prunerob verify: ")
    assert len(error.splitlines()) == 2
