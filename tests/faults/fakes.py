"""Attacks made for a suite of the fault list: each is a function as a library might have it."""

from __future__ import annotations

# The fixture puts ``perturb(model, x, y, settings)`` into the catalogue and returns a plan of this one stage.
FAKE = """
import torch
from pytest_prunerob.attacks import ATTACKS, Attack
from pytest_prunerob.plans import Plan, Stage, ThreatModel

@pytest.fixture
def fake(monkeypatch):
    def make(perturb, norm="linf", eps="0.0525", kind="fixed", keeps_positions=True):
        attack = Attack("fake", (norm,), kind, "torch", "none", True, keeps_positions, perturb)
        monkeypatch.setitem(ATTACKS, "fake", attack)
        return Plan("fake", kind, ThreatModel(norm, eps), (Stage("fake"),))
    return make
"""
