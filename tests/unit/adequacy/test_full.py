"""The level "full", subjects that compute in steps, and distances: what trips each indicator and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.adequacy import Audit, Case, audit_distances, audit_fully, audit_steps
from pytest_prunerob.adequacy.full import silent, sweep, unbounded
from pytest_prunerob.adequacy.readout import audit_readout
from pytest_prunerob.adequacy.stages import second_loss
from pytest_prunerob.attacks import ATTACKS, Settings
from pytest_prunerob.engine import Engine
from pytest_prunerob.oracle import Oracle
from pytest_prunerob.plans import Plan, autoattack, fmn, pgd

K, CLASSES = 8, 5
ENGINE = Engine("cpu", 250, 0)
PLAN = autoattack(["apgd-ce", "apgd-t"], norm="linf", eps="0.05")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 48), nn.ReLU(), nn.Linear(48, CLASSES))
    return net.eval()


def case(module: nn.Module, plan: Plan = PLAN) -> Case:
    torch.manual_seed(1)
    x = torch.rand(K, 1, 6, 6)
    with torch.no_grad():
        clean = module(x)
    return Case(ENGINE, module, plan, x, clean.argmax(1), clean, CLASSES, 100, K, {})


def failed(found: Audit) -> set[str]:
    return {check.indicator for check in found.checks if check.outcome == "failed"}


def outcomes(found: Audit) -> dict[str, str]:
    return {check.indicator: check.outcome for check in found.checks}


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x - 0.5).sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


class Signs(nn.Module):
    """A first layer, its signs with a straight-through gradient, and a readout."""

    def __init__(self, steps: Callable[[Tensor], Tensor] = StraightThrough.apply) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last, self.steps = nn.Linear(36, 48), nn.Linear(48, CLASSES), steps

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.steps(self.first(x.flatten(1))))


class Masked(nn.Module):
    """The inner network behind a gradient that says nothing: that of the noise pattern, not of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        torch.manual_seed(5)
        self.register_buffer("wrong", torch.randn(36, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.wrong, Tensor)
        misleading = 1e-3 * x.flatten(1) @ self.wrong
        return self.inner(x.detach()) + misleading - misleading.detach()


def test_a_healthy_network_passes_everything() -> None:
    healthy = case(network())
    assert outcomes(audit_fully(healthy)) == {
        "unbounded": "passed",
        "eps-sweep": "passed",
        "binarised-readout": "passed",
    }
    assert outcomes(audit_steps(healthy, None)) == {"steps": "passed"}


def test_gradients_that_lead_nowhere_fail_the_attacks_that_must_succeed() -> None:
    masked = case(Masked().eval())
    assert "unbounded" in failed(unbounded(masked))
    assert "binarised-readout" in failed(audit_readout(masked))


def test_a_targeted_attack_has_the_class_to_be_found_as_its_target() -> None:
    # The least likely class of a readout is never given: an attack towards it would solve no task, however good.
    plan = pgd(norm="linf", eps="0.05", steps=5, step_size="0.025", target="least-likely")
    healthy, masked = case(network(), plan), case(Masked().eval(), plan)
    assert outcomes(audit_readout(replace(healthy, x=healthy.x[:3]))) == {"binarised-readout": "passed"}
    assert outcomes(audit_readout(replace(masked, x=masked.x[:3]))) == {"binarised-readout": "failed"}


def test_a_model_without_a_linear_layer_has_no_readout() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :CLASSES] * 8

    assert outcomes(audit_readout(case(Plain().eval()))) == {"binarised-readout": "not applicable"}


def test_a_smaller_ball_that_breaks_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack that finds only what is far inside its ball: it starts at the surface and does not come back."""

    def short(oracle: Oracle, settings: Settings) -> None:
        rows = torch.arange(len(oracle.x))
        if settings.radius > 0.3:
            return
        with oracle.call(rows):
            start = oracle.x.clone().requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(oracle(start), oracle.y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, start)
            oracle((oracle.x + settings.radius * gradient.sign()).clamp(0, 1))

    plan = autoattack(["apgd-ce"], norm="linf", eps="0.5")
    monkeypatch.setitem(ATTACKS, "apgd-ce", replace(ATTACKS["apgd-ce"], drive=short))
    found = sweep(case(network(), plan))
    assert failed(found) == {"eps-sweep"}
    assert found.results  # what a quarter or half of ε breaks, ε breaks


def test_silent_success_is_told_and_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clean: Callable[..., Tensor] = lambda model, x, y, settings: x  # noqa: E731
    monkeypatch.setitem(ATTACKS, "apgd-ce", replace(ATTACKS["apgd-ce"], perturb=clean))
    base = case(network())
    found = silent(replace(base, examples={0: (base.x, base.y)}), 0)
    assert failed(found) == {"silent-success"}
    assert found.problem == ""


def test_straight_through_gradients_need_a_black_box_and_a_twin() -> None:
    signs = Signs().eval()
    assert "survival needs a black-box stage" in audit_steps(case(signs), None).problem
    plan = autoattack(["apgd-ce", "square"], norm="linf", eps="0.02")
    assert "survival needs transfer from the float network" in audit_steps(case(signs, plan), None).problem
    twin = Signs(lambda h: torch.tanh(8 * (h - 0.5))).eval()
    near = autoattack(["apgd-ce", "square"], norm="linf", eps="0.0001")
    assert audit_steps(case(signs, near), twin).checks[0].outcome == "passed"
    far = autoattack(["apgd-ce", "square"], norm="linf", eps="0.9")
    transferred = audit_steps(case(signs, far), twin)
    assert failed(transferred) == {"steps"}
    assert transferred.results


def test_distances_that_a_second_method_undercuts() -> None:
    net = network()
    plan = fmn(norm="linf", steps=40)
    distances = case(net, plan)
    near = ENGINE.run("minimise", net, plan, 0, distances.x, distances.y, CLASSES)
    found = [near.values[i] for i in range(K)]
    assert failed(audit_distances(distances, found)) == set()
    assert audit_distances(distances, found).problem == ""
    far = [1.5 * value for value in found]
    assert failed(audit_distances(distances, far)) == {"second-method", "doubled-steps"}
    one_in_eight = [1.5 * found[0], *found[1:]]
    assert failed(audit_distances(distances, one_in_eight)) == set()
    missing = [float("inf")] * 3 + found[3:]
    assert "second-method" in failed(audit_distances(distances, missing))


def test_an_exception_is_no_sign_of_a_working_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(oracle: Oracle, settings: Settings) -> None:
        raise RuntimeError("out of order")

    base = case(network(), autoattack(["apgd-ce"], norm="linf", eps="0.01"))
    monkeypatch.setitem(ATTACKS, "apgd-dlr", replace(ATTACKS["apgd-dlr"], drive=broken))
    assert "met an error when it was tried: apgd-dlr failed: RuntimeError" in second_loss(base).problem
    monkeypatch.setitem(ATTACKS, "apgd-ce", replace(ATTACKS["apgd-ce"], drive=broken))
    assert failed(sweep(base)) == {"eps-sweep"}
    monkeypatch.setitem(ATTACKS, "fab-min", replace(ATTACKS["fab-min"], drive=broken))
    assert failed(audit_distances(case(network(), fmn(norm="linf", steps=5)), [1e-6] * K)) == {"second-method"}
