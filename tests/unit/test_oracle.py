from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_prunerob.attacks import ATTACKS, Attack, Settings
from pytest_prunerob.engine import Engine
from pytest_prunerob.oracle import Meter, Network, Oracle, PositionsLostError, distances, projected
from pytest_prunerob.plans import Plan, Stage, ThreatModel

EPS = 0.25


class Sum(nn.Module):
    """Class 1 where the mean of the input is above 0.5, else class 0; counts what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        score = (x.flatten(1).mean(1) - 0.5) * self.weight
        return torch.stack([-score, score], 1)


def images(*means: float) -> Tensor:
    return torch.tensor(means).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def oracle(module: nn.Module, x: Tensor, *, norm: str = "linf", eps: float | None = EPS, chunk: int = 256) -> Oracle:
    network = Network(module, chunk=chunk, meter=Meter())
    with torch.no_grad():
        clean = module(x)
    mode = "minimise" if eps is None else "decide"
    return Oracle(network, x, clean.argmax(1), clean=clean, norm=norm, eps=eps, mode=mode)  # type: ignore[arg-type]


# ---- projection and distances


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["linf", "l2", "l1"]),
    st.one_of(st.floats(1e-9, 30), st.sampled_from([8 / 255, 0.2, 0.1, 0.5, 1e-12])),
    st.integers(0, 2**31),
    st.floats(1e-8, 10),
    st.sampled_from([(1, 2, 2), (1, 8, 8), (3, 16, 16)]),
)
def test_a_projection_lies_inside_ball_and_box(
    norm: str, eps: float, seed: int, scale: float, shape: tuple[int, int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, *shape, generator=generator)
    x[1], x[2], x[3] = 0, 1, (x[3] > 0.5).float()
    x[4] = torch.rand((), generator=generator)  # constant, so that all roundings go the same way
    z = x + scale * torch.randn(x.shape, generator=generator)
    z[4] = x[4] + scale
    z[5, 0, 0, 0] = float("nan")
    z[5, 0, 0, 1] = float("inf")
    copy = projected(x, z, norm, eps)
    assert copy.dtype == torch.float32
    assert copy.min() >= 0
    assert copy.max() <= 1
    assert (distances(x, copy, norm) <= eps).all()
    inside = x + (copy - x) * 0.5
    kept = projected(x, inside, norm, eps)
    assert torch.equal(kept[distances(x, inside, norm) <= eps], inside[distances(x, inside, norm) <= eps])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [12.0, 0.3, 1e-3])
def test_large_images_are_projected_too(norm: str, eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.stack([torch.rand(3, 224, 224, generator=generator), torch.full((3, 224, 224), 0.7)])
    z = torch.stack([x[0] + 0.1 * torch.randn(x[0].shape, generator=generator), x[1] + 0.01])
    copy = projected(x, z, norm, eps)
    length = distances(x, copy, norm)
    assert (length <= eps).all()
    if norm == "l2":
        assert (length >= 0.9 * torch.minimum(torch.tensor(eps), distances(x, z.clamp(0, 1), norm))).all()


def test_distances_in_all_norms() -> None:
    x, z = torch.zeros(1, 1, 1, 3), torch.tensor([0.5, -0.25, 0.0]).view(1, 1, 1, 3)
    found = {norm: distances(x, z, norm).item() for norm in ("linf", "l2", "l1")}
    assert found == {"linf": 0.5, "l2": 0.3125**0.5, "l1": 0.75}


# ---- what counts as a witness


def test_only_a_verified_proposal_is_a_witness() -> None:
    x = images(0.4, 0.4, 0.4, 0.2, 0.4, 0.4)
    found = oracle(Sum(), x)
    z = images(0.6, 0.45, 0.4 + 2 * EPS, 0.2 + 1.01 * EPS, 0.4 + 1.01 * EPS, 0.55)
    z[5, 0, 0, 0] = float("nan")
    #      inside, correct, far outside, projection is correct, projection is wrong, not finite
    assert found.submit(z, torch.arange(6)).tolist() == [True, False, False, False, True, False]
    assert found.broken.tolist() == [True, False, False, False, True, False]
    assert torch.equal(found.witness[0], z[0])
    assert not torch.equal(found.witness[4], z[4])
    length = distances(x, found.witness, "linf")
    assert (length <= EPS).all()
    assert found.distance[[0, 4]].tolist() == length[[0, 4]].tolist()
    assert found.distance[1] == float("inf")


def test_a_proposal_outside_the_box_counts_as_its_copy_inside() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    x[:, 0, 0] = 0.9
    x[:, 0, 1] = torch.tensor([[0.05], [0.08]])  # means 0.475 and 0.49
    z = x.clone()
    z[:, 0, 0] += 0.2  # 1.1, in the box only 1.0: the means are 0.525 and 0.54
    found = oracle(Sum(), x)
    assert found.submit(z, torch.arange(2)).tolist() == [True, True]
    assert found.witness.max() == 1
    z[:, 0, 1] -= 0.05  # leaves the box below too: 0.5 at most is left of the first
    again = oracle(Sum(), x)
    assert again.submit(z, torch.arange(2)).tolist() == [False, True]


def test_samples_with_a_witness_are_not_forwarded_again() -> None:
    module, x = Sum(), images(0.4, 0.1, 0.45)
    found = oracle(module, x)
    module.batches.clear()
    rows, after = torch.arange(3), []
    with found.call(rows):
        first = found(images(0.6, 0.2, 0.46))
        after.append(found(images(0.41, 0.2, 0.6)).argmax(1).tolist())  # the first is answered with what broke it
        after.append(found(images(0.41, 0.2, 0.46)).argmax(1).tolist())
    assert first.argmax(1).tolist() == [1, 0, 0]
    assert after == [[1, 0, 1], [1, 0, 1]]
    assert module.batches == [3, 2, 1]
    assert found.network.meter.forward == 6
    assert found.survivors().tolist() == [1]
    with found.call(torch.tensor([1])):
        found(images(0.3))
        found(images(0.35))
    assert module.batches == [3, 2, 1, 1, 1]


def test_an_attack_ends_when_nothing_is_left() -> None:
    found = oracle(Sum(), images(0.4, 0.45))
    steps = []
    with found.call(torch.arange(2)):
        for step in range(10):
            found(images(0.6, 0.6))
            steps.append(step)
    assert steps == [0]
    with found.call(torch.arange(2), frozen=torch.tensor([True, True])):
        found(images(0.1, 0.1))
        steps.append(99)
    assert steps == [0]


def test_gradients_reach_the_attack_whatever_is_frozen_and_however_it_is_chunked() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    x = torch.rand(9, 1, 2, 2)
    results = []
    for chunk in (1, 2, 7, 256):
        found = oracle(module, x, chunk=chunk)
        with found.call(torch.arange(9), frozen=torch.arange(9) == 4):
            z = x.clone().requires_grad_()
            logits = found(z)
            results.append((logits.detach(), torch.autograd.grad(logits.square().sum(), z)[0]))
    for logits, gradient in results[1:]:
        torch.testing.assert_close(logits, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])
    assert gradient[4].abs().max() == 0
    assert gradient[[3, 5]].abs().amin() > 0


def test_a_forward_of_another_length_loses_the_positions() -> None:
    found = oracle(Sum(), images(0.4, 0.45))
    with pytest.raises(PositionsLostError, match="forwarded 1 inputs for 2 samples"), found.call(torch.arange(2)):
        found(images(0.6))
    assert found.broken.tolist() == [False, False]


def test_minimising_keeps_the_smallest_witness_and_freezes_nothing() -> None:
    module, x = Sum(), images(0.25, 0.25)
    found = oracle(module, x, eps=None)
    module.batches.clear()
    with found.call(torch.arange(2)):
        for means in ((1.0, 0.3), (0.625, 0.3), (0.75, 0.3)):
            found(images(*means))
    assert module.batches == [2, 2, 2]
    assert found.distance.tolist() == [0.375, float("inf")]
    assert torch.equal(found.witness[0], images(0.625)[0])
    found.submit(images(0.8, 0.5625, 0.75), torch.tensor([1, 1, 1]))  # one sample, several rows
    assert found.distance.tolist() == [0.375, 0.3125]
    assert torch.equal(found.witness[1], images(0.5625)[0])


class Poisoned(Sum):
    """NaN where the mean is above ``edge``."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        bad = x.flatten(1).mean(1, keepdim=True) > self.edge
        return super().forward(x).masked_fill(bad, float("nan"))


def test_what_is_not_finite_is_an_error_and_never_a_witness() -> None:
    found = oracle(Poisoned(0.55), images(0.4, 0.4, 0.1))
    with found.call(torch.arange(3)):
        found(images(0.6, 0.52, 0.2))
    assert found.errors == {0: "the output is not finite inside the ball"}
    assert found.broken.tolist() == [False, True, False]
    assert found.survivors().tolist() == [2]


class Band(Sum):
    """NaN where the mean is between ``low`` and ``high``, or a pixel is outside [0, 1] where ``box`` says so."""

    def __init__(self, low: float, high: float, *, box: bool = False) -> None:
        super().__init__()
        self.low, self.high, self.box = low, high, box

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        bad = (mean > self.low) & (mean < self.high)
        if self.box:
            bad |= ((x < 0) | (x > 1)).flatten(1).any(1, keepdim=True)
        return super().forward(x).masked_fill(bad, float("nan"))


def test_not_finite_outside_the_ball_is_looked_at_inside() -> None:
    x = images(0.4, 0.3, 0.2, 0.2)
    far = images(0.4 + 3 * EPS, 0.3 + 3 * EPS, 0.2 + 3 * EPS, 0.2)  # ends inside at 0.65, 0.55 and 0.45
    found = oracle(Band(0.8, 1.2), x)
    found.submit(far, torch.arange(4))
    assert found.broken.tolist() == [True, True, False, False]
    assert torch.equal(found.witness[:2], projected(x[:2], far[:2], "linf", EPS))
    assert found.undecided() == {
        2: "the output is not finite at an input outside the ball that the attack went through"
    }
    silent = oracle(Band(0.6, 1.2), x)
    silent.submit(far, torch.arange(4))
    assert silent.broken.tolist() == [False, True, False, False]
    assert silent.undecided()[0] == "the output is not finite inside the ball"
    assert silent.undecided().keys() == {0, 2}


def test_not_finite_outside_the_box_is_looked_at_inside() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    x[:, 0, 0] = 0.9
    x[:, 0, 1] = torch.tensor([[0.05], [0.0]])
    z = x.clone()
    z[:, 0, 0] += 0.2  # 1.1, in the box only 1.0: means 0.525 and 0.5
    found = oracle(Band(2, 2, box=True), x)
    found.submit(z, torch.arange(2))
    assert found.broken.tolist() == [True, False]
    assert found.undecided().keys() == {1}


def test_a_projection_that_is_not_finite_is_not_lost() -> None:
    found = oracle(Band(0.645, 0.651), images(0.4))
    found.submit(images(0.4 + 1.01 * EPS), torch.arange(1))  # misclassified, and its projection is at 0.65
    assert found.broken.tolist() == [False]
    assert found.undecided() == {0: "the output is not finite inside the ball"}


def test_a_witness_behind_what_is_not_finite_has_no_distance() -> None:
    x = images(0.4, 0.4, 0.4)
    found = oracle(Band(0.44, 0.46), x, eps=None)
    found.submit(images(0.6, 0.45, 0.6), torch.arange(3))
    found.submit(images(0.45, 0.6, 0.6), torch.arange(3))
    assert found.broken.all()
    assert found.undecided() == dict.fromkeys((0, 1), "the output is not finite inside the ball")
    nearer = oracle(Band(0.9, 1.1), x, eps=None)
    nearer.submit(images(1.0, 0.6, 0.6), torch.arange(3))
    nearer.submit(images(0.6, 1.0, 0.6), torch.arange(3))
    assert nearer.undecided() == {}


@pytest.mark.parametrize(
    ("places", "errors"), [([0.6], {1}), ([0.69], {1}), ([0.55], {1, 2}), ([0.95], {1}), ([0.2, 0.4], set())]
)
def test_attacks_that_lose_positions_hide_nothing_that_is_not_finite(
    monkeypatch: pytest.MonkeyPatch, places: list[float], errors: set[int]
) -> None:
    def perturb(model: Any, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
        model(torch.stack([images(value)[0] for value in places]))
        return x

    x, y = images(0.1, 0.45, 0.3), torch.zeros(3, dtype=torch.long)
    attack = Attack("fake", ("linf",), "fixed", "none", "none", False, False, perturb, drive=lambda o, s: run(o, s))
    monkeypatch.setitem(ATTACKS, "fake", attack)

    def run(oracle: Oracle, settings: Settings) -> None:
        oracle.submit(perturb(oracle, oracle.x[:2], oracle.y[:2], settings), torch.tensor([0, 1]))

    plan = Plan("fake", "fixed", ThreatModel("linf", "0.25"), (Stage("fake"),))
    result = engine().run("decide", Poisoned(0.5), plan, 0, x, y, 2)
    assert result.errors.keys() == errors
    assert result.broken == {}


# ---- the network


class Small(Sum):
    """A device that has memory for ``limit`` samples, in the forward or in the backward pass."""

    def __init__(self, limit: int, *, backward: bool = False) -> None:
        super().__init__()
        self.limit, self.backward = limit, backward

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.backward and logits.requires_grad:
            logits.register_hook(lambda gradient: self.check(gradient))
        elif not self.backward:
            self.check(x)
        return logits

    def check(self, x: Tensor) -> None:
        if len(x) > self.limit:
            raise torch.OutOfMemoryError(f"no memory for {len(x)}")


def test_memory_that_runs_out_halves_the_chunk() -> None:
    module = Small(3)
    network = Network(module, chunk=256, meter=Meter())
    logits = network(images(*[0.1] * 20, 0.9))
    assert logits.argmax(1).tolist() == [0] * 20 + [1]
    assert network.chunk == 2
    assert max(module.batches[-3:]) <= 2
    with pytest.raises(torch.OutOfMemoryError):
        Network(Small(0), chunk=256, meter=Meter())(images(0.1, 0.2))


# ---- the engine

FGSM = Plan("fgsm", "fixed", ThreatModel("linf", "0.25"), (Stage("fgsm", (("random_start", False),)),))


def engine(chunk: int = 256) -> Engine:
    return Engine("cpu", chunk=chunk, seed=5)


def register(monkeypatch: pytest.MonkeyPatch, perturb: Callable[..., Any], *, keeps_positions: bool = True) -> Plan:
    attack = Attack("fake", ("linf",), "fixed", "none", "none", False, keeps_positions, perturb)
    monkeypatch.setitem(ATTACKS, "fake", attack)
    return Plan("fake", "fixed", ThreatModel("linf", "0.25"), (Stage("fake"),))


@pytest.mark.parametrize("kind", ["decide", "returned"])
@pytest.mark.parametrize("backward", [False, True])
def test_memory_that_runs_out_is_no_outcome(kind: Any, backward: bool) -> None:
    x, y = images(*[0.4] * 6, 0.1), torch.zeros(7, dtype=torch.long)
    result = engine().run(kind, Small(2, backward=backward), FGSM, 0, x, y, 2)
    assert (sorted(result.broken), result.errors) == ([0, 1, 2, 3, 4, 5], {})
    with pytest.raises(torch.OutOfMemoryError):
        engine().run(kind, Small(0, backward=backward), FGSM, 0, x, y, 2)


def test_a_failing_attack_is_an_error_of_the_samples_without_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    def perturb(model: Any, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
        model(images(0.6, 0.2))
        model(images(0.2))
        raise AssertionError

    x, y = images(0.4, 0.1), torch.zeros(2, dtype=torch.long)
    result = engine().run("decide", Sum(), register(monkeypatch, perturb), 0, x, y, 2)
    assert list(result.broken) == [0]
    assert result.errors == {
        1: "fake failed: PositionsLostError: the attack forwarded 1 inputs for 2 samples",
    }
    returned = engine().run("returned", Sum(), register(monkeypatch, perturb), 0, x, y, 2)
    assert (returned.broken, returned.errors.keys()) == ({}, {0, 1})


def test_an_attack_that_leaves_the_threat_model_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = register(monkeypatch, lambda model, x, y, settings: x + torch.tensor([0.25, 0.5]).view(-1, 1, 1, 1))
    x, y = images(0.4, 0.4), torch.zeros(2, dtype=torch.long)
    assert engine().run("decide", Sum(), plan, 0, x, y, 2).broken.keys() == {0}
    returned = engine().run("returned", Sum(), plan, 0, x, y, 2)
    assert (returned.broken.keys(), returned.errors) == ({0}, {1: "the attack left the threat model"})


def test_nan_inside_the_ball_is_an_error() -> None:
    x, y = images(0.4, 0.1), torch.zeros(2, dtype=torch.long)
    decided = engine().run("decide", Poisoned(0.45), FGSM, 0, x, y, 2)
    assert (decided.broken, decided.errors) == ({}, {0: "the output is not finite inside the ball"})
    returned = engine().run("returned", Poisoned(0.45), FGSM, 0, x, y, 2)
    assert (returned.broken, returned.errors) == ({}, {0: "the output is not finite"})
    clean = engine().run("decide", Poisoned(0.05), FGSM, 0, x, y, 2)
    assert clean.errors[1] == "the output is not finite on the clean input"
    assert clean.broken == {}


def test_chunks_change_no_outcome() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    x = torch.rand(20, 1, 4, 4)
    y = module(x).argmax(1)
    stage = Stage("apgd-t", (("restarts", 1), ("rho", "3/4"), ("steps", 8), ("targets", 3)))
    plan = Plan("t", "fixed", ThreatModel("linf", "0.1"), (stage,))
    found = [engine(chunk).run("decide", module, plan, 0, x, y, 4) for chunk in (1, 7, 256)]
    assert 0 < len(found[0].broken) < 20
    assert found[0].broken.keys() == found[1].broken.keys() == found[2].broken.keys()
    again = engine().run("decide", module, plan, 0, x, y, 4)
    assert again.broken == found[2].broken


def test_all_global_state_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def perturb(model: Any, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - what a library does
        random.seed(0)
        sys.settrace(None)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        warnings.warn("a library's warning", stacklevel=1)
        raise ValueError("failed")

    def trace(*_: object) -> None: ...

    def state() -> tuple[object, ...]:
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # type: ignore[index] # noqa: NPY002
            random.getstate(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            [parameter.requires_grad for parameter in module.parameters()],
            list(warnings.filters),
        )

    plan, threads, tracer = register(monkeypatch, perturb), torch.get_num_threads(), sys.gettrace()
    module = nn.Sequential(Sum(), nn.Linear(2, 2))
    module[1].bias.requires_grad_(False)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False, warn_only=True)
    try:
        before = state()
        sys.settrace(trace)
        result = engine().run("decide", module, plan, 0, images(0.4), torch.zeros(1, dtype=torch.long), 2)
        kept = sys.gettrace()
        sys.settrace(tracer)
        assert kept is trace
        assert result.errors == {0: "fake failed: ValueError: failed"}
        assert state() == before
        assert all(parameter.grad is None for parameter in module.parameters())
    finally:
        sys.settrace(tracer)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
