from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.report.results import read
from tests.suites.conftest import ROOT, Run

SUITE = "robustness_suites/quickstart"
CLAIMS = 11


def _make_line() -> list[str]:
    """What ``make quickstart`` runs, without the interpreter."""
    plan = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/installed", "quickstart"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = re.findall(r"python (-m pytest .*?)\n(?=echo)", plan.stdout.replace("\\\n", " "), flags=re.DOTALL)
    return shlex.split(line)


def test_the_quickstart_comes_out_as_its_suite_expects_and_a_second_run_measures_nothing(
    run: Run, tmp_path: Path
) -> None:
    arguments = _make_line()
    (ROOT / "reports" / "quickstart").mkdir(parents=True, exist_ok=True)
    run(*arguments)
    results = read(ROOT / "reports" / "quickstart" / "results.json")
    assert results["status"] == "complete"
    assert len(results["claims"]) == CLAIMS
    assert [c["id"] for c in results["claims"] if c["verdict"] != c["expected"]] == []
    assert sum(c["verdict"] == "refuted" for c in results["claims"]) == 1
    assert all(c["verdict"] != "supported" or c["n"] in (0, 200) or "auc" in c["text"] for c in results["claims"])
    report = (ROOT / "reports" / "quickstart" / "report.html").read_text()
    for claim in results["claims"]:
        assert claim["id"] in report

    shutil.copy(ROOT / "reports" / "quickstart" / "results.json", tmp_path / "first.json")
    run(*arguments)
    again = read(ROOT / "reports" / "quickstart" / "results.json")
    assert again["cost"]["backward"] == 0
    assert again["cost"]["forward"] <= 2 * 64 * len(again["subjects"])  # the probes, in each of two workers
    for before, after in zip(results["claims"], again["claims"], strict=True):
        assert (before["id"], before["verdict"]) == (after["id"], after["verdict"])
        # A claim that was decided early may know more by now, because another claim went on with the same ledger.
        assert before["margin"]["low"] <= after["margin"]["low"] <= after["margin"]["high"] <= before["margin"]["high"]


def test_a_quickstart_run_can_be_locked_and_verified(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    run("-m", "pytest", SUITE, "-q", f"--prunerob-results={results}", "-n", "2", "--dist", "worksteal")
    assert main(["lock", str(results)]) == 0
    (tmp_path / "claims.lock").write_text(capsys.readouterr().out)
    assert main(["verify", str(results), "--lock", str(tmp_path / "claims.lock")]) == 0
    run("-m", "pytest", SUITE, "-q", f"--prunerob-results={results}", "-k", "sparsity")
    assert main(["verify", str(results), "--lock", str(tmp_path / "claims.lock")]) == 1
    assert "was not judged" in capsys.readouterr().out
