"""Where the models of this suite come from: two checkpoints of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from network import Classifier

from pytest_prunerob import Model, load_state

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def released(name: str) -> Model:
    """A checkpoint as it is used in production: normalised input, logits in a dictionary."""
    return Model(load_state(Classifier(), CHECKPOINTS / name), mean=[0.3], std=[0.4], logits="out")


@pytest.fixture(scope="session")
def dense_model() -> Model:
    """The dense model."""
    return released("dense.safetensors")


@pytest.fixture(scope="session")
def pruned_model() -> Model:
    """The model to be released."""
    return released("pruned.safetensors")
