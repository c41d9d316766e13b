from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from pytest_prunerob import models, networks
from pytest_prunerob.cells import Cell
from pytest_prunerob.compression import METHODS
from pytest_prunerob.datasets import Splits, load
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.fingerprint import fingerprint
from pytest_prunerob.models import Builder
from pytest_prunerob.store import Store
from pytest_prunerob.subjects import Model
from pytest_prunerob.training import TUNED

GRID = {"dataset": "digits", "network": "cnn", "training": "standard", "sparsity": "0.50", "seed": "0"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What builders say that they do, with a training of four short epochs."""
    monkeypatch.setitem(TUNED["digits"], "standard", replace(TUNED["digits"]["standard"], epochs=4))
    return []


def builder(root: Path, told: list[str]) -> Builder:
    made = Builder(Store(root), "cpu", False, told.append, root)
    digits = load("digits")
    train = digits.train
    assert train is not None
    made._splits["digits"] = Splits(digits.test, lambda: train.first(64))
    return made


def cell(**more: str) -> Cell:
    return Cell("cell", {**GRID, **more})


def test_a_rewound_ticket_and_the_weights_it_goes_back_to_are_adopted(tmp_path: Path, told: list[str]) -> None:
    first, ticket = builder(tmp_path, told), cell(method="global-magnitude", after="winning-ticket")
    dense = first.dense(ticket)
    pruned = first.pruned(ticket, dense)
    assert told == [
        "training cnn (standard, digits, seed 0)",
        "training cnn to epoch 1 (standard, digits, seed 0)",
        "pruning to global-magnitude 0.50 (standard, digits, seed 0)",
    ]
    kept = {path for path in tmp_path.rglob("manifest.json")}
    assert len(kept) == 3
    told.clear()
    second = builder(tmp_path, told)
    assert fingerprint(second.pruned(ticket, second.dense(ticket))) == fingerprint(pruned)
    assert told == []
    # Killed before the ticket was published: the weights of the early epoch need no training again.
    (last,) = (path for path in kept if "winning-ticket" in path.read_text())
    shutil.rmtree(last.parent)
    assert fingerprint(second.pruned(ticket, dense)) == fingerprint(pruned)
    assert told == ["pruning to global-magnitude 0.50 (standard, digits, seed 0)"]


def test_rewinding_is_for_the_network_that_was_trained_here(tmp_path: Path, told: list[str]) -> None:
    made, ticket = builder(tmp_path, told), cell(method="lottery-ticket")
    other = made.untrained(ticket)
    for one in (ticket, Cell("cell", {name: value for name, value in ticket.parameters.items() if name != "network"})):
        with pytest.raises(CompressionError, match=r"^rewinding needs the dense model early in its training, and this"):
            made.pruned(one, other)


def test_a_compact_network_comes_out_of_the_store_as_narrow_as_it_went_in(tmp_path: Path, told: list[str]) -> None:
    made, compact = builder(tmp_path, told), cell(method="compact")
    narrow = made.pruned(compact, made.untrained(compact))
    told.clear()
    again = builder(tmp_path, told)
    same = again.pruned(compact, again.untrained(compact))
    assert told == []
    assert fingerprint(same) == fingerprint(narrow)
    assert isinstance(narrow.conv1, nn.Conv2d)
    assert narrow.conv1.out_channels < 16
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert same(x).shape == (3, 10)


def test_a_method_without_its_library_is_one_sentence(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == METHODS["compact"].library:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(models, "version", version)
    made, compact = builder(tmp_path, told), cell(method="compact")
    with pytest.raises(
        CompressionError, match=r"^compact needs torch-pruning: pip install 'pytest-prunerob\[structured\]'$"
    ):
        made.pruned(compact, made.untrained(compact))


def test_what_was_stated_of_the_dense_model_does_not_hold_of_the_pruned_one(tmp_path: Path) -> None:
    network = networks.build("cnn", inputs=(1, 8, 8), classes=10, seed=0)
    dense = Model(network, mean=[0.5], accuracy="0.97", twin=nn.Flatten())
    builder = Builder(Store(tmp_path), "cpu", False, lambda _: None, tmp_path)
    pruned = builder.pruned(Cell("c", {"dataset": "digits", "method": "filter-l1", "sparsity": "0.50"}), dense)
    assert isinstance(pruned, Model)
    assert (pruned.accuracy, pruned.twin) == (None, None)
    assert float(pruned.mean) == 0.5
    assert (dense.accuracy is None, dense.twin is None) == (False, False)


def test_the_key_of_a_compressed_model_covers_everything_that_decides_what_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered: list[set[str]] = []

    def sources(*modules: ModuleType) -> dict[str, str]:
        covered.append({module.__name__.removeprefix("pytest_prunerob.") for module in modules})
        return {}

    monkeypatch.setattr(models, "sources", sources)
    dense = networks.build("cnn", inputs=(1, 8, 8), classes=10, seed=0)
    builder = Builder(Store(tmp_path), "cpu", False, lambda _: None, tmp_path)
    builder.pruned(Cell("c", {"dataset": "digits", "method": "filter-l1", "sparsity": "0.50"}), dense)
    assert covered == [{"compression", "training", "trainers", "facts", "datasets"}]
