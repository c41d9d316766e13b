"""Every command and code block of the documents runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pytest_prunerob.claims_file import read
from tests.suites.conftest import ROOT, Run, python

STORE = f"--prunerob-store={ROOT / '.prunerob'}"


def _blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples with their checkpoints."""
    folder = tmp_path_factory.mktemp("documents") / "examples"
    shutil.copytree(ROOT / "docs" / "examples", folder, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    python("make_checkpoints.py", cwd=folder / "own_checkpoints")
    return folder


@pytest.fixture
def checkpoints(examples: Path, tmp_path: Path) -> Path:
    """The examples with their checkpoints, in a folder of their own."""
    return Path(shutil.copytree(examples, tmp_path / "examples"))


def test_the_claim_of_the_readme_and_its_commands(run: Run, tmp_path: Path) -> None:
    claim, conftest = _blocks("README.md", "python")
    (tmp_path / "test_release.py").write_text(claim)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    commands = "".join(_blocks("README.md", "console")).replace("$ ", "").splitlines()
    assert commands[:2] == ["make quickstart", "make test"]
    pytest_command, lock, verify = commands[2:]
    assert pytest_command.startswith("pytest test_release.py ")
    run("-m", *pytest_command.split(), STORE, cwd=tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    left, _, target = lock.partition(" > ")
    locked = run("-m", "pytest_prunerob.cli", *left.split()[1:], cwd=tmp_path)
    (tmp_path / target).write_text(locked.stdout)
    assert "2 locked claims: as locked" in run("-m", "pytest_prunerob.cli", *verify.split()[1:], cwd=tmp_path).stdout
    assert "Classifier" in conftest


def test_the_conftest_of_the_readme_gates_own_checkpoints(run: Run, checkpoints: Path) -> None:
    folder = checkpoints / "own_checkpoints"
    _, conftest = _blocks("README.md", "python")
    # The readme wraps only one of the two models; the network of the example returns a dictionary in both.
    conftest = conftest.replace(
        'return load_state(Classifier(), "checkpoints/dense.safetensors")',
        'return Model(load_state(Classifier(), "checkpoints/dense.safetensors"), mean=[0.3], std=[0.4], logits="out")',
    )
    (folder / "conftest.py").write_text(conftest)
    run("-m", "pytest", "-q", "-W", "error", STORE, cwd=folder)


def test_the_example_that_gates_own_checkpoints(run: Run, checkpoints: Path) -> None:
    done = run("-m", "pytest", "-q", "-W", "error", STORE, cwd=checkpoints / "own_checkpoints")
    assert "3 passed" in done.stdout


def test_the_example_that_gates_against_the_last_release(run: Run, checkpoints: Path) -> None:
    folder = checkpoints / "last_release"
    run("export.py", cwd=folder)
    done = run("-m", "pytest", "-q", "-W", "error", cwd=folder)
    assert "2 passed" in done.stdout


def test_the_example_that_gates_without_python(run: Run, checkpoints: Path) -> None:
    folder = checkpoints / "toml_gate"
    run("export.py", cwd=folder)
    done = run("-m", "pytest", "-q", "-W", "error", cwd=folder)
    assert "3 passed" in done.stdout


def test_the_claims_file_of_its_page_is_read() -> None:
    (block,) = _blocks("docs/toml_claims.md", "toml")
    assert [claim.name for claim in read(block.encode(), "page")] == [
        "pruning_keeps_robustness",
        "flipped_samples_are_on_thin_ice",
        "pgd_overestimates",
    ]


def test_the_claims_of_the_how_to_page(run: Run, tmp_path: Path) -> None:
    for number, block in enumerate(_blocks("docs/claims.md", "python")):
        (tmp_path / f"test_how_to_{number}.py").write_text(block)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert "10 passed" in run("-m", "pytest", "-q", "-W", "error", STORE, cwd=tmp_path).stdout


def test_the_claim_and_the_fixture_of_the_compression_page(run: Run, tmp_path: Path) -> None:
    claim, conftest = _blocks("docs/compression.md", "python")
    (tmp_path / "test_compression.py").write_text(claim)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert "1 passed" in run("-m", "pytest", "-q", "-W", "error", STORE, cwd=tmp_path).stdout


def test_every_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set()
    for document in ("README.md", "CONTRIBUTING.md"):
        named |= set(re.findall(r"`?\$? ?make ([a-z-]+)", (ROOT / document).read_text()))
    assert {"quickstart", "test"} <= named <= targets


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


@pytest.mark.slow
def test_the_thin_ice_suite(run: Run) -> None:
    done = run("-m", "pytest", "robustness_suites/thin_ice", "-q", "-W", "error")
    assert "3 passed" in done.stdout
