"""A user's own models: references, exported programs, the adapter, checkpoints, own fixtures, own data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite


def linear(columns: int) -> nn.Module:
    """The classifier of the suite's conftest."""
    weight = torch.zeros(4, 4, 4)
    weight[0, :, :columns] = 10 / (4 * columns)
    weight[1] = -weight[0]
    layer = nn.Linear(16, 4)
    layer.weight.data = weight.flatten(1)
    layer.bias.data = torch.tensor([-5.0, 5.0, -10.0, -10.0])
    return nn.Sequential(nn.Flatten(), layer).eval()


DATA = """
import pytest, torch
from pytest_prunerob import Dataset

@pytest.fixture
def dataset():
    k = torch.arange(1, 21).repeat(2)
    sign = torch.tensor([1.0] * 20 + [-1.0] * 20)
    x = torch.full((40, 1, 4, 4), 0.5)
    x[..., :2] += (sign * k * 0.005)[:, None, None, None]
    x[..., 2:] += (sign * k * 0.015)[:, None, None, None]
    return Dataset("toy", x, (sign < 0).long(), classes=4)
"""


def test_by_reference(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(DATA)
    example = torch.zeros(2, 1, 4, 4)
    batch = {"x": {0: torch.export.Dim("batch")}}

    class Named(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.module(x))

    program = torch.export.export(Named(linear(2)), (example,), dynamic_shapes=batch)
    torch.export.save(program, str(pytester.path / "pruned.pt2"))
    save_file(linear(4).state_dict(), pytester.path / "dense.safetensors")
    pytester.makepyfile(
        own_models="from pathlib import Path\nfrom torch import nn\nfrom pytest_prunerob import load_state\n"
        "def dense():\n    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))\n"
        "    return load_state(network, Path(__file__).parent / 'dense.safetensors')\n"
    )
    pytester.syspathinsert()
    run = suite(
        """
        @cells(dense="own_models:dense", pruned="pruned.pt2")
        def test_it(dense, pruned):
            assert within(dense.robust_accuracy(P), 0.75, 0)
            assert within(pruned.robust_accuracy(P), 0.5, 0)
            assert pruned.parameters() == dense.parameters() if False else pruned.parameters() <= 68

        @cells(dense="own_models:dens")
        def test_unknown(dense):
            assert dense.accuracy() >= 0

        @cells(pruned="prunned.pt2")
        def test_missing(pruned):
            assert pruned.accuracy() >= 0
        """
    )
    assert run.statuses == {"test_it": "passed", "test_unknown": "error", "test_missing": "error"}
    run.result.stdout.fnmatch_lines(
        [
            "ModelError: model reference 'own_models:dens': own_models has no 'dens'; did you mean 'dense'?",
            "ModelError: there is no file '*prunned.pt2'; did you mean 'pruned.pt2'?",
        ]
    )


def test_a_reference_that_an_overridden_fixture_ignores_is_refused(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        DATA
        + """
from torch import nn

@pytest.fixture
def pruned_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))

@pytest.fixture
def dense_model(cell):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval() if cell["dense"] == "mine" else None
"""
    )
    fine = "@cells(dense='mine')\ndef test_it(dense):\n    assert dense.accuracy() >= 0\n"
    assert suite(fine).statuses == {"test_it": "passed"}
    result = suite(
        fine + "@cells(pruned='next.pt2')\ndef test_other(pruned):\n    assert pruned.accuracy() >= 0\n"
    ).result
    result.stdout.fnmatch_lines(
        ["*next.pt2: pruned='next.pt2' is not what would be judged: the fixture pruned_model is*"]
    )
    assert result.ret == 2


def test_a_gate_against_the_last_release(suite: Suite) -> None:
    run = suite(
        """
        import conftest
        from torch import nn
        from pytest_prunerob import Model

        class Wrapped(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module

            def forward(self, x):
                return {"features": x, "out": self.module(x / 2 + 0.5)}

        @pytest.fixture
        def pruned_model():
            # Takes what (x - 0.5) / 0.5 gives and undoes it.
            return Model(Wrapped(conftest.classifier(2)).eval(), mean=0.5, std=0.5, logits="out")

        @pytest.fixture
        def last_release(make_subject):
            return make_subject(conftest.classifier(4), "last release")

        @cells()
        def test_release(pruned, last_release):
            assert within(pruned.robust_accuracy(P), 0.5, 0)
            assert pruned.robust_accuracy(P) >= last_release.robust_accuracy(P) - 0.25
            assert pruned.accuracy() >= last_release.accuracy()

        @cells()
        def test_no_worse(pruned, last_release):
            assert pruned.robust_accuracy(P) >= last_release.robust_accuracy(P) - 0.1
        """
    )
    assert run.statuses == {"test_release": "passed", "test_no_worse": "failed"}
    run.result.stdout.fnmatch_lines(["measured: pruned.robust_accuracy 0.5; last release.robust_accuracy 0.75"])
    assert {tuple(subject["roles"]) for subject in run.results["subjects"].values()} == {
        ("last release",),
        ("pruned",),
    }


def test_an_own_dense_model_is_pruned(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        DATA
        + """
from torch import nn

@pytest.fixture
def dense_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 4)).eval()
"""
    )
    run = suite(
        """
        @cells(method="global-magnitude", sparsity=["0.50", "0.75"])
        def test_sparsity(dense, pruned, cell):
            assert within(pruned.sparsity(), cell.sparsity, 0)
            assert dense.sparsity() <= 0

        @cells(method="filter-l1", sparsity="0.5")
        def test_filters(pruned):
            assert within(pruned.sparsity("filters"), 0.5, 0)
        """
    )
    assert run.ret == 0
    assert run.result.parseoutcomes()["passed"] == 3
    assert run.results["cost"]["backward"] == 0


def test_own_data_from_a_file(suite: Suite, pytester: pytest.Pytester) -> None:
    generator = np.random.default_rng(0)
    (pytester.path / "data").mkdir()
    np.savez(
        pytester.path / "data" / "mine.npz",
        x=generator.random((12, 1, 4, 4), dtype="float32"),
        y=np.arange(12) % 4,
    )
    pytester.makeconftest(
        "import pytest\n@pytest.fixture\ndef dense_model():\n    from torch import nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()\n"
    )
    test = "from pytest_prunerob import cells\n@cells(dataset='npz:data/mine.npz')\ndef test_it(dense):\n"
    pytester.makepyfile(**{"deep/test_deep": test + "    assert dense.accuracy() >= 0\n"})
    run = suite(None, "--rootdir", str(pytester.path), "deep")
    assert run.ret == 0
    (claim,) = run.results["claims"]
    assert claim["n"] == 12
    gone = suite("@cells(dataset='npz:data/gone.npz')\ndef test_it(dense):\n    assert dense.accuracy() >= 0\n")
    assert gone.ret == 1
    gone.result.stdout.fnmatch_lines(["DatasetError: dataset 'npz:*gone.npz': there is no file '*gone.npz'"])


def test_train_mode_is_no_twin_of_eval_mode(suite: Suite) -> None:
    run = suite(
        """
        import conftest

        @cells()
        def test_a_eval(make_subject):
            assert make_subject(conftest.classifier(4), "subject").robust_accuracy(P) >= 0.75

        @cells()
        def test_b_train(make_subject):
            assert make_subject(conftest.classifier(4).train(), "subject").robust_accuracy(P) >= 0.75

        @cells()
        def test_c_eval_again(make_subject):
            assert make_subject(conftest.classifier(4), "subject").robust_accuracy(P) >= 0.75
        """
    )
    assert run.statuses == {"test_a_eval": "passed", "test_b_train": "failed", "test_c_eval_again": "passed"}
    assert [verdict for _, verdict in run.verdicts] == ["supported", "error", "supported"]


@pytest.mark.parametrize("change", ["model[1].weight.data[:, :8] = 0", "model.train()"])
def test_changed_after_it_became_a_subject(suite: Suite, change: str) -> None:
    run = suite(
        f"""
        @pytest.fixture
        def pruned_model(dense_model):
            model = dense_model
            {change}
            return model

        @cells()
        def test_shared(dense, pruned):
            assert pruned.parameters() <= dense.parameters()
        """
    )
    assert run.ret == 1
    assert [verdict for _, verdict in run.verdicts] == ["error"]
    run.result.stdout.fnmatch_lines(["reason:   the dense model was changed after it became a subject: *"])


def test_a_changed_model_does_not_stand_in_for_its_twin(suite: Suite) -> None:
    run = suite(
        """
        @pytest.fixture
        def pruned_model(dense_model):
            return dense_model

        @cells()
        def test_1_changes(pruned, pruned_model):
            assert pruned.robust_accuracy(P) >= 0.75
            pruned_model[1].bias.data[2] = 100

        @cells()
        def test_2_twin(pruned):
            assert pruned.accuracy_under(P) >= 0.75

        @cells()
        def test_3_changes_before(pruned, pruned_model):
            pruned_model[1].bias.data[2] = 100
            with pytest.raises(Exception, match="was changed after"):
                float(pruned.accuracy())
            assert pruned.accuracy() <= 1
        """
    )
    verdicts = [verdict for _, verdict in run.verdicts]
    assert verdicts == ["supported", "supported", "error"]


def test_float_of_what_does_not_count(suite: Suite) -> None:
    run = suite(
        """
        from torch import nn

        @pytest.fixture
        def pruned_model(dense_model):
            return nn.Sequential(dense_model, nn.Softmax(1)).eval()

        @cells()
        def test_constant(dense, pruned):
            assert float(pruned.robust_accuracy(P)) >= dense.robust_accuracy(P) - 0.1
        """
    )
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(["*ClaimError: pruned.robust_accuracy(*) has no number: *look like probabilities*"])


def test_distance_beside_clean_outputs_that_are_not_finite(suite: Suite) -> None:
    run = suite(
        """
        import torch
        from torch import nn

        class Holes(nn.Module):
            def __init__(self, module, hole):
                super().__init__()
                self.module = module
                self.register_buffer("hole", hole)

            def forward(self, x):
                here = (x == self.hole).flatten(1).all(1)
                return torch.where(here[:, None], torch.full((), float("nan")), self.module(x))

        @pytest.fixture
        def dataset(dataset):
            from pytest_prunerob import Dataset
            x = torch.cat([dataset.x, dataset.x, dataset.x])
            x += torch.arange(120)[:, None, None, None] * 1e-5  # all different
            return Dataset("toy", x, dataset.y.repeat(3), classes=4)

        @pytest.fixture
        def pruned_model(dense_model, dataset):
            return Holes(dense_model, dataset.first(None).x[100:101]).eval()

        @cells()
        def test_distance(pruned):
            assert pruned.distance(fmn(steps=50)) >= 0.0001
        """
    )
    assert [verdict for _, verdict in run.verdicts] == ["inconclusive"]
    run.result.stdout.fnmatch_lines(["reason:   1 of 120 samples have a clean output that is not finite*"])
