from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pytest_prunerob.attacks import Load, Pool
from pytest_prunerob.engine import Engine
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.ledger import Kind
from pytest_prunerob.plans import (
    Parameter,
    Plan,
    autoattack,
    brendel_bethge,
    cw,
    deepfool,
    fgsm,
    fmn,
    pgd,
    resolve,
)

CLASSES, N = 6, 10


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, CLASSES)).eval()


def shorter(plan: Plan) -> Plan:
    """``plan`` with few steps and queries, so that the test takes no time; the counting is the same."""
    few: dict[str, Parameter] = {"steps": 7, "queries": 30}
    stages = (s.changed(**{k: v for k, v in few.items() if k in dict(s.params)}) for s in plan.stages)
    return replace(resolve(plan, CLASSES), stages=tuple(resolve(replace(plan, stages=tuple(stages)), CLASSES).stages))


def plans(norm: str, eps: str) -> list[Plan]:
    found = [shorter(autoattack([name], norm=norm, eps=eps)) for name in ("apgd-ce", "apgd-t", "fab", "fab-t")]
    if norm == "l1":
        return [*found, shorter(autoattack("standard", norm=norm, eps=eps))]
    more = pgd(norm=norm, eps=eps, steps=5, step_size="0.05", restarts=2)
    return [*found, shorter(autoattack(["square"], norm="linf", eps=eps)), more, fgsm(norm=norm, eps=eps)]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", ["0.000001", "0.03", "0.1", "0.6"])
def test_no_stage_costs_more_than_its_bound(network: nn.Module, norm: str, eps: str) -> None:
    engine, x = Engine("cpu", 250, 0), torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = network(x).argmax(1)
    kinds: tuple[Kind, ...] = ("decide", "returned")
    for plan in plans(norm, eps):
        for number, stage in enumerate(plan.stages[:2]):
            for kind in kinds:
                result = engine.run(kind, network, plan, number, x, y, CLASSES)
                bound = stage_bound(stage, plan.threat.norm, kind, Load(N, CLASSES, 16))
                case = (stage, kind, result.cost, bound)
                assert result.errors == {}, case
                assert result.cost.forward <= bound.forward, case
                assert result.cost.backward <= bound.backward, case
                if eps == "0.000001" and norm == "linf":  # all survive: the bound is what it costs, or little more
                    assert bound.backward <= 2 * result.cost.backward, case
                    assert bound.forward <= 3 * result.cost.forward + 4 * N, case


@pytest.mark.parametrize(
    "plan",
    [
        fmn(steps=9),
        *(fmn(norm=norm, steps=30) for norm in ("l2", "l1", "l0")),
        cw(steps=15, binary_search_steps=2),
        *(deepfool(norm=norm, steps=6, candidates=4) for norm in ("l2", "linf")),
        brendel_bethge(steps=12, binary_search_steps=8),
    ],
    ids=lambda plan: plan.text,
)
def test_minimum_norm_attacks_stay_within_their_bound(plan: Plan, network: nn.Module) -> None:
    x = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    y = network(x).argmax(1)
    corners = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(3)).round()
    pool = Pool(corners, network(corners).argmax(1))
    result = Engine("cpu", 250, 0).run("minimise", network, plan, 0, x, y, CLASSES, pool=pool)
    bound = stage_bound(plan.stages[0], plan.threat.norm, "minimise", Load(N, CLASSES, 16))
    assert result.errors == {}
    assert result.cost.forward <= bound.forward
    assert result.cost.backward <= bound.backward
    if plan.stages[0].attack != "deepfool":  # which stops where all samples are beyond a boundary
        assert bound.backward <= 2 * result.cost.backward
        assert bound.forward <= 2.5 * result.cost.forward


def test_the_published_plan_on_one_micro_batch() -> None:
    stages = autoattack("standard", norm="linf", eps="8/255").stages
    costs = [stage_bound(stage, "linf", "decide", Load(250, 10, 64)) for stage in stages]
    # 100 steps and a start; nine targets of it; FAB looks twice a step; Square only forward.
    assert [cost.backward for cost in costs] == [250 * 101, 250 * 9 * 101, 250 * 9 * 100, 0]
    assert [cost.forward for cost in costs] == [250 * 106, 250 * (9 * 101 + 37), 250 * (9 * 203 + 37), 250 * 5006]
    assert stage_bound(stages[0], "linf", "decide", Load(0, 10, 64)).forward == 0
