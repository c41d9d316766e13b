"""A claims file from a stranger: it runs no code, leaves its folder nowhere, and cannot be too large to refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_prunerob.cells import ATTRIBUTE
from pytest_prunerob.claims_file import read
from pytest_prunerob.errors import CellsError, ClaimsFileError

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

PLAN = "[plans.p]\nattack = 'fgsm'\nnorm = 'linf'\neps = {}\n"
CLAIM = "[[claims]]\nname = '{}'\nclaim = \"{}\"\n"
CELLS = CLAIM.format("it", "pruned.accuracy() >= 0.5") + "[claims.cells]\n{}\n"

CODE = {
    "callable": CELLS.format("dense = 'evil:make'"),
    "callable of a profile": CELLS.format("profiles = { a = { pruned = 'evil:make' } }"),
    "callable like a program": CELLS.format("dense = 'evil:make.pt2'"),
    "import": CLAIM.format("it", "__import__('evil').make() >= 0.5"),
    "import by method": CLAIM.format("it", "pruned.accuracy.__globals__() >= 0.5"),
    "lambda": CLAIM.format("it", "(lambda: __import__('evil'))() >= 0.5"),
    "plan by path": CLAIM.format("it", "pruned.robust_accuracy(evil.make()) >= 0.5"),
    "hook": CLAIM.format("pytest_generate_tests", "pruned.accuracy() >= 0.5"),
    "plugins": CLAIM.format("pytest_plugins", "pruned.accuracy() >= 0.5"),
    "attack": "[plans.p]\nattack = 'evil.make'\n" + CLAIM.format("it", "pruned.accuracy() >= 0.5"),
}
PATHS = {
    "dense": "dense = '../outside.pt2'",
    "pruned in a list": "pruned = ['a.pt2', 'x/../../outside.pt2']",
    "absolute": "dense = '{folder}/outside.pt2'",
    "dataset": "dataset = 'npz:../outside.npz'",
    "folder": "dataset = 'folder:../outside'",
    "folder, absolute": "dataset = ['digits', 'folder:{folder}/outside']",
    "torchvision": "dataset = 'torchvision:MNIST@../outside'",
    "dataset of a profile": "profiles = {{ a = {{ dataset = 'npz:{folder}/outside.npz' }} }}",
    "table": "reported = {{ path = '../outside.csv', key = {{}}, column = 'aa' }}",
    "table, absolute": "reported = {{ path = '{folder}/outside.csv', key = {{}}, column = 'aa' }}",
}
BOMBS = {
    "giant eps": PLAN.format("1e999999999"),
    "tiny eps": PLAN.format("'1e-999999999'"),
    "giant sparsity": CELLS.format("sparsity = 1e-999999999"),
    "giant grid": CELLS.format(
        "\n".join(f"{axis} = {[str(n) for n in range(99)]}" for axis in ("method", "network", "training"))
    ),
    "giant number": CELLS.format(f"seed = {'9' * 5000}"),
    "deep lists": f"x = {'[' * 20_000}",
    "deep tables": f"x = {'{x=' * 20_000}",
    "long key": f"{'x.' * 20_000}x = 1",
    "long header": f"[{'x.' * 20_000}x]",
    "deep claim": CLAIM.format("it", "(" * 900 + "1" + ")" * 900 + " <= 1"),
    "signs": CLAIM.format("it", "-" * 1900 + "1 <= 1"),
    "large file": "#" * 1_000_001,
    "many claims": "".join(CLAIM.format(f"c{n}", "pruned.accuracy() >= 0.5") for n in range(1001)),
    "no text": "\x00",
}


@pytest.fixture
def refused(suite: Suite, pytester: pytest.Pytester) -> object:
    """Run the file and make sure that it stops the run with one sentence and leaves no trace."""

    def run(toml: str) -> str:
        (pytester.path / "evil.py").write_text("open('executed', 'w').close()\ndef make(): raise SystemExit(0)\n")
        (pytester.path / "a.claims.toml").write_text(toml)
        done = suite(None, "-p", "no:cacheprovider", "-o", "pythonpath=.")
        assert done.ret == pytest.ExitCode.INTERRUPTED
        assert not (pytester.path / "executed").exists()
        assert done.results["status"] == "incomplete"
        assert "Traceback" not in done.all
        (line,) = (line for line in done.result.outlines if line.startswith("a.claims.toml:"))
        return line

    return run


@pytest.mark.parametrize("toml", CODE.values(), ids=CODE)
def test_outside_a_claims_file_runs_no_code(refused, toml: str) -> None:  # type: ignore[no-untyped-def]
    assert refused(toml)


@pytest.mark.parametrize("line", PATHS.values(), ids=PATHS)
def test_outside_paths_stay_inside(refused, pytester: pytest.Pytester, line: str) -> None:  # type: ignore[no-untyped-def]
    for name in ("outside.pt2", "outside.npz", "outside.csv"):
        (pytester.path.parent / name).write_text("aa\n50.0\n")
    line = line.format(folder=pytester.path.parent)
    sentence = refused(CELLS.format(line))
    assert sentence.endswith("a path of a claims file stays inside the project, without '..'")


@pytest.mark.parametrize("toml", BOMBS.values(), ids=BOMBS)
def test_outside_what_is_too_large_is_refused(toml: str) -> None:
    with pytest.raises((ClaimsFileError, CellsError)) as caught:  # noqa: PT012 (either step may refuse)
        for claim in read(toml.encode(), "a.claims.toml"):
            getattr(claim.cells(lambda: None), ATTRIBUTE).expand()
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
