"""Nothing that is read is ever run: the package calls neither ``eval`` nor an unpickler."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_prunerob

ROOT = Path(pytest_prunerob.__file__).parent
FORBIDDEN = {"eval", "exec", "compile", "execfile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler"}
FORBIDDEN |= {"marshal.loads", "marshal.load", "shelve.open", "yaml.load", "os.system", "os.popen", "joblib.load"}
# What may be called only with this argument.
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def bad_calls(source: str) -> list[str]:
    """The calls in ``source`` that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        wanted = NEEDED.get(name)
        if name in FORBIDDEN or given.get("shell") or (wanted is not None and given.get(wanted[0]) is not wanted[1]):
            found.append(f"{node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_outside_no_module_runs_what_it_reads(path: Path) -> None:
    assert bad_calls(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)",
        "pickle.loads(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "run(x, shell=True)",
    ],
)
def test_outside_the_search_finds_such_calls(line: str) -> None:
    assert len(bad_calls(line)) == 1


def test_outside_the_search_lets_the_safe_ones_be() -> None:
    assert bad_calls("torch.load(x, weights_only=True)\nnp.load(x, allow_pickle=False)\nast.parse(x)") == []
