"""A suite to be run by pytester: linear models whose robust accuracy is known, so that nothing has to be trained.

40 samples of class 0 and 1 stand 0.005·k (left half of the image) and 0.015·k (right half), k = 1 … 20, off the grey
0.5 on which the models change their mind. The dense model sees all pixels: its Linf margins are 0.01·k. The pruned
one sees the left half: its margins are 0.005·k. So both are right on all clean samples, and at ε = 0.0525 the dense
model keeps 30 of 40 samples and the pruned one 20 of 40, which one step of PGD from the centre finds.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.pytester import SysModulesSnapshot

import pytest_prunerob
from pytest_prunerob.report import results as results_file

CONFTEST = '''
import os
import pytest, torch
from torch import nn
from pytest_prunerob import Dataset, Model

def classifier(columns, rows=4):
    """Class 0 where the first columns of a 1x4x4 image are on average above 0.5, else class 1; two more are never."""
    weight = torch.zeros(4, 4, 4)
    weight[0, :rows, :columns] = 10 / (rows * columns)
    weight[1] = -weight[0]
    layer = nn.Linear(16, 4)
    layer.weight.data = weight.flatten(1)
    layer.bias.data = torch.tensor([-5.0, 5.0, -10.0, -10.0])
    return nn.Sequential(nn.Flatten(), layer).eval()

def samples():
    k = torch.arange(1, 21).repeat(2)
    sign = torch.tensor([1.0] * 20 + [-1.0] * 20)
    x = torch.full((40, 1, 4, 4), 0.5)
    x[..., :2] += (sign * k * 0.005)[:, None, None, None]
    x[..., 2:] += (sign * k * 0.015)[:, None, None, None]
    return x, (sign < 0).long()

@pytest.fixture
def dataset():
    return Dataset("toy", *samples(), classes=4)

@pytest.fixture
def dense_model():
    return classifier(4)

@pytest.fixture
def pruned_model():
    return classifier(2)
'''

HEADER = """
import contextlib, os, sys
import pytest
from pytest import approx
from pytest_prunerob import autoattack, cells, fgsm, flips, fmn, pgd, within

P = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False)
"""


@dataclass
class Run:
    """A finished run of a suite: pytest's result, where results.json is, and what it held."""

    result: pytest.RunResult
    path: Path
    document: dict[str, Any] | None

    @property
    def ret(self) -> int:
        return int(self.result.ret)

    @property
    def out(self) -> str:
        return self.result.stdout.str()

    @property
    def all(self) -> str:
        return self.result.stdout.str() + self.result.stderr.str()

    @property
    def results(self) -> dict[str, Any]:
        """results.json, which was as the schema wants it."""
        assert self.document is not None
        return self.document

    @property
    def statuses(self) -> dict[str, str]:
        """Status by test name."""
        return {cell["test"]: cell["status"] for cell in self.results["cells"]}

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """Text and verdict of each claim."""
        return [(claim["text"], claim["verdict"]) for claim in self.results["claims"]]


Suite = Callable[..., Run]


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Import the package here, since pytester forgets what is imported while it runs a suite in this process."""
    for module in pkgutil.walk_packages(pytest_prunerob.__path__, "pytest_prunerob."):
        importlib.import_module(module.name)


@pytest.fixture(autouse=True)
def _libraries_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytester keep installed libraries: parts of torch cannot be imported twice, and scipy takes its time."""
    restore = SysModulesSnapshot.restore

    def keeping(self: SysModulesSnapshot) -> None:
        installed = {
            name: module
            for name, module in sys.modules.items()
            if "site-packages" in (getattr(module, "__file__", None) or "")
        }
        restore(self)
        sys.modules.update(installed)

    monkeypatch.setattr(SysModulesSnapshot, "restore", keeping)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """``suite(test, *args, subprocess=False)``: write the test file beside the models above and run it."""
    pytester.makeconftest(CONFTEST)

    def run(test: str | None = None, *args: str, subprocess: bool = False, results: bool = True) -> Run:
        if test is not None:
            pytester.makepyfile(test_suite=HEADER + textwrap.dedent(test))
        path = pytester.path / "results.json"
        path.unlink(missing_ok=True)
        given = [*([f"--prunerob-results={path}"] if results else []), *args]
        result = pytester.runpytest_subprocess(*given) if subprocess else pytester.runpytest_inprocess(*given)
        return Run(result, path, results_file.read(path) if path.exists() else None)

    return run
