from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pytest_prunerob import wrm
from pytest_prunerob.adequacy import Case, audit_plan
from pytest_prunerob.attacks import ATTACKS, Load, Settings
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import PlanError
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.oracle import distances
from pytest_prunerob.plans import Plan

WRM = ATTACKS["wrm"]


def smooth(classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, classes)).eval()


def samples(n: int = 6) -> tuple[Tensor, Tensor]:
    x = 0.3 + 0.4 * torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, smooth()(x).argmax(1)


def returned(plan: Plan, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    eps = float(plan.threat.radius)
    return WRM.perturb(module, x, y, Settings(plan.stages[0], "l2", eps, 0, 3))


def slope(module: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    z = z.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(cross_entropy(module(z), y, reduction="sum"), z)
    return gradient


def test_its_steps_are_those_of_the_paper() -> None:
    module, (x, y) = smooth(), samples()
    z = x
    for length in (1.0, 2**-0.5, 3**-0.5):
        z = (z + length * (slope(module, z, y) / (2 * 2.5) - (z - x))).clamp(0, 1)
    assert torch.allclose(returned(wrm(eps=9, gamma="2.5", steps=3), module, x, y), z, atol=1e-6)
    half = x + 0.5 * slope(module, x, y) / (2 * 2.5)
    assert torch.allclose(returned(wrm(eps=9, gamma="2.5", steps=1, step_size="1/2"), module, x, y), half, atol=1e-6)


def test_it_ends_where_the_penalty_outweighs_the_loss() -> None:
    """With a γ for which the problem is strongly concave its solution has ∇loss(z) = 2γ(z − x)."""
    module, (x, y) = smooth(), samples()
    z = returned(wrm(eps=9, gamma="0.3", steps=200), module, x, y)
    assert float((z - x).abs().amax()) > 0.05
    assert torch.allclose(slope(module, z, y), 2 * 0.3 * (z - x), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 5), st.floats(1e-4, 100), st.integers(1, 4), st.floats(0.1, 1000))
def test_what_it_returns_is_inside_ball_and_box(seed: int, eps: float, gamma: float, steps: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 2, 3, 3, generator=generator).mul(1.5).clamp(max=1)  # a third of them at the end of the box
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).requires_grad_(False)
    module[1].weight.data = scale * torch.randn(3, 18, generator=generator)
    z = returned(wrm(eps=eps, gamma=gamma, steps=steps), module, x, torch.tensor([0, 1, 2, 0]))
    assert z.dtype == x.dtype
    assert z.amin() >= 0
    assert z.amax() <= 1
    assert (distances(x, z, "l2") <= eps).all()


def test_a_witness_beyond_the_ball_counts_as_its_projection_and_nothing_costs_more_than_its_bound() -> None:
    module, (x, y) = smooth(), samples()
    for gamma in ("0.001", "0.1"):
        plan = wrm(eps=1, gamma=gamma, steps=5)
        result = Engine("cpu", 64, 0).run("decide", module, plan, 0, x, y, 3)
        assert result.errors == {}
        bound = stage_bound(plan.stages[0], "l2", "decide", Load(6, 3, 16))
        assert result.cost.forward <= bound.forward
        assert result.cost.backward <= bound.backward
        assert all(length <= 1 for length in result.broken.values())
        assert len(result.broken) > 0


def test_survival_of_a_gamma_that_holds_it_back_does_not_count() -> None:
    """Two classes, so that no second opinion on the margin can help out."""
    module = smooth(2)
    x = samples(24)[0]
    with torch.no_grad():
        clean = module(x)
    y = clean.argmax(1)
    plan = wrm(eps=1, gamma=1000)
    engine = Engine("cpu", 64, 0)
    result = engine.run("decide", module, plan, 0, x, y, 2)
    left = [i for i in range(len(x)) if i not in result.broken]
    assert len(left) > 8
    found = audit_plan(Case(engine, module, plan, x[left], y[left], clean[left], 2, len(x), len(left), {}))
    assert "wrm: PGD in its place broke" in found.problem


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"norm": "linf"}, "unknown norm 'linf': allowed are l2"),
        ({"gamma": 0}, "gamma=0 is not positive"),
        ({"steps": 0}, "steps=0 is not a whole number of at least 1"),
        ({"step_size": "-1"}, "step_size='-1' is not positive"),
    ],
)
def test_bad_input_is_one_sentence(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        wrm(**{"eps": 1, "gamma": 1, **given})  # type: ignore[arg-type]
    assert str(caught.value) == sentence
