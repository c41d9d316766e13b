"""The second method and the doubled steps that distances are held against, for every norm and attack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pytest_prunerob import brendel_bethge, cw, deepfool, fab, fmn, worst_case
from pytest_prunerob.adequacy import audit_distances, how_many_distances
from pytest_prunerob.adequacy.distances import second
from pytest_prunerob.adequacy.stages import Case
from pytest_prunerob.attacks import Load, Pool
from pytest_prunerob.planned import audit_bound
from pytest_prunerob.plans import Plan
from tests.unit.adequacy.test_stages import CLASSES, ENGINE, K, case, failed, network


@pytest.mark.parametrize(
    ("plan", "method"),
    [
        (fmn(norm="linf"), "fab-min"),
        (fmn(norm="l2"), "fab-min"),
        (fmn(norm="l1"), "fab-min"),
        (fab(norm="linf"), "fmn"),
        (fab(norm="l1"), "fmn-own"),
        (deepfool(norm="l2"), "fab-min"),
        (cw(norm="l2"), "fab-min"),
        (fmn(norm="l0"), "brendel-bethge"),
        (brendel_bethge(), "fmn-own"),
        (worst_case(fmn(norm="l2"), fab(norm="l2")), "cw-l2"),
        (worst_case(fmn(norm="l1"), fab(norm="l1")), "fab-min"),
        (fmn(norm="l2", target="next"), "cw-l2"),
        (cw(norm="l2", target="next"), "fmn-own"),
        (fmn(norm="l1", target="next"), None),
    ],
    ids=lambda value: value.text if isinstance(value, Plan) else None,
)
def test_distances_are_compared_with_what_the_plan_does_not_have(plan: Plan, method: str | None) -> None:
    other = second(plan)
    assert (None if other is None else other.stages[0].attack) == method
    if other is not None:
        assert other.threat == plan.threat


def small(plan: Plan) -> Case:
    found = case(network(), plan)
    corners = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(5)).round()
    with torch.no_grad():
        return replace(found, pool=Pool(corners, found.module(corners).argmax(1)))


def distances(audited: Case) -> list[float]:
    smallest = [float("inf")] * K
    for stage in range(len(audited.plan.stages)):
        found = ENGINE.run(
            "minimise", audited.module, audited.plan, stage, audited.x, audited.y, CLASSES, pool=audited.pool
        )
        smallest = [min(smallest[i], abs(found.values[i])) for i in range(K)]
    return smallest


@pytest.mark.parametrize(
    "plan",
    [
        worst_case(fmn(norm="l0", steps=20), brendel_bethge(steps=10, binary_search_steps=5)),
        brendel_bethge(steps=10, binary_search_steps=5),
        fab(norm="l2", steps=5),
    ],
    ids=lambda plan: plan.text,
)
def test_an_audit_costs_at_most_its_bound_and_doubts_every_stage(plan: Plan) -> None:
    audited = small(plan)
    found = distances(audited)
    audit = audit_distances(audited, found)
    assert failed(audit) == set()
    assert audit.problem == ""
    assert set(audit.adequate) == {stage.attack for stage in plan.stages}
    assert how_many_distances(plan, K) <= K
    bound = audit_bound(plan, "minimise", Load(K, CLASSES, 36), twin=False)
    share = how_many_distances(plan, K) / K
    assert audit.cost.forward * share <= bound.forward
    assert audit.cost.backward * share <= bound.backward
    far = [2 * value + 2 for value in found]
    assert failed(audit_distances(audited, far)) == {"second-method", "doubled-steps"}


def test_without_start_points_nothing_is_trusted() -> None:
    audited = replace(small(fmn(norm="l0", steps=20)), pool=None)
    found = audit_distances(audited, [1.0] * K)
    assert failed(found) == {"second-method"}
    assert "met an error when it was tried: L0 start points missing" in found.problem


def test_distances_to_a_class_need_a_second_method_too() -> None:
    target = fmn(norm="l1", steps=5, target="next")
    assert "no second method looks for the nearest input of a given class in l1" in (
        audit_distances(small(target), [1.0] * K).problem
    )
