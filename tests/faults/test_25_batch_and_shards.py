"""How many samples are forwarded at once, and which process runs which cell, changes no outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

SUITE = """
import torch
from dataclasses import replace
from torch import nn
from pytest_prunerob import Dataset

def short(plan):
    few = {"apgd-ce": {"steps": 2}, "apgd-t": {"steps": 6, "targets": 2},
           "fab-t": {"steps": 2, "targets": 2}, "square": {"queries": 10}}
    # The weakest first, so that each has something to break.
    return replace(plan, stages=tuple(stage.changed(**few[stage.attack]) for stage in reversed(plan.stages)))

AA = short(autoattack("standard", norm="linf", eps="0.04", micro_batch=6))

def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(54, 5)).eval()

@pytest.fixture
def dataset():
    torch.manual_seed(9)
    x = torch.rand(12, 1, 6, 6)
    with torch.no_grad():
        return Dataset("random", x, network(0)(x).argmax(1), classes=5)
"""
CELL = """
@cells()
def test_{seed}(make_subject):
    net = network(0)
    torch.manual_seed({seed})
    net[5].weight.data += 0.01 * torch.randn(5, 54)
    assert make_subject(net, "pruned").robust_accuracy(AA) <= 0.99
"""
ALL = SUITE + "".join(CELL.replace("{seed}", str(seed)) for seed in range(4))
COMPLETE = "--prunerob-population=distribution"  # whatever decides the claim, all is measured


def outcomes(store: Path) -> dict[str, Any]:
    """What the segments of a store say: of each measurement and unit which samples were attacked and which broke."""
    found = {}
    for path in store.glob("v1/*/*/seg-*.json"):
        segment = json.loads(path.read_text())
        unit = (segment["key"], *segment["unit"], tuple(segment["attacked"]))
        found[unit] = ([position for position, _ in segment["broken"]], segment["errors"])
    return found


def test_25_batch_sizes_and_shards_change_no_outcome(suite: Suite, pytester: pytest.Pytester) -> None:
    def found(name: str, *options: str) -> dict[str, Any]:
        suite(ALL, COMPLETE, f"--prunerob-store={name}", *options)
        return outcomes(pytester.path / name)

    run = suite(ALL, COMPLETE, "--prunerob-store=whole")
    assert len(run.verdicts) == 4
    attacked = [m for m in run.results["measurements"].values() if m["kind"] == "decide"]
    assert all(m["survived"] and m["broken"] for m in attacked)
    assert sum(stage["broken"] > 0 for m in attacked for stage in m["stages"]) > 4  # the later stages break some too
    whole = outcomes(pytester.path / "whole")
    assert {unit[1] for unit in whole} == {0, 1, 2, 3}
    shards = [found(f"shard-{seed}", "-k", f"test_{seed}") for seed in range(4)]
    assert all(len(shard) < len(whole) for shard in shards)
    assert {unit: outcome for shard in shards for unit, outcome in shard.items()} == whole
    for size in (1, 7, 256):
        assert found(f"by-{size}", f"--prunerob-batch-size={size}", "-k", "test_0") == shards[0]
