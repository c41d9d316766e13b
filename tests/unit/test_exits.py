"""Networks with several exits: the seam of the oracle, the adapter, and PGD in the forms of RDI-Nets."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pytest_prunerob import Model, multi_exit_pgd, pgd
from pytest_prunerob.adequacy import Case, audit_plan
from pytest_prunerob.attacks import Load
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import ModelError, PlanError
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.ledger import Kind
from pytest_prunerob.oracle import NOT_FINITE, Meter, Network, Oracle
from pytest_prunerob.plans import Plan

ENGINE = Engine("cpu", 64, 0)
N, K = 8, 4


class Branches(nn.Module):
    """Three exits on one body; the last one's logits are its output."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh())
            self.heads = nn.ModuleList(nn.Linear(12, K) for _ in range(3))
        self.seen: list[int] = []

    def exits(self, x: Tensor) -> list[Tensor]:
        self.seen.append(len(x))
        h = self.body(x)
        return [4 * head(h) for head in self.heads]

    def forward(self, x: Tensor) -> Tensor:
        return self.exits(x)[-1]


def network() -> Branches:
    return Branches().eval()


def samples(module: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, module(x).argmax(1)


def plan(form: str = "average", *, exit: int = -1, exits: int = 3, eps: str = "0.1", restarts: int = 1) -> Plan:
    step = str(Fraction(eps) * 3 / 10)
    return multi_exit_pgd(form=form, exits=exits, exit=exit, eps=eps, steps=4, step_size=step, restarts=restarts,
                          random_start=False)  # fmt: skip


def returned(given: Plan, module: nn.Module) -> Tensor:
    """What the attack returns for each sample, by the kind that stores it."""
    x, y = samples(module)
    witness = ENGINE.run("crafted", module, given, 0, x, y, K).witness
    assert witness is not None
    return torch.from_numpy(witness)


def mean_loss(module: Branches, z: Tensor, y: Tensor) -> Tensor:
    return torch.stack([cross_entropy(logits, y, reduction="none") for logits in module.exits(z)]).mean(0)


# ---- the forms


def test_one_exit_is_attacked_as_foolbox_attacks_a_network_with_that_output() -> None:
    module = network()
    expected = returned(pgd(norm="linf", eps="0.1", steps=4, step_size="0.03", random_start=False), module)
    assert torch.allclose(returned(plan("single"), module), expected, atol=1e-6)
    assert torch.equal(returned(plan("single", exit=2), module), returned(plan("single"), module))
    assert not torch.allclose(returned(plan("single", exit=0), module), expected, atol=1e-3)


def test_the_average_form_climbs_the_mean_of_the_losses() -> None:
    module = network()
    x, y = samples(module)
    z = x
    for _ in range(4):
        z = z.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(mean_loss(module, z, y).sum(), z)
        z = (z.detach() + 0.03 * gradient.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1)
    assert torch.allclose(returned(plan("average"), module), z, atol=1e-6)


def test_the_max_average_form_keeps_the_input_with_the_largest_mean_loss_of_those_for_each_exit() -> None:
    module = network()
    y = samples(module)[1]
    singles = torch.stack([returned(plan("single", exit=exit), module) for exit in range(3)])
    with torch.no_grad():
        best = torch.stack([mean_loss(module, z, y) for z in singles]).argmax(0)
    assert len(set(best.tolist())) > 1
    assert torch.equal(returned(plan("max-average"), module), singles[best, torch.arange(N)])


def test_under_the_oracle_the_steps_for_every_exit_are_judged_by_the_output() -> None:
    module = network()
    x, y = samples(module)
    broken = [
        set(ENGINE.run("decide", module, plan(form, exit=exit, eps="0.3"), 0, x, y, K).broken)
        for form, exit in (("single", 0), ("single", 1), ("single", 2), ("max-average", -1))
    ]
    assert broken[0] != broken[2]
    assert broken[3] == broken[0] | broken[1] | broken[2]


@pytest.mark.parametrize("form", ["single", "average", "max-average"])
@pytest.mark.parametrize("eps", ["0.000001", "0.1"])
def test_it_costs_what_its_bound_says(form: str, eps: str) -> None:
    module = network()
    x, y = samples(module)
    given = plan(form, eps=eps, restarts=2)
    kinds: tuple[Kind, ...] = ("decide", "returned")
    for kind in kinds:
        result = ENGINE.run(kind, module, given, 0, x, y, K)
        bound = stage_bound(given.stages[0], "linf", kind, Load(N, K, 16))
        assert result.cost.forward <= bound.forward
        assert result.cost.backward <= bound.backward
    if eps == "0.000001":
        runs = 6 if form == "max-average" else 2
        assert result.cost.backward == bound.backward == N * runs * 4


class Chosen(Branches):
    """An output that the early exit has no part in, and an early exit that any change turns over."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).mean(1) * 0 + 1, *[x.flatten(1).mean(1)] * (K - 1)], 1)


def test_an_exit_that_gives_way_breaks_nothing_where_the_output_stays() -> None:
    module = Chosen().eval()
    x, y = samples(module)
    for form in ("average", "max-average"):
        assert ENGINE.run("decide", module, plan(form), 0, x, y, K).broken == {}


# ---- the seam


def test_exits_are_counted_once_and_chunks_change_nothing() -> None:
    module = network()
    x = samples(module)[0]
    meter, z = Meter(), x.clone().requires_grad_(True)
    logits = Network(module, chunk=64, meter=meter).exits(z)
    assert logits.shape == (N, 3, K)
    assert meter == Meter(N, 0)
    torch.autograd.grad(logits.square().sum(), z)
    assert meter == Meter(N, N)
    module.seen.clear()
    assert torch.allclose(Network(module, chunk=3, meter=Meter()).exits(x), logits, atol=1e-6)
    assert module.seen == [3, 3, 2]


def oracle(module: nn.Module) -> Oracle:
    x, y = samples(module)
    with torch.no_grad():
        clean = module(x)
    return Oracle(Network(module, chunk=64, meter=Meter()), x, y, clean=clean, norm="linf", eps=0.1, mode="decide")


def test_what_is_frozen_is_not_forwarded_and_has_no_gradient() -> None:
    module = network()
    judge = oracle(module)
    frozen = torch.zeros(N, dtype=torch.bool)
    frozen[[1, 4]] = True
    module.seen.clear()
    with judge.call(torch.arange(N), frozen=frozen):
        z = judge.x.clone().requires_grad_(True)
        logits = judge.exits(z)
        (gradient,) = torch.autograd.grad(logits.sum(), z)
    assert module.seen == [N - 2]
    assert ((gradient.flatten(1) != 0).any(1) == ~frozen).all()
    assert logits.shape == (N, 3, K)


def test_exits_that_are_not_finite_are_no_survival() -> None:
    class Silent(Branches):
        def exits(self, x: Tensor) -> list[Tensor]:
            first, *others = super().exits(x)
            return [torch.where(torch.arange(len(x))[:, None] == 2, torch.nan, first), *others]

    module = Silent().eval()
    x, y = samples(module)
    result = ENGINE.run("decide", module, plan("average", eps="0.000001"), 0, x, y, K)
    assert result.broken == {}
    assert result.errors[2] == NOT_FINITE
    judge = oracle(module)
    with judge.call(torch.arange(N)) as call:
        judge.exits(judge.x)
    assert call.frozen.tolist() == [place == 2 for place in range(N)]


def test_the_adapter_normalises_what_the_exits_see() -> None:
    module = network()
    x = samples(module)[0]
    adapted = Model(module, mean=0.5, std=0.25)
    for ours, theirs in zip(adapted.exits(x), module.exits((x - 0.5) / 0.25), strict=True):
        assert torch.equal(ours, theirs)
    y = adapted(x).argmax(1)
    assert len(ENGINE.run("decide", adapted, plan(eps="0.2"), 0, x, y, K).broken) > 0


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.exits = nn.ModuleList([nn.Linear(16, K)])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.exits[0](x.flatten(1))
        return logits


WANTED = "an attack on several exits needs one that returns the logits of each"


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, K)), f"the model has no method exits(x): {WANTED}"),
        (Model(nn.Sequential(nn.Flatten(), nn.Linear(16, K))), f"the model has no method exits(x): {WANTED}"),
        (Listed(), f"the model has no method exits(x) (its attribute exits is a ModuleList): {WANTED}"),
        (Model(Listed()), f"the model has no method exits(x): {WANTED}"),
    ],
)
def test_a_model_without_exits_is_told_so(module: nn.Module, sentence: str) -> None:
    x, y = samples(module)
    with pytest.raises(ModelError) as caught:
        ENGINE.run("decide", module, plan(), 0, x, y, K)
    assert str(caught.value) == sentence


def test_exits_that_cannot_be_compared_or_are_others_than_the_plan_says_are_errors() -> None:
    class Odd(Branches):
        def exits(self, x: Tensor) -> list[Tensor]:
            return [*super().exits(x), x.flatten(1)]

        def forward(self, x: Tensor) -> Tensor:
            return super().exits(x)[0]

    module = network()
    x, y = samples(module)
    two = ENGINE.run("decide", module, plan(exits=2), 0, x, y, K)
    assert two.errors[0] == "multi-exit-pgd failed: PlanError: the plan says exits=2, the model has 3"
    odd = ENGINE.run("decide", Odd().eval(), plan(exits=4), 0, x, y, K)
    assert odd.errors[0].startswith(
        "multi-exit-pgd failed: ModelError: exits(x) gives [(8, 4), (8, 4), (8, 4), (8, 16)]"
    )


# ---- whether survival counts


def test_survival_of_exits_that_mislead_does_not_count() -> None:
    """Two classes, so that no second opinion on the margin can help out."""

    class Misleading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 2))

        def exits(self, x: Tensor) -> list[Tensor]:
            return [-self.net(x), -self.net(x)]

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x)
            return logits

    module = Misleading().eval()
    x, y = samples(module)
    with torch.no_grad():
        clean = module(x)
    given = plan(exits=2, eps="0.4")
    assert ENGINE.run("decide", module, given, 0, x, y, 2).broken == {}
    found = audit_plan(Case(ENGINE, module, given, x, y, clean, 2, N, N, {}))
    assert "multi-exit-pgd: PGD in its place broke" in found.problem


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"form": "maxaverage"}, "unknown form 'maxaverage': allowed are average, max-average, single"),
        ({"form": "single", "exit": 3}, "exit=3 is none of 3 exits: 0 is the first and -1 the last"),
        ({"form": "single", "exit": True}, "exit=True is none of 3 exits: 0 is the first and -1 the last"),
        ({"exit": 1}, "form='average' attacks all exits: leave exit=1 out, or use form='single'"),
        ({"exits": 0}, "exits=0 is not a whole number of at least 1"),
        ({"norm": "l2"}, "unknown norm 'l2': allowed are linf"),
    ],
)
def test_bad_input_is_one_sentence(given: dict[str, object], sentence: str) -> None:
    usual = {"form": "average", "exits": 3, "eps": "0.1", "steps": 2, "step_size": "0.1"}
    with pytest.raises(PlanError) as caught:
        multi_exit_pgd(**{**usual, **given})  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)
