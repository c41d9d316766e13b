"""A test file can use every row of the catalogue: on the digits network, and on a public CIFAR-10 ResNet-18."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob.attacks import ATTACKS
from tests.suites.conftest import ROOT, Run

SUITE = '''
import pytest
import torch
from pytest_prunerob import cells, corruption, occlusion, transfer
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.plans.examples import example
{models}
EPS = {{"linf": "0.5", "l2": "10", "l1": "20", "l0": "40"}}
SHORT = {{"steps": {steps}, "restarts": 1, "queries": 10 * {steps}, "targets": 2, "binary_search_steps": 4, "exits": 2,
         "rounds": 2, "coordinates": 64, "search_steps": 2, "attacker": "fgsm"}}
CW = {{"initial_const": "10", "step_size": "1/10"}}
MORE = {{"cw-l2": CW, "cw-linf": CW, "cw-l0": CW}}
ONE = 1 / {samples}  # at least one sample is broken


class Exits(torch.nn.Module):
    """A network that can be left early."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

    def exits(self, x):
        return [self.inner(x) / 2, self.inner(x)]


@pytest.fixture
def dense_model({given}):
    return Exits({network}).eval()


def every(kind):
    return [(name, norm) for name, attack in ATTACKS.items() if attack.kind == kind for norm in attack.norms]


def short(attack, norm):
    plan = example(attack, norm, EPS.get(norm, ""))
    few = {{name: value for name, value in SHORT.items() if name in dict(plan.stages[0].params)}}
    return plan.of((plan.stages[0].changed(**few, **MORE.get(attack, {{}})),))


@pytest.mark.parametrize(("attack", "norm"), every("fixed"))
@cells({grid})
def test_at_fixed_eps(dense, attack, norm):
    plan = short(attack, norm)
    assert dense.robust_accuracy(plan) <= dense.accuracy() - ONE
    assert 0 <= float(dense.accuracy_under(plan)) <= 1


@pytest.mark.parametrize(("attack", "norm"), every("minimum"))
@cells({grid})
def test_smallest_distance(dense, attack, norm):
    plan = short(attack, norm)
    assert dense.distance(plan).failed() <= 0.5
    curve = dense.security_curve(plan, eps=["0.000001", "5000"])
    assert curve.at("5000") <= dense.accuracy() - ONE


@cells({grid})
def test_corruptions(dense):
    assert dense.corruption_accuracy("gaussian_noise", 5) <= 1
    assert float(dense.accuracy_under(corruption("brightness", 2))) <= 1
    assert float(dense.accuracy_under(occlusion(4))) <= 1


@cells({grid})
def test_clever(dense):
    score = dense.clever(norm="l2", radius="1", batches=10, batch_size=4)
    assert score <= 100
    assert float(score) > 0


@cells({grid})
def test_transfer(dense, make_subject, dense_model):
    other = make_subject(dense_model.inner, "other")
    assert transfer(dense, other, example("pgd", "linf", EPS["linf"])) <= 1 - ONE
'''
DIGITS = {
    "models": "",
    "given": "dense_model",
    "network": "dense_model",
    "grid": 'dataset="digits", network="cnn", training="standard", samples=8',
    "samples": "8",
    "steps": "20",
}
CIFAR = {
    "models": "from fixtures.cifar_resnet18 import dataset, load_model",
    "given": "",
    "network": "load_model()",
    "grid": "samples=2",
    "samples": "2",
    "steps": "5",
}


def results(run: Run, folder: Path, **parts: str) -> dict[str, Any]:
    (folder / "test_catalogue.py").write_text(SUITE.format(**parts))
    file = folder / "results.json"
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_catalogue.py", f"--prunerob-results={file}",
        f"--prunerob-store={ROOT / '.prunerob'}", cwd=folder)  # fmt: skip
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def measured(found: dict[str, Any]) -> set[str]:
    """The attacks that really ran: their stages forwarded samples."""
    stages = (stage for measurement in found["measurements"].values() for stage in measurement["stages"])
    return {stage["name"] for stage in stages if stage["cost"]["forward"]}


def test_every_attack_works_on_the_digits_network(run: Run, tmp_path: Path) -> None:
    found = results(run, tmp_path, **DIGITS)
    assert measured(found) >= ATTACKS.keys()


@pytest.mark.slow
def test_every_attack_works_on_a_public_resnet(run: Run, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(f"import sys\n\nsys.path.insert(0, {str(ROOT)!r})\n")
    found = results(run, tmp_path, **CIFAR)
    assert measured(found) >= ATTACKS.keys()
