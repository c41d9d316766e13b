"""What is fuzzed without torch: each function takes any input and lets nothing out but a crash.

``test_torch_free.py`` drives them with hypothesis, ``atheris_run.py`` with atheris.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_prunerob import autoattack, fmn
from pytest_prunerob.cells import ATTRIBUTE
from pytest_prunerob.claims_file import read
from pytest_prunerob.errors import CellsError, ClaimsFileError, GrammarError, ResultsError
from pytest_prunerob.grammar import parse
from pytest_prunerob.report import results
from pytest_prunerob.toml_places import places

DATA = Path(__file__).parents[1] / "data"
PLANS = {"aa": autoattack("standard", norm="linf", eps="8/255"), "near": fmn()}
EXPRESSIONS = (
    "pruned.robust_accuracy(aa) >= dense.robust_accuracy(aa) - 0.03",
    "within(pruned.sparsity('filters', scope='all'), -0.9 * 2, 0.001)",
    "flips.auc_s10(by=near) + reported < (1 - flips.share('S10')) * 3",
    "pruned.distance(near).quantile(0.1) >= dense.distance(near).failed()",
    "transfer(dense, target=pruned, plan=aa) >= dense.security_curve(near, '8/255') - 0.1",
)
DOCUMENT = (
    (Path(__file__).parents[2] / "docs/examples/toml_gate/release.claims.toml").read_bytes()
    + b"""
[[claims]]
name = 'all'
claim = "reported <= pruned.accuracy_under(\\"weak\\") - 0.5"
[claims.cells]
method = ["a", 'b']
sparsity = [0.5, "0.90"]
seed = [1, 2]
profiles = { paper = { sparsity = 0.99, samples = 7 } }
xfail = { "*-b" = "known" }
reported = { path = "t.csv", key = { m = { axis = "method", values = { a = "A" } }, s = "9" }, column = "c" }
[plans.weak]
attack = "pgd"
norm = "l2"
eps = 0.5
steps = 1_0
step_size = "1e-2"
random_start = true
"""
)


def grammar(text: str) -> None:
    """Read ``text`` as a claim."""
    made, error = attempt(GrammarError, parse, text, PLANS, reported=True)
    if error is not None:
        assert 0 <= error.offset <= len(text), (error.offset, text)
        assert "\n" not in str(error), text
    else:
        assert made.needs <= {"dense", "pruned", "reported"}


def toml(payload: bytes) -> None:
    """Read ``payload`` as a claims file, and make its cells."""
    claims, error = attempt(ClaimsFileError, read, payload, "f")
    assert error is None or re.fullmatch(r"f:\d+:\d+: [^\n]+", str(error)), str(error)
    for claim in claims or ():

        def test() -> None: ...

        _, error = attempt(CellsError, getattr(claim.cells(test), ATTRIBUTE).expand)
        assert "\n" not in str(error), str(error)


def toml_places(payload: bytes) -> None:
    """The places of a document are the paths that tomllib finds in it."""
    try:
        document = payload.decode().replace("\r\n", "\n")
        data = tomllib.loads(document)
    except (ValueError, RecursionError):
        return
    assert set(places(document)) == set(paths(data))


def paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path below ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in items for path in ((*at, key), *paths(item, (*at, key)))]


def results_reader(path: Path) -> None:
    """Read the file at ``path`` as results and as a lock."""
    for read_one in (results.read, results.read_lock):
        _, error = attempt(ResultsError, read_one, path)
        assert "\n" not in str(error), str(error)


def attempt(expected: type[Exception], call: Callable[..., Any], *given: Any, **more: Any) -> tuple[Any, Any]:
    """What ``call`` returns, or the expected error that it raises; any other goes through."""
    try:
        return call(*given, **more), None
    except expected as error:
        return None, error
