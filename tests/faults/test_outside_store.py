"""A store from a stranger: what it holds fits, or is an error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_prunerob.errors import StoreError
from pytest_prunerob.fingerprint import digest
from pytest_prunerob.models import Builder
from pytest_prunerob.store import Store


@pytest.mark.parametrize(
    "state", [{"weight": torch.ones(3, 3)}, {}, {"other": torch.ones(1)}], ids=["shape", "none", "name"]
)
def test_outside_an_intact_model_that_is_of_another_network(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    material = {"schema": 1, "kind": "model", "network": "cnn"}
    store = Store(tmp_path)
    store.add_model(digest(material), state, material)
    builder = Builder(store, "cpu", False, lambda _: None, tmp_path)
    with pytest.raises(StoreError, match="the model in the store does not fit its network"):
        builder._kept(lambda _: nn.Linear(2, 2), material, "the model", lambda: pytest.fail("built"))
