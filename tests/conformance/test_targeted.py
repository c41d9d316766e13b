"""Attacks towards a class: against their library on the same micro-batch and seed, and what counts as their breaks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import apgd, bim, momentum, pgd
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.engine import Engine, targets
from pytest_prunerob.oracle import distances
from pytest_prunerob.plans import TARGETS, Plan
from tests.conformance.catalogue import CASES
from tests.conformance.catalogue.case import SEED
from tests.conformance.catalogue.foolbox import _bim, _momentum_l2, _pgd
from tests.conformance.test_attacks import Subject, correct, drive_library, run

EPS = {"linf": "0.25", "l2": "1.2", "l1": "5"}


def _plan(make: Callable[..., Plan], norm: str, target: str, **more: Any) -> Plan:
    step = {} if make is apgd else {"step_size": str(Fraction(EPS[norm]) / 5)}
    return make(norm=norm, eps=EPS[norm], steps=8, target=target, **step, **more)


def _goal(plan: Plan, subject: Subject) -> Tensor:
    module, x, y = subject
    with torch.no_grad():
        found = targets(plan.threat.target, x, y, module(x))
    assert found is not None
    return found


def _foolbox(make: Callable[..., Any], plan: Plan, subject: Subject, goal: Tensor) -> Tensor:
    """What foolbox's own call returns, with the criterion that it has for targets."""
    import foolbox

    module, x, _ = subject
    params = dict(plan.stages[0].params)
    torch.manual_seed(SEED)
    attack = make(plan, params)
    attack = getattr(attack, "attack", attack)  # one restart, which foolbox's repetition would draw in the same way
    wrapped = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    returned: Tensor = attack(wrapped, x, foolbox.TargetedMisclassification(goal), epsilons=float(plan.threat.radius))[
        1
    ]
    return returned


@pytest.mark.parametrize(
    ("make", "norm", "library", "target"),
    [
        *((pgd, "linf", _pgd, target) for target in TARGETS),
        (pgd, "l2", _pgd, "next"),
        (bim, "linf", _bim, "random"),
        (bim, "l2", _bim, "least-likely"),
        (momentum, "l2", _momentum_l2, "next"),
    ],
)
def test_what_foolbox_brings_to_its_class_is_broken_and_nothing_but_that(
    make: Callable[..., Plan], norm: str, library: Callable[..., Any], target: str, golden: Subject
) -> None:
    subject = module, x, y = correct(golden)
    plan = _plan(make, norm, target)
    goal = _goal(plan, subject)
    assert (goal != y).all()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own imports warn
        returned = _foolbox(library, plan, subject, goal)
    with torch.no_grad():
        theirs = module(returned).argmax(1) == goal
    ours = run("decide", plan, subject)
    assert ours.errors == {}
    assert set(theirs.nonzero().flatten().tolist()) <= ours.broken.keys()
    assert 0 < len(ours.broken) < len(x)
    _check_witnesses(ours, plan, subject, goal)
    # Without the target the same attack breaks more: the goal decides, not the attack.
    untargeted = run("decide", _plan(make, norm, None), subject)  # type: ignore[arg-type]
    assert len(untargeted.broken) > len(ours.broken)


def _check_witnesses(found: Any, plan: Plan, subject: Subject, goal: Tensor) -> None:
    module, x, _ = subject
    places = sorted(found.broken)
    witness = torch.from_numpy(found.witness)
    with torch.no_grad():
        assert (module(witness).argmax(1) == goal[places]).all()
    assert (distances(x[places], witness, plan.threat.norm) <= float(plan.threat.radius)).all()
    assert witness.min() >= 0
    assert witness.max() <= 1


@pytest.mark.parametrize(
    ("make", "norm", "more"),
    [
        (apgd, "linf", {"loss": "dlr"}),
        (apgd, "l2", {"loss": "dlr"}),
        (apgd, "l1", {"loss": "dlr", "restarts": 2}),
        (momentum, "linf", {}),
    ],
)
def test_what_the_attack_returns_at_its_class_is_broken(
    make: Callable[..., Plan], norm: str, more: dict[str, Any], golden: Subject
) -> None:
    subject = module, x, _ = correct(golden)
    plan = _plan(make, norm, "next", **more)
    goal = _goal(plan, subject)
    ours, crafted = run("decide", plan, subject), run("crafted", plan, subject)
    assert ours.errors == crafted.errors == {}
    assert crafted.witness is not None
    with torch.no_grad():
        there = module(torch.from_numpy(crafted.witness)).argmax(1) == goal
    assert int(there.sum()) > 0
    if "restarts" not in more:  # under the oracle a later restart draws for the samples that are left
        assert set(there.nonzero().flatten().tolist()) <= ours.broken.keys()
    assert 0 < len(ours.broken) < len(x)
    _check_witnesses(ours, plan, subject, goal)


def test_inputs_from_a_twin_are_steered_to_the_class_too(golden: Subject) -> None:
    subject = module, x, y = correct(golden)
    plan = _plan(pgd, "linf", "next")
    found = Engine("cpu", 256, SEED).transfer(module, module, plan, 0, x, y, 10)
    assert 0 < len(found.broken) < len(x)
    _check_witnesses(found, plan, subject, _goal(plan, subject))


def test_predicted_labels_are_those_that_the_library_is_given(golden: Subject) -> None:
    module, x, y = golden
    (case,) = (case for case in CASES if (case.attack, case.norm) == ("bim", "linf"))
    step: dict[str, Any] = {"norm": "linf", "eps": "0.15", "steps": 5, "step_size": "0.05"}
    with torch.no_grad():
        predicted = module(x).argmax(1)
    assert 0 < int((predicted != y).sum()) < len(y)
    for labels, given in (("true", y), ("predicted", predicted)):
        plan = bim(**step, labels=labels)
        found = run("crafted", plan, golden)
        assert found.witness is not None
        theirs = drive_library(case, plan, module, x, given).returned
        # Ours is inside the ball exactly: what is rounded outwards moves back by its last place.
        assert torch.allclose(torch.from_numpy(found.witness), theirs, rtol=0, atol=1e-6)
    true, other = (run("crafted", bim(**step, labels=labels), golden).witness for labels in ("true", "predicted"))
    assert true is not None
    assert other is not None
    assert (true != other).any(axis=(1, 2, 3)).tolist() == (predicted != y).tolist()


def test_the_attacks_that_take_a_target_are_those_that_say_so() -> None:
    said = {name for name, attack in ATTACKS.items() if attack.targeted}
    assert {"pgd", "bim", "momentum", "apgd-t"} <= said
    assert not {"fgsm", "r-fgsm", "apgd-ce", "apgd-dlr", "square"} & said


def test_the_gradient_is_taken_at_iterates_inside_the_box(golden: Subject) -> None:
    """Clipping is no part of the graph: where it is, a pixel that has left the box gets no gradient to come back."""
    module, x, y = correct(golden)
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            if z.requires_grad:
                seen.append(z)
            logits: Tensor = module(z)
            return logits

    for plan in (_plan(pgd, "linf", None), _plan(pgd, "l2", None)):  # type: ignore[arg-type]
        seen.clear()
        run("returned", plan, (Watching().eval(), x, y))
        assert len(seen) == 8
        for z in seen:
            assert z.grad_fn is None or "Clamp" not in type(z.grad_fn).__name__
            assert z.min() >= 0
            assert z.max() <= 1
            assert (distances(x, z.detach(), plan.threat.norm) <= float(plan.threat.radius) * (1 + 1e-5)).all()
