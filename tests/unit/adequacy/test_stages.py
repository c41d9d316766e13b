"""The indicators of attack stages, one by one, on networks and attacks that are made to trip exactly one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.adequacy import Audit, Case, Check, audit_plan, how_many
from pytest_prunerob.adequacy.check import CHECKED, FEWEST
from pytest_prunerob.adequacy.stages import audit_stage, black_box, forwards, second_loss, unstable
from pytest_prunerob.attacks import ATTACKS, Attack, Settings
from pytest_prunerob.engine import Engine
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Plan, autoattack, fgsm, pgd

K, CLASSES = 12, 5
ENGINE = Engine("cpu", 250, 0)


def network(scale: float = 1.0, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, CLASSES)).eval()
    net[3].weight.data *= 4 * scale
    net[3].bias.data *= 4 * scale
    return net


def case(module: nn.Module, plan: Plan, *, n: int = K, broken_by: dict[int, int] | None = None) -> Case:
    """Samples of a class that the network is sure of: it has to be attacked to tell."""
    torch.manual_seed(1)
    x = torch.rand(K, 1, 6, 6)
    with torch.no_grad():
        clean = module(x)
    return Case(ENGINE, module, plan, x, clean.argmax(1), clean, CLASSES, n, K, broken_by or {})


def failed(found: Audit | list[Check]) -> set[str]:
    checks = found.checks if isinstance(found, Audit) else found
    return {check.indicator for check in checks if check.outcome == "failed"}


def test_a_healthy_network_trips_nothing() -> None:
    plan = autoattack(["apgd-ce", "apgd-t", "fab-t", "square"], norm="linf", eps="0.01")
    found = audit_plan(case(network(), plan))
    assert failed(found) == set()
    assert found.problem == ""
    assert found.adequate == ("apgd-ce", "apgd-t", "fab-t")
    assert {check.indicator for check in found.checks} == {
        "black-box",
        "unstable",
        "zero-gradient",
        "flat-loss",
        "non-finite-loss",
        "not-converged",
        "rerun",
        "second-loss",
    }


class Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).sign()


def test_a_sign_network_has_no_gradient_in_any_stage() -> None:
    net = nn.Sequential(Sign(), network()).eval()
    found = audit_plan(case(net, autoattack(["apgd-ce", "fab-t"], norm="linf", eps="0.01")))
    assert {c.stage for c in found.checks if c.indicator == "zero-gradient" and c.outcome == "failed"} == {
        "apgd-ce",
        "fab-t",
    }
    assert found.adequate == ()
    assert "no gradient stage could have broken the survivors" in found.problem


def test_a_saturated_cross_entropy_needs_another_stage() -> None:
    net = network(scale=5000)
    ce = audit_plan(case(net, autoattack(["apgd-ce"], norm="linf", eps="0.0001")))
    assert "zero-gradient" in failed(ce)
    assert ce.problem
    both = audit_plan(case(net, autoattack(["apgd-ce", "apgd-t"], norm="linf", eps="0.0001")))
    assert both.problem == ""
    assert both.adequate == ("apgd-t",)


def fake(drive: Any, *, convergence: Any = "trace") -> Attack:
    return replace(ATTACKS["apgd-ce"], drive=drive, convergence=convergence)


def ascent(oracle: Oracle, *, steps: int, size: float, start: float = 0.0) -> None:
    """Plain steps along the gradient of the margin."""
    rows = torch.arange(len(oracle.x))
    z = oracle.x + start
    with oracle.call(rows):
        for _ in range(steps):
            z = z.detach().clone().requires_grad_(True)
            logits = oracle(z)
            (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, oracle.y, reduction="sum"), z)
            z = z + size * gradient.sign()


def watched(monkeypatch: pytest.MonkeyPatch, drive: Any, module: nn.Module | None = None, **changes: Any) -> Audit:
    monkeypatch.setitem(ATTACKS, "apgd-ce", fake(drive, **changes))
    plan = autoattack(["apgd-ce"], norm="linf", eps="0.01")
    return audit_stage(case(module or network(), plan), 0)


def test_an_attack_that_returns_its_input_took_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(oracle: Oracle, settings: Settings) -> None:
        oracle.submit(oracle.x, torch.arange(len(oracle.x)))

    found = watched(monkeypatch, nothing)
    assert "it took no gradient of the model at all" in found.problem


def test_a_loss_that_does_not_move_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failed(watched(monkeypatch, lambda o, s: ascent(o, steps=8, size=0.0))) == {"flat-loss"}
    assert failed(watched(monkeypatch, lambda o, s: ascent(o, steps=40, size=0.001 / 40))) >= {"not-converged"}


def test_a_loss_that_still_rises_is_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failed(watched(monkeypatch, lambda o, s: ascent(o, steps=20, size=0.0002))) == {"not-converged"}

    def arrives(oracle: Oracle, settings: Settings) -> None:
        ascent(oracle, steps=4, size=0.001)
        rows = torch.arange(len(oracle.x))
        with oracle.call(rows):
            start = oracle.x.clone().requires_grad_(True)
            for size in [0.002, 0.001, 0.0005, *[0.0] * 20]:
                (g,) = torch.autograd.grad(oracle(start).logsumexp(1).sum() - oracle(start)[:, 0].sum(), start)
                start = (start + size * g.sign()).detach().requires_grad_(True)

    assert "not-converged" not in failed(watched(monkeypatch, arrives))


class NotANumberBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * float("nan")


def test_a_gradient_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(NotANumberBackwards.apply(x))

    found = watched(monkeypatch, lambda o, s: ascent(o, steps=3, size=0.0001, start=1e-5), Broken().eval())
    assert "non-finite-loss" in failed(found)


def test_a_rerun_that_breaks_several_survivors(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()

    def breaks(oracle: Oracle, settings: Settings) -> None:
        ascent(oracle, steps=60, size=0.01)

    monkeypatch.setitem(ATTACKS, "apgd-ce", fake(breaks, convergence="doubled"))
    plan = autoattack(["apgd-ce"], norm="linf", eps="0.5")
    found = audit_stage(case(net, plan), 0)
    assert "rerun" in failed(found)
    ((stage, result),) = found.results
    assert stage == 0
    assert len(result.broken) >= 3
    # Three of twelve survivors among a hundred thousand samples are no more than chance would break.
    assert "rerun" not in failed(audit_stage(replace(case(net, plan), n=100_000), 0))


def test_what_one_stage_breaks_in_its_rerun_is_not_mended_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "apgd-ce", fake(lambda o, s: ascent(o, steps=60, size=0.01), convergence="doubled"))
    monkeypatch.setitem(ATTACKS, "apgd-t", fake(lambda o, s: ascent(o, steps=2, size=1e-4), convergence="doubled"))
    found = audit_plan(case(network(), autoattack(["apgd-ce", "apgd-t"], norm="linf", eps="0.5")))
    assert found.adequate == ("apgd-t",)
    assert "run again it broke" in found.problem


@pytest.mark.parametrize(
    ("found", "n", "outcome"),
    [(2, 100, "passed"), (3, 100, "failed"), (5, 5000, "passed"), (11, 5000, "failed")],
)
def test_black_box_breaks_after_the_gradient_stages(found: int, n: int, outcome: str) -> None:
    plan = autoattack(["apgd-ce", "square"], norm="linf", eps="0.1")
    assert black_box(case(network(), plan, n=n, broken_by={0: 40, 1: found})).outcome == outcome
    first = autoattack(["square", "apgd-ce"], norm="linf", eps="0.1")
    assert black_box(case(network(), first, n=n, broken_by={0: found, 1: 40})).outcome == "passed"
    alone = autoattack(["apgd-ce"], norm="linf", eps="0.1")
    assert black_box(case(network(), alone, n=n, broken_by={0: found})).outcome == "not applicable"


def test_a_margin_undoes_what_a_flat_cross_entropy_missed() -> None:
    """Logits so small that the softmax is nearly uniform: cross-entropy pulls at all classes alike."""
    net = network(scale=1e-3)
    plan = autoattack(["apgd-ce"], norm="linf", eps="0.12")
    base = case(net, plan)
    broken = ENGINE.run("decide", net, plan, 0, base.x, base.y, CLASSES).broken
    left = [i for i in range(K) if i not in broken]
    kept = replace(base, x=base.x[left], y=base.y[left], clean=base.clean[left], survivors=len(left))
    assert failed(second_loss(kept)) == {"second-loss"}
    margins = replace(kept, plan=autoattack(["apgd-ce", "apgd-t"], norm="linf", eps="0.12"))
    assert second_loss(margins).checks[0].outcome == "not applicable"


def test_a_plan_without_gradient_stages_is_no_evidence() -> None:
    found = audit_plan(case(network(), autoattack(["square"], norm="linf", eps="0.01")))
    assert found.problem == "no gradient stage could have broken the survivors (the plan has none)"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_margin_that_jumps_between_neighbours(norm: str) -> None:
    class Saw(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 0.3 * torch.sin(4000 * x)

    plan = autoattack(["apgd-ce"], norm=norm, eps="0.1")
    assert unstable(case(network(), plan)).outcome == "passed"
    assert unstable(case(nn.Sequential(Saw(), network()).eval(), plan)).outcome == "failed"


def test_the_audit_costs_a_twentieth_of_the_plan_but_looks_at_a_few() -> None:
    standard = autoattack("standard", norm="linf", eps="0.1")
    assert how_many(standard, 1000, 1000) == CHECKED
    few = pgd(norm="linf", eps="0.1", steps=10, step_size="0.02")
    assert how_many(few, 500, 1000) == 23  # 3,000 samples; a twentieth would be 4
    assert how_many(few, 5, 1000) == 5
    assert how_many(fgsm(norm="linf", eps="0.1"), 100, 100) == 27
    assert how_many(standard, 100, 1) == FEWEST
    assert forwards(standard.stages[-1]) == 5000


class OutOfReach(nn.Module):
    """A network one of whose classes always has the same small probability: no input comes nearer to it."""

    def __init__(self, inner: nn.Module, missing: int) -> None:
        super().__init__()
        self.inner, self.missing = inner, missing

    def forward(self, x: Tensor) -> Tensor:
        before, _, after = self.inner(x).split([self.missing, 1, CLASSES - 1 - self.missing], dim=1)
        return torch.cat([before, torch.cat([before, after], 1).logsumexp(1, keepdim=True) - 3, after], dim=1)


def test_a_targeted_stage_is_judged_by_its_way_to_the_target() -> None:
    step: dict[str, Any] = {"norm": "linf", "eps": "0.01", "steps": 5, "step_size": "0.005"}
    plain, targeted = pgd(**step), pgd(**step, target="least-likely")
    # Where the model is sure, the cross-entropy of the label is flat and that of the target is not.
    sure = network(scale=100)
    assert "zero-gradient" in failed(audit_stage(case(sure, plain), 0))
    assert failed(audit_plan(case(sure, targeted))) == set()
    # The other way round: the label can be left, and the target cannot be reached.
    label = int(case(network(), plain).y[0])
    found = case(OutOfReach(network(), (label + 1) % CLASSES).eval(), pgd(**step, target="next"))
    assert (found.y == label).all()
    assert "zero-gradient" in failed(audit_stage(found, 0))
    assert failed(audit_stage(replace(found, plan=plain), 0)) == set()


def test_a_targeted_plan_is_held_against_apgd_towards_the_same_class() -> None:
    short = pgd(norm="linf", eps="0.5", steps=1, step_size="0.01", random_start=False, target="least-likely")
    check = second_loss(case(network(), short)).checks[0]
    assert check.outcome == "failed"
    assert "APGD on the margin broke" in check.message
    # No sample can be brought to a class that is never given, and an untargeted break is none.
    label = int(case(network(), short).y[0])
    found = case(OutOfReach(network(), (label + 1) % CLASSES).eval(), short)
    assert second_loss(found).checks[0].value != 0
    following = replace(short, threat=replace(short.threat, target="next"))
    assert second_loss(replace(found, plan=following)).checks[0].value == 0
