"""Checkpoints that do not fit, and files that would run code when they are unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

TEST = """
@cells({cell})
def test_it(dense):
    assert dense.accuracy() >= 0
"""
CHECKPOINT = TEST.replace("{cell}", "dense='own_models:network'")
PROGRAM = TEST.replace("{cell}", "dense='program.pt2'")
DATA = TEST.replace("{cell}", "dataset='npz:data.npz'")
OWN_MODELS = """
from pathlib import Path
from torch import nn
from pytest_prunerob import load_state

def network():
    return load_state(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), Path(__file__).parent / "weights.NAME")
"""


class Payload:
    """Unpickling this makes the file ``ran``."""

    def __init__(self, folder: Path) -> None:
        self.ran = folder / "ran"

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.ran), "w"))


@pytest.fixture(autouse=True)
def _no_models(suite: Suite, pytester: pytest.Pytester) -> None:
    """Leave the data of the suite alone: its fixtures for models would be asked instead of the references."""
    pytester.makeconftest(CONFTEST[: CONFTEST.index("@pytest.fixture\ndef dense_model")])


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"1.bias": None}, "does not fit the model: missing 1.bias"),
        ({"2.bias": torch.zeros(4)}, "does not fit the model: unexpected 2.bias"),
        ({"1.bias": torch.zeros(3)}, "does not fit the model: 1.bias is float32 (3,), the model's float32 (4,)"),
    ],
    ids=["missing", "unexpected", "another-shape"],
)
def test_26_keys_that_do_not_fit_are_an_error(
    suite: Suite, pytester: pytest.Pytester, change: dict[str, torch.Tensor | None], reason: str
) -> None:
    state = {name: value for name, value in {**network().state_dict(), **change}.items() if value is not None}
    torch.save(state, pytester.path / "weights.pt")
    pytester.makepyfile(own_models=OWN_MODELS.replace("NAME", "pt"))
    pytester.syspathinsert()
    run = suite(CHECKPOINT)
    assert run.statuses == {"test_it": "error"}
    assert run.ret == 1
    assert reason in run.out


@pytest.mark.parametrize("name", ["pt", "pth"])
def test_26_a_checkpoint_with_a_payload_is_not_executed(suite: Suite, pytester: pytest.Pytester, name: str) -> None:
    content = {**network().state_dict(), "epoch": Payload(pytester.path)}
    if name == "pt":
        torch.save(content, pytester.path / "weights.pt")
    else:
        (pytester.path / "weights.pth").write_bytes(pickle.dumps(content))
    pytester.makepyfile(own_models=OWN_MODELS.replace("NAME", name))
    pytester.syspathinsert()
    run = suite(CHECKPOINT)
    assert run.statuses == {"test_it": "error"}
    assert "holds Python objects besides tensors, and loading those could run code" in run.out
    assert not (pytester.path / "ran").exists()


def test_26_a_program_with_a_payload_is_not_executed(suite: Suite, pytester: pytest.Pytester) -> None:
    example, payload = torch.zeros(2, 1, 4, 4), io.BytesIO()
    torch.save(Payload(pytester.path), payload)
    program = torch.export.export(network(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, str(pytester.path / "good.pt2"))
    with zipfile.ZipFile(pytester.path / "good.pt2") as old, zipfile.ZipFile("program.pt2", "w") as new:
        for item in old.namelist():
            new.writestr(item, payload.getvalue() if item.endswith("sample_inputs/model.pt") else old.read(item))
    run = suite(PROGRAM)
    assert run.statuses == {"test_it": "error"}
    assert "holds pickled objects" in run.out
    assert not (pytester.path / "ran").exists()


def test_26_data_with_a_payload_is_not_executed(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.replace("def dataset():", "def other_dataset():"))
    objects = np.array([Payload(pytester.path)], dtype=object)
    np.savez(pytester.path / "data.npz", x=objects, y=np.zeros(1, dtype="int64"))
    run = suite(DATA)
    assert run.statuses == {"test_it": "error"}
    assert "it holds Python objects, which are never unpickled" in run.out
    assert not (pytester.path / "ran").exists()


def test_26_the_payload_would_have_run(tmp_path: Path) -> None:
    """So that the tests above can fail."""
    pickle.loads(pickle.dumps(Payload(tmp_path))).close()
    assert (tmp_path / "ran").exists()
