"""What can make a run end well without its claims: ``prunerob verify`` is not fooled by any of it.

The suite is run once as it should be and locked. Then one thing goes wrong, the same command is given again, and what
it leaves behind is verified. In most of these pytest itself exits with 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.cli import main
from tests.plugin.conftest import HEADER, Suite

HONEST = """
@cells()
def test_first(pruned):
    assert pruned.robust_accuracy(P) >= 0.5

@cells()
def test_second(dense):
    assert dense.robust_accuracy(P) >= 0.75
"""

Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def verify(suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> Verify:
    """The honest run, locked; ``verify(*arguments)`` is the exit code and output for the results as they are then."""
    honest = suite(HONEST)
    assert honest.ret == 0
    capsys.readouterr()
    assert main(["lock", str(honest.path)]) == 0
    lock = pytester.path / "claims.lock"
    lock.write_text(capsys.readouterr().out)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["verify", str(honest.path), "--lock", str(lock), *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert run()[0] == 0
    return run


def wrong(body: str, name: str = "test_second", decorator: str = "") -> str:
    """The suite in which the second test has another ``body``."""
    first, _, _ = HONEST.partition("\n@cells()\ndef test_second")
    return f"{first}\n{decorator}\n@cells()\ndef {name}(dense):\n    {body}\n"


def test_24_os_exit_zero_fails_verify(suite: Suite, verify: Verify) -> None:
    run = suite(wrong("os._exit(0)"), subprocess=True)
    assert run.ret == 0
    assert run.results["status"] == "running"
    assert verify() == (1, "✗ the run is running\n2 locked claims: 1 deviation from the lock\n")


def test_24_a_crashed_worker_fails_verify(suite: Suite, verify: Verify) -> None:
    run = suite(wrong("os._exit(0)"), "-n", "1", "--max-worker-restart=0")
    assert run.ret == 1
    assert run.statuses["test_second"] == "crashed"
    code, out = verify()
    assert code == 1
    assert "✗ the run is incomplete" in out
    assert "✗ test_suite.py::test_second[cell]#1 was not judged" in out


def test_24_pytest_exit_zero_fails_verify(suite: Suite, verify: Verify) -> None:
    run = suite(wrong("pytest.exit('done', returncode=0)"))
    assert run.results["selection"]["stopped_early"]
    assert run.statuses["test_second"] == "not evaluated"
    code, out = verify()
    assert code == 1
    assert "test_second[cell]#1 was not judged" in out


@pytest.mark.parametrize(
    ("decorator", "body"),
    [
        ("@pytest.mark.skip", "pass"),
        ("", "pytest.skip('no GPU here')"),
        ("@pytest.mark.skipif(True, reason='r')", "pass"),
    ],
)
def test_24_a_skipped_claim_fails_verify(suite: Suite, verify: Verify, decorator: str, body: str) -> None:
    run = suite(wrong(body, decorator=decorator))
    assert run.ret == 0
    assert run.results["status"] == "complete"
    assert verify() == (
        1,
        "✗ test_suite.py::test_second[cell]#1 was not judged\n2 locked claims: 1 deviation from the lock\n",
    )


@pytest.mark.parametrize("arguments", [("-k", "first"), ("--deselect", "test_suite.py::test_second")])
def test_24_a_claim_that_is_not_selected_fails_verify(suite: Suite, verify: Verify, arguments: tuple[str, ...]) -> None:
    run = suite(HONEST, *arguments)
    assert run.ret == 0
    assert run.results["selection"]["deselected"] == 1
    code, out = verify()
    assert code == 1
    assert "test_second[cell]#1 was not judged" in out


def test_24_an_undecided_claim_that_is_only_skipped_fails_verify(suite: Suite, verify: Verify) -> None:
    undecided = wrong("assert flips(dense, dense).auc_s10(by=fmn(steps=2)) >= 0.6")
    run = suite(undecided, "--prunerob-inconclusive=skip")
    assert run.ret == 0
    code, out = verify()
    assert code == 1
    assert "test_second[cell]#1 claims 'flips(" in out


def test_24_asserts_removed_by_python_fail_verify(
    suite: Suite, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``python -O`` an assert statement is no code: a claim that nothing judges fails its test."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    run = suite(HONEST, "--assert=plain", subprocess=True)
    assert run.ret == 1
    assert run.statuses == {"test_first": "failed", "test_second": "failed"}
    code, out = verify()
    assert code == 1
    assert "test_second[cell]#1 was not judged" in out


def test_24_an_absent_plugin_fails_verify(suite: Suite, pytester: pytest.Pytester, verify: Verify) -> None:
    path = pytester.path / "results.json"
    without = ("-p", "no:prunerob")
    assert pytester.runpytest_inprocess(*without, f"--prunerob-results={path}").ret == 4  # the option is unknown
    path.unlink()
    pytester.makepyfile(test_suite=HEADER + "def test_it():\n    pass\n")
    assert pytester.runpytest_inprocess(*without).ret == 0
    code, out = verify()
    assert code == 4
    assert "no such file" in out


def aged(path: Path, **fields: Any) -> None:
    document = json.loads(path.read_text())
    document.update(fields)
    path.write_text(json.dumps(document))


def test_24_a_stale_results_file_fails_verify(pytester: pytest.Pytester, verify: Verify) -> None:
    """A job that ends before the plugin is there leaves the file of the last one: by itself it looks as it should."""
    path = pytester.path / "results.json"
    assert verify("--max-age", "10m")[0] == 0
    aged(path, started="2026-01-01T00:00:00+00:00")
    assert verify()[0] == 0
    code, out = verify("--max-age", "10m")
    assert code == 1
    assert "✗ the run began on 2026-01-01T00:00:00+00:00" in out
    aged(path, started="2999-01-01T00:00:00+00:00")
    code, out = verify("--max-age", "10m")
    assert code == 1
    assert "ahead of this machine's clock" in out


def test_24_results_of_another_revision_fail_verify(
    suite: Suite, pytester: pytest.Pytester, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    pytester.makefile("", **{".gitignore": "*\n!*.py\n"})
    for command in ("init -q", "add -A", "commit -q -m one"):
        assert pytester.run("git", *command.split(" ", 4)).ret == 0
    first = pytester.run("git", "rev-parse", "HEAD").outlines[0]
    assert suite(HONEST).ret == 0
    assert verify("--revision", first)[0] == 0
    assert pytester.run("git", "commit", "-q", "--allow-empty", "-m", "two").ret == 0
    second = pytester.run("git", "rev-parse", "HEAD").outlines[0]
    code, out = verify("--revision", second)
    assert code == 1
    assert f"✗ the run is of revision {first}, expected {second}" in out
    (pytester.path / "test_more.py").write_text("")
    assert suite(HONEST).ret == 0
    code, out = verify("--revision", second)
    assert code == 1
    assert "with changes that are not committed" in out


def test_24_a_verdict_written_by_hand_fails_verify(suite: Suite, pytester: pytest.Pytester, verify: Verify) -> None:
    """Results are not signed; but a verdict alone does not carry: margin, outcome and counts contradict it."""
    path = pytester.path / "results.json"
    conftest = pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("return classifier(4)", "return classifier(1)"))
    assert suite(HONEST).ret == 1
    document = json.loads(path.read_text())
    (claim,) = (claim for claim in document["claims"] if "test_second" in claim["id"])
    assert claim["verdict"] == "refuted"
    assert verify()[0] == 1
    claim["verdict"] = "supported"
    path.write_text(json.dumps(document))
    code, out = verify()
    assert code == 1
    assert "it is supported with a margin of" in out
    (cell,) = (cell for cell in document["cells"] if "test_second" in cell["id"])
    cell["status"] = "passed"
    claim["margin"] = {"low": 0.0, "high": 0.0}
    for term in claim["terms"]:
        term.update(low=0.75, high=0.75, value=0.75)
    path.write_text(json.dumps(document))
    code, out = verify()
    assert code == 1
    assert "its measurement between" in out


def test_24_nothing_to_verify_fails_verify(verify: Verify, pytester: pytest.Pytester) -> None:
    path = pytester.path / "results.json"
    path.write_text("")
    assert verify()[0] == 4
    path.unlink()
    assert verify()[0] == 4
