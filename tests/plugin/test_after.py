"""What follows pruning, as a grid names it: a typo and a missing training are one sentence at collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            "network='cnn', training='standard', after='scratch-f'",
            "test_suite.py: unknown after 'scratch-f': allowed are adversarial-retraining, *; "
            "did you mean 'scratch-*'[?]",
        ),
        (
            "dense='made:dense', after='bn-recalibration'",
            "test_suite.py: bn-recalibration needs training samples and a training: write cells(dataset=..., "
            "training='standard') beside it",
        ),
    ],
)
def test_a_scheme_that_does_not_fit_stops_the_collection(
    given: str, sentence: str, suite: Suite, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("")
    run = suite(
        f"@cells(dataset='digits', method='filter-l1', sparsity='0.5', {given})\n"
        "def test_it(pruned):\n    assert pruned.accuracy() >= 0.5\n"
    )
    assert run.ret == 2
    run.result.stdout.fnmatch_lines([sentence])
    assert "Traceback" not in run.all


def test_what_compression_reached_stands_in_the_results(suite: Suite, pytester: pytest.Pytester) -> None:
    """A local method leaves every layer a filter: two of three go where all are asked for."""
    pytester.makeconftest(
        "import pytest\nfrom torch import nn\n\n"
        "@pytest.fixture\ndef dense_model():\n"
        "    return nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten(), nn.Linear(3, 10)).eval()\n"
    )
    run = suite(
        "@cells(dataset='digits', method='filter-local-magnitude', sparsity='0.99', samples=20)\n"
        "def test_it(dense, pruned):\n"
        "    assert pruned.sparsity('filters') >= 0.66\n"
        "    assert dense.sparsity('filters') <= 0\n"
    )
    assert run.ret == 0
    (cell,) = run.results["cells"]
    assert cell["compression"] == {"unit": "filters", "requested": 0.99, "gone": 2, "total": 3}


def test_another_method_does_not_inherit_the_iterations_of_the_cell(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import pytest\nfrom pytest_prunerob.models import Builder\nfrom torch import nn\n\n"
        "@pytest.fixture(autouse=True)\ndef no_training(monkeypatch):\n"
        "    small = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten(), nn.Linear(3, 10)).eval()\n"
        "    monkeypatch.setattr(Builder, 'dense', lambda self, cell: small)\n"
        "    monkeypatch.setattr(Builder, 'pruned', lambda _, cell, dense: small if cell.iterations is None else 1)\n"
    )
    run = suite(
        "@cells(dataset='digits', network='cnn', training='standard', method='nncf-l1', sparsity='0.5', iterations=2,\n"
        "       samples=20)\n"
        "def test_it(build_model):\n"
        "    assert build_model(method='global-magnitude').sparsity() <= 0\n"
    )
    assert run.ret == 0
