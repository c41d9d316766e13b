"""Distances from an attack that takes no gradient: another method has to have some, and to agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pytest_prunerob.adequacy import Audit
from pytest_prunerob.adequacy.distances import METHODS, audit_distances
from pytest_prunerob.plans import fab, zoo
from tests.unit.adequacy.test_stages import Sign, case, network

SMALL = zoo(norm="l2", steps=3, search_steps=1, step_size="0.02")


def audit(monkeypatch: pytest.MonkeyPatch, module: nn.Module, found: float) -> Audit:
    """The audit of distances under ``SMALL`` that are all ``found``, on two samples, against a few steps of FAB."""
    monkeypatch.setitem(METHODS, "l2", (fab(norm="l2", steps=5),))
    whole = case(module, SMALL)
    some = replace(whole, x=whole.x[:2], y=whole.y[:2], clean=whole.clean[:2], n=2, survivors=2)
    return audit_distances(some, [found] * 2)


def test_distances_count_where_no_other_run_undercuts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = audit(monkeypatch, network(), 0.001)
    assert found.problem == ""
    assert found.adequate == ("zoo",)
    outcomes = {check.indicator: check.outcome for check in found.checks if check.stage == "zoo"}
    assert outcomes == {"zero-gradient": "not applicable"}


def test_where_the_second_method_has_no_gradient_nothing_confirms_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    found = audit(monkeypatch, nn.Sequential(Sign(), network()).eval(), 0.001)
    assert "FAB: " in found.problem
    assert "no gradient" in found.problem
