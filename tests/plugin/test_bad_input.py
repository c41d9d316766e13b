"""Bad input: one sentence with the value received and what is allowed, a failing exit code, no traceback of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run, Suite

CLAIM = "def test_it(dense, pruned):\n    assert pruned.robust_accuracy(P) >= 0.5\n"
DENSE = "from torch import nn\nimport torch\n@pytest.fixture\ndef dense_model():\n    "


def grid(arguments: str) -> str:
    return f"@cells({arguments})\ndef test_it(dense, pruned):\n    assert pruned.accuracy() >= 0.5\n"


def plan(call: str) -> str:
    return f"@cells()\ndef test_it(dense, pruned):\n    assert pruned.robust_accuracy({call}) >= 0.5\n"


COLLECTION = {
    "unknown name": (grid("metod='a'"), "unknown name in cells(...) 'metod': allowed are *; did you mean 'method'?"),
    "empty grid": (grid("method=[]"), "cells(method=[]) is an empty grid: give at least one value"),
    "sparsity 1": (grid("sparsity='1'"), "sparsity='1' is not in [0, 1): it is the share that is removed"),
    "sparsity negative": (grid("sparsity='-0.5'"), "sparsity='-0.5' is not in [0, 1): *"),
    "sparsity 90": (grid("sparsity='90'"), "sparsity='90' is not in [0, 1): *; did you mean '0.9'?"),
    "sparsity a word": (grid("sparsity='half'"), "sparsity='half' is not a number between 0 and 1, such as '0.90'"),
    "samples": (grid("samples=0"), "samples=0 is not a whole number of at least 1 *"),
    "on a class": ("@cells()\nclass TestIt:\n    pass\n", "cells(...) decorates test functions, not the class TestIt"),
    "plan of the module": (
        "X = pgd(norm='linf', eps='big', steps=1, step_size=1)\n" + grid(""),
        "eps='big' is not a number: write a decimal or a fraction such as '8/255'",
    ),
}

# The own fixtures are used: no model or dataset is overridden.
NAMES = {
    "dataset": (
        "dataset='digitz'",
        "unknown dataset 'digitz': allowed are digits, folder, npz, torchvision; did you mean 'digits'?",
    ),
    "network": ("network='cmn'", "unknown network 'cmn': allowed are *; did you mean 'cnn'?"),
    "training": ("training='pdg'", "unknown training 'pdg': allowed are *; did you mean 'pgd'?"),
    "method": (
        "method='global-magnitud'",
        "unknown method 'global-magnitud': allowed are *; did you mean 'global-magnitude'?",
    ),
}

TESTS = {
    "plan unknown": (
        plan("autoattack('standrad', norm='linf', eps=0.1)"),
        "test_suite.py:9: PlanError: unknown AutoAttack version 'standrad': allowed are plus, rand, standard; "
        "did you mean 'standard'?",
    ),
    "stage unknown": (
        plan("autoattack(['apgd-c'], norm='linf', eps=0.1)"),
        "*: PlanError: unknown AutoAttack stage 'apgd-c': allowed are *; did you mean 'apgd-ce'?",
    ),
    "no plan": (plan("'standard'"), "*: ClaimError: robust_accuracy(...) takes a plan such as *, received 'standard'"),
    "plan of another kind": (plan("fmn()"), "*: ClaimError: robust_accuracy(fmn *) needs a plan with ε, *"),
    "eps no number": (
        plan("autoattack(norm='linf', eps='8/x')"),
        "*: PlanError: eps='8/x' is not a number: write a decimal or a fraction such as '8/255'",
    ),
    "eps zero": (plan("autoattack(norm='linf', eps='0')"), "*: PlanError: eps='0' is not positive"),
    "eps negative": (plan("fgsm(norm='linf', eps=-0.1)"), "*: PlanError: eps=-0.1 is not positive"),
    "missing keys": (
        DENSE + "from pytest_prunerob import load_state\n    torch.save({'0.weight': torch.zeros(4, 4)}, 'w.pt')\n"
        "    return load_state(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 'w.pt')\n@cells()\n" + CLAIM,
        "*: ModelError: w.pt does not fit the model: missing 0.bias, 1.weight, 1.bias",
    ),
    "pickle": (
        "import pathlib\nclass Payload:\n    def __reduce__(self):\n        return pathlib.Path.touch, (pathlib.Path("
        "'executed'),)\n" + DENSE + "from pytest_prunerob import load_state\n    torch.save({'0.weight': Payload()}, "
        "'w.pt')\n    return load_state(nn.Linear(4, 4), 'w.pt')\n@cells()\n" + CLAIM,
        "*: ModelError: w.pt holds Python objects besides tensors, and loading those could run code: *",
    ),
    "not a model": (DENSE + "return 'resnet'\n@cells()\n" + CLAIM, "ModelError: the dense model is *str*"),
    "dataset outside [0, 1]": (
        "import torch\nfrom pytest_prunerob import Dataset\n@pytest.fixture\ndef dataset():\n"
        "    return Dataset('mine', torch.full((4, 1, 4, 4), 200.0), torch.tensor([0, 1, 2, 3]), classes=4)\n@cells()\n"
        + CLAIM,
        "*: DatasetError: dataset 'mine': inputs must lie in [0, 1], found a minimum of 200 and a maximum of 200 *",
    ),
    "no dataset": (
        "@pytest.fixture\ndef dataset():\n    return [1, 2]\n@cells()\n" + CLAIM,
        "DatasetError: the dataset fixture returned list: return a pytest_prunerob.Dataset",
    ),
    "more samples than there are": (
        "@cells(samples=41)\n" + CLAIM,
        "DatasetError: dataset 'toy': samples=41 asked for, allowed are 1 to 40",
    ),
    "unrelated datasets": (
        "@cells()\ndef test_it(make_subject, dense_model, dataset):\n    a = make_subject(dense_model, 'a')\n"
        "    from dataclasses import replace\n    other = replace(dataset.take(range(10)), name='other')\n"
        "    b = make_subject(dense_model, 'b', dataset=other)\n"
        "    assert a.accuracy() >= b.accuracy() - 0.1\n",
        "*: ClaimError: 'a.accuracy() >= b.accuracy() - 0.1' compares subjects on unrelated datasets: toy, other",
    ),
    "flips on unrelated datasets": (
        "@cells()\ndef test_it(make_subject, dense_model, dataset):\n    a = make_subject(dense_model, 'a')\n"
        "    b = make_subject(dense_model, 'b', dataset=dataset.take(range(10)))\n"
        "    assert flips(a, b).share('S10') <= 0.1\n",
        "*: ClaimError: flips(a, b) compares unrelated datasets: toy, toy",
    ),
    "no cells": (CLAIM, "CellsError: test_it asks for a claim fixture but has no @cells(...) decorator"),
    "no table": (
        "@cells()\ndef test_it(reported):\n    assert reported >= 0.1\n",
        "CellsError: test_it?cell? asks for 'reported': write cells(..., reported=table(...))",
    ),
}

VERDICTS = {
    "class count": (
        DENSE + "return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()",
        "reason:   dense: the model has 3 logits, the dataset 4 classes: give the model that belongs to the dataset",
    ),
    "train mode": (
        DENSE + "return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 4))",
        "reason:   dense: in train mode: the model, 0, 1 and 1 more; call .eval() on the model where it is made*",
    ),
    "nan": (
        DENSE + "model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()\n"
        "    model[1].weight.data[0, 0] = float('nan')\n    return model",
        "reason:   dense: NaN or infinite logits on 40 of 40 clean probes: check the weights and the input scaling*",
    ),
    "no gradient": (
        "import torch\nfrom torch import nn\nclass Cut(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x.flatten(1).detach())\n@pytest.fixture\ndef dense_model():\n"
        "    torch.manual_seed(0)\n    return Cut(16, 4).requires_grad_(False).eval()",
        "reason:   dense: the logits have no gradient with respect to the input: *",
    ),
    "raises": (
        DENSE + "return nn.Sequential(nn.Flatten(), nn.Linear(7, 4)).eval()",
        "reason:   dense: the model raises on clean inputs: RuntimeError: *mat1 and mat2 shapes cannot be multiplied *",
    ),
}


def no_trace_of_ours(run: Run) -> None:
    assert "Traceback" not in run.all
    assert "INTERNALERROR" not in run.all
    assert not re.search(r"pytest_prunerob/\w+(/\w+)?\.py", run.all)


@pytest.mark.parametrize(("test", "sentence"), COLLECTION.values(), ids=COLLECTION)
def test_grid(suite: Suite, test: str, sentence: str) -> None:
    run = suite(test)
    assert run.ret == 2
    run.result.stdout.fnmatch_lines([escaped(f"test_suite.py: {sentence}")])
    no_trace_of_ours(run)
    assert run.results["status"] == "incomplete"


@pytest.mark.parametrize(("value", "sentence"), NAMES.values(), ids=NAMES)
def test_names(suite: Suite, pytester: pytest.Pytester, value: str, sentence: str) -> None:
    pytester.makeconftest("")
    given = {"dataset": "digits", "network": "cnn", "training": "pgd", "method": "filter-l1", "sparsity": "0.5"}
    name, _, text = value.partition("=")
    given[name] = text.strip("'")
    run = suite(grid(", ".join(f"{key}={item!r}" for key, item in given.items())))
    assert run.ret == 2
    run.result.stdout.fnmatch_lines([escaped(f"test_suite.py: {sentence}")])
    no_trace_of_ours(run)
    missing = suite(grid(", ".join(f"{key}={item!r}" for key, item in given.items() if key != name)))
    assert missing.ret == 2
    missing.result.stdout.fnmatch_lines([f"*has no '{name}': write cells({name}=...) or override the fixture *"])


@pytest.mark.parametrize(("test", "sentence"), TESTS.values(), ids=TESTS)
def test_in_a_test(suite: Suite, pytester: pytest.Pytester, test: str, sentence: str) -> None:
    run = suite(test)
    assert run.ret == 1
    run.result.stdout.fnmatch_lines([escaped(sentence)])
    no_trace_of_ours(run)
    assert not (pytester.path / "executed").exists()
    if "no cells" not in test:
        assert {status in ("failed", "error") for status in run.statuses.values()} <= {True}


@pytest.mark.parametrize(("fixture", "sentence"), VERDICTS.values(), ids=VERDICTS)
def test_models(suite: Suite, fixture: str, sentence: str) -> None:
    test = "\n@cells()\ndef test_it(dense):\n    assert dense.robust_accuracy(P) <= 0.9\n"
    run = suite(fixture + test)
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(
        [
            "ERROR: dense.robust_accuracy(pgd 2 steps of 0.0525, no random start, linf, ε=0.0525) <= 0.9",
            escaped(sentence),
        ]
    )
    no_trace_of_ours(run)
    assert [verdict for _, verdict in run.verdicts] == ["error"]


def test_too_few_classes_names_a_plan_that_works(suite: Suite) -> None:
    run = suite(
        """
        @pytest.fixture
        def dataset():
            import conftest
            return conftest.Dataset("three", *conftest.samples(), classes=3)

        @pytest.fixture
        def dense_model():
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()

        @cells()
        def test_it(dense):
            assert dense.robust_accuracy(autoattack(norm="linf", eps="0.1")) <= 1
        """
    )
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(
        [escaped("*apgd-t needs at least 4 classes and the model has 3: use autoattack(['apgd-ce', 'fab-t', *")]
    )
    no_trace_of_ours(run)


def test_full_trace_shows_where_an_error_came_from(suite: Suite) -> None:
    run = suite(plan("fgsm(norm='linf', eps=-0.1)"), "--full-trace")
    assert run.ret == 1
    assert "plan.py" in run.out
    assert suite(grid("method=[]"), "--full-trace").out.count("cells.py") >= 1


def test_fixed_batch_program(suite: Suite) -> None:
    run = suite(
        """
        import torch

        @pytest.fixture
        def dense_model():
            import conftest
            return torch.export.export(conftest.classifier(4), (torch.zeros(2, 1, 4, 4),))

        @cells()
        def test_it(dense):
            assert dense.accuracy() >= 0.5
        """
    )
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(["ModelError: the exported program of the dense model *batch*export it with *"])
    no_trace_of_ours(run)


def test_store_that_cannot_be_written(suite: Suite, pytester: pytest.Pytester) -> None:
    (pytester.path / "file").write_text("")
    run = suite("@cells()\n" + CLAIM, "--prunerob-store=file/store")
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(["StoreError: the store '*/file/store' is not writable: Not a directory"])
    no_trace_of_ours(run)
    assert run.statuses == {"test_it": "error"}


def escaped(pattern: str) -> str:
    """``pattern`` with only ``*`` as a wildcard, and question marks where they stand for a bracket."""
    return pattern.replace("[", "[[]") if "?cell?" not in pattern else pattern
