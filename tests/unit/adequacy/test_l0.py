"""In L0 survival at a fixed ε never counts, at no level."""

from __future__ import annotations

import torch
from torch import nn

from pytest_prunerob import jsma
from pytest_prunerob.adequacy import FULL, Case, audit_fully, audit_plan
from pytest_prunerob.engine import Engine


def test_surviving_jsma_is_no_evidence() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval()
    x = torch.rand(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    clean = net(x).detach()
    case = Case(Engine("cpu", 250, 0), net, jsma(eps=2), x, clean.argmax(1), clean, 3, 6, 6, {})
    found = audit_plan(case)
    assert found.adequate == ()
    assert "jsma: no attack at a fixed ε is strong enough in L0 for survival to count" in found.problem
    assert "fmn(norm='l0')" in found.problem
    fully = audit_fully(case)
    assert [(check.indicator, check.outcome) for check in fully.checks] == [(name, "not applicable") for name in FULL]
    assert (found + fully).problem == found.problem
