"""Inputs that are not scaled as the network expects: its accuracy is off the declared one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
from torch import nn
from pytest_prunerob import Model

class Before(nn.Module):
    def __init__(self, before, net):
        super().__init__()
        self.before, self.net = before, net

    def forward(self, z):
        return self.net(self.before(z))

def trained_on_normalised(z):
    return z * 0.25 + 0.5

def trained_on_bytes(z):
    return z / 255

def normalises(z):
    return (z - 0.5) / 0.25

@pytest.fixture
def pruned_model(pruned_model):
    net, bytes_net = Before(trained_on_normalised, pruned_model).eval(), Before(trained_on_bytes, pruned_model).eval()
    return {model}

@cells()
def test_survival(pruned):
    assert pruned.robust_accuracy(P) >= 0.1

@cells()
def test_accuracy(pruned):
    assert pruned.accuracy() >= 0

@cells()
def test_parameters(pruned):
    assert pruned.parameters() <= 100
"""


@pytest.mark.parametrize(
    "model",
    [
        "Model(Before(normalises, net).eval(), mean=0.5, std=0.25, accuracy='0.99')",
        "Model(net, accuracy='0.99')",
        "Model(bytes_net, accuracy='0.99')",
    ],
    ids=["double", "missing", "0-255"],
)
def test_07_another_normalisation_is_an_error(suite: Suite, model: str) -> None:
    run = suite(SUITE.replace("{model}", model))
    assert [verdict for _, verdict in run.verdicts] == ["error", "supported", "error"]
    assert run.statuses == {"test_survival": "failed", "test_accuracy": "failed", "test_parameters": "passed"}
    run.result.stdout.fnmatch_lines(
        [
            "reason:   pruned: 20 of 40 clean samples are classified correctly (50.0%), 99.0% accuracy was declared: "
            "check the normalisation (missing, double, 0-255), the class order and the weights"
        ]
    )


def test_07_the_right_one_is_none(suite: Suite) -> None:
    for model in ("mean=0.5, std=0.25, accuracy='0.99'", "mean=0.5, std=0.25"):
        run = suite(SUITE.replace("{model}", f"Model(net, {model})"))
        assert set(run.statuses.values()) == {"passed"}
        # What is declared is no part of the model: the second run finds the measurements of the first.
        assert (run.results["cost"]["backward"] > 0) == ("accuracy" in model)


def test_07_all_samples_are_asked(suite: Suite) -> None:
    """Half of 240 samples are far from 70 %; half of the 64 probes alone would not be."""
    run = suite(
        """
        import torch
        from pytest_prunerob import Dataset, Model

        @pytest.fixture
        def dataset(dataset):
            labels = (dataset.y.repeat(6) + torch.arange(240) % 2) % 2
            return Dataset("toy", dataset.x.repeat(6, 1, 1, 1), labels, classes=4)

        @pytest.fixture
        def pruned_model(pruned_model):
            return Model(pruned_model, accuracy="0.70")

        @cells(samples=64)
        def test_some(pruned):
            assert pruned.accuracy() <= 0.9

        @cells()
        def test_all(pruned):
            assert pruned.accuracy() <= 0.9
        """
    )
    assert run.statuses == {"test_some": "passed", "test_all": "failed"}
    run.result.stdout.fnmatch_lines(["reason:   pruned: 120 of 240 clean samples are classified correctly *"])
