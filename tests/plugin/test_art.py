"""Attacks of the extra "art" in a run: what a user sees of them, with the library and without it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# The dense model adds up all 16 pixels: two that go to the end of the box outweigh samples near the grey.
JSMA = """
from pytest_prunerob import jsma

@cells()
def test_low(dense):
    assert dense.robust_accuracy(jsma(eps=2)) <= 0.9

@cells()
def test_high(dense):
    assert dense.robust_accuracy(jsma(eps=2)) >= 0.05
"""


def test_breaks_count_and_survival_does_not(suite: Suite) -> None:
    run = suite(JSMA)
    assert dict(run.verdicts) == {
        "dense.robust_accuracy(jsma, l0, ε=2) <= 0.9": "supported",
        "dense.robust_accuracy(jsma, l0, ε=2) >= 0.05": "inconclusive",
    }
    assert "no attack at a fixed ε is strong enough in L0 for survival to count" in run.out
    assert "JSMA:" not in run.all  # its progress bar


def test_without_the_library_the_command_that_installs_it_is_named(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_prunerob.attacks import attack

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(attack, "version", version)
    run = suite(JSMA)
    assert run.ret == 1
    text = "jsma needs adversarial-robustness-toolbox: pip install 'pytest-prunerob[art]'"
    assert text in run.all
    run.result.assert_outcomes(failed=2)
