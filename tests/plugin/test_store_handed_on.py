"""The two jobs of docs/store.md: one measures and exports, the other imports and judges without measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_prunerob import cli

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
@cells()
def test_it(dense, pruned):
    assert pruned.robust_accuracy(P) >= 0.5
    assert flips(dense, pruned).share("S10") <= 0.5
"""


def test_a_second_job_judges_what_the_first_one_measured(
    suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    first = suite(SUITE)
    assert first.ret == 0
    handed, store = pytester.path / "handed", pytester.path / ".prunerob"
    assert cli.main(["store", "export", str(handed), "--store", str(store)]) == 0
    store.rename(pytester.path / "gone")
    empty = suite(None, "--prunerob-store-mode=ro")
    assert empty.ret == 1
    assert cli.main(["store", "import", str(handed), "--store", str(store)]) == 0
    second = suite(None, "--prunerob-store-mode=ro")
    assert (second.ret, second.verdicts) == (0, first.verdicts)
    assert (second.results["store"]["misses"], second.results["cost"]["backward"]) == (0, 0)
    assert cli.main(["store", "list", "--store", str(store)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert any("decide" in line and "pruned" in line and " 40 " in line and "complete" in line for line in listed)
