"""Every attack of the catalogue against its library, alone, on the same micro-batch and seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import autoattack, fgsm, fmn, pgd
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.engine import Engine, Result
from pytest_prunerob.oracle import distances
from pytest_prunerob.plans import Plan, Stage, ThreatModel, resolve

Case = tuple[nn.Module, Tensor, Tensor]
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
SEED = 7
EPS = {"linf": "0.15", "l2": "0.6", "l1": "2"}
FIXED = [(name, norm) for name, attack in ATTACKS.items() if attack.kind == "fixed" for norm in attack.norms]
MINIMUM = [(name, norm) for name, attack in ATTACKS.items() if attack.kind == "minimum" for norm in attack.norms]


def tiny(attack: str, norm: str, eps: str) -> Plan:
    """The plan that is only this attack, with the parameters of AutoAttack's standard version where it has them."""
    if attack == "pgd":
        return pgd(norm=norm, eps=eps, steps=10, step_size=Fraction(eps) / 4, restarts=3)
    if attack == "fgsm":
        return fgsm(norm=norm, eps=eps)
    if attack == "fmn":
        return fmn(norm=norm, steps=60)
    if attack == "fab-min":
        return Plan("fab", "minimum", ThreatModel(norm, None), (Stage("fab-min", (("restarts", 1), ("steps", 30))),))
    plan = autoattack([attack], norm=norm, eps=eps)
    (stage,) = plan.stages
    if attack == "square":
        stage = stage.changed(queries=100)
    elif attack.startswith("apgd") and norm == "l1" and attack != "apgd-dlr":
        standard = {s.attack: s for s in autoattack(norm=norm, eps=eps).stages}
        stage = standard[attack].changed(steps=20, restarts=2 if attack == "apgd-ce" else 1)
    else:
        stage = stage.changed(steps=10, restarts=2)
    return Plan(plan.name, plan.kind, plan.threat, (stage,), plan.micro_batch)


def library(plan: Plan) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The library's own attack for the only stage of ``plan``: (model, x, y) → what it returns."""
    (stage,) = plan.stages
    p: dict[str, Any] = dict(stage.params)
    norm, eps = NORMS[plan.threat.norm], float(plan.threat.radius) if plan.threat.eps else 0.0

    def pyautoattack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from pyautoattack.fab_pt import FABAttack_PT
        from pyautoattack.square import SquareAttack

        shared = {"eps": eps, "norm": norm, "seed": SEED, "device": "cpu", "n_restarts": p["restarts"]}
        targets = p.get("targets", 9)
        if stage.attack == "square":
            attack = SquareAttack(model, n_queries=p["queries"], p_init=0.8, resc_schedule=False, **shared)
        elif stage.attack.startswith("fab"):
            targeted = stage.attack == "fab-t"
            attack = FABAttack_PT(model, n_iter=p["steps"], targeted=targeted, n_target_classes=targets, **shared)
            if stage.attack == "fab-min":
                with torch.no_grad():
                    nearest: Tensor = attack.attack_single_run(x.clone(), y)
                return nearest
        else:
            import logging

            shared |= {"n_iter": p["steps"], "use_largereps": "schedule" in p, "logger": logging.getLogger("library")}
            if stage.attack == "apgd-t":
                attack = APGDAttack_targeted(model, n_target_classes=targets, **shared)
            else:
                attack = APGDAttack(model, loss=stage.attack.removeprefix("apgd-"), **shared)
        returned: Tensor = attack.perturb(x.clone(), y)
        return returned

    def foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox as fb

        wrapped = fb.PyTorchModel(model, bounds=(0, 1), device="cpu")
        torch.manual_seed(SEED)
        if stage.attack == "fmn":
            found: Tensor = fb.attacks.LInfFMNAttack(steps=p["steps"])(wrapped, x, y, epsilons=None)[0]
            return found
        if stage.attack == "fgsm":
            family = {"linf": fb.attacks.LinfFastGradientAttack, "l2": fb.attacks.L2FastGradientAttack}
            attack = family[plan.threat.norm](random_start=p["random_start"])
        else:
            pgds = {
                "linf": fb.attacks.LinfProjectedGradientDescentAttack,
                "l2": fb.attacks.L2ProjectedGradientDescentAttack,
            }
            step = float(Fraction(p["step_size"]))
            attack = pgds[plan.threat.norm](steps=p["steps"], abs_stepsize=step, random_start=p["random_start"])
            attack = attack.repeat(p["restarts"])
        returned: Tensor = attack(wrapped, x, y, epsilons=eps)[1]
        return returned

    return foolbox if stage.attack in ("pgd", "fgsm", "fmn") else pyautoattack


class Counting(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits: Tensor = self.inner(x)
        return logits


@dataclass(frozen=True)
class Driven:
    """What the library does by itself: which samples it breaks, what it returns, how many it forwards."""

    broken: set[int]
    returned: Tensor
    forwards: int


def drive_library(plan: Plan, module: nn.Module, x: Tensor, y: Tensor) -> Driven:
    model = Counting(module).eval()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own imports warn
        returned = library(plan)(model, x, y).detach()
    with torch.no_grad():
        wrong = model(returned).argmax(1) != y
    return Driven(set(wrong.nonzero().flatten().tolist()), returned, model.forwards)


def engine(chunk: int = 256) -> Engine:
    return Engine("cpu", chunk=chunk, seed=SEED)


def correct(case: Case) -> Case:
    module, x, y = case
    with torch.no_grad():
        right = module(x).argmax(1) == y
    return module, x[right], y[right]


def check_witnesses(result: Result, plan: Plan, module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Forward every witness again and measure it: misclassified, in the box, in the ball, as far away as it says."""
    if not result.broken:
        assert result.witness is None
        return
    places = sorted(result.broken)
    assert result.witness is not None
    witness = torch.from_numpy(result.witness)
    assert len(witness) == len(places)
    with torch.no_grad():
        logits = torch.cat([module(z.unsqueeze(0)) for z in witness])
    assert (logits.argmax(1) != y[places]).all()
    assert logits.isfinite().all()
    assert witness.min() >= 0
    assert witness.max() <= 1
    length = distances(x[places], witness, plan.threat.norm)
    assert length.tolist() == [result.broken[p] for p in places]
    if plan.threat.eps is not None:
        assert (length <= float(plan.threat.radius)).all()


@pytest.mark.parametrize(("attack", "norm"), FIXED)
def test_what_the_library_breaks_is_broken_and_every_break_has_its_witness(
    attack: str, norm: str, digits: Case
) -> None:
    plan = resolve(tiny(attack, norm, EPS[norm]), 10)
    module, x, y = correct(digits)
    theirs = drive_library(plan, module, x, y)
    ours = engine().run("decide", module, plan, 0, x, y, 10)
    assert ours.errors == {}
    assert theirs.broken <= ours.broken.keys()
    check_witnesses(ours, plan, module, x, y)
    assert 0 < len(ours.broken) < len(x)
    if attack.startswith("apgd") and norm in ("linf", "l2"):
        assert theirs.broken == ours.broken.keys()
    if ATTACKS[attack].keeps_positions:
        assert ours.cost.forward <= theirs.forwards + 2 * len(x)


@pytest.mark.parametrize(("attack", "norm"), FIXED)
def test_returned_is_the_accuracy_on_what_the_library_returns(attack: str, norm: str, digits: Case) -> None:
    plan = resolve(tiny(attack, norm, EPS[norm]), 10)
    module, x, y = digits
    theirs = drive_library(plan, module, x, y)
    result = engine().run("returned", module, plan, 0, x, y, 10)
    assert result.errors == {}
    if attack == "pgd":  # foolbox keeps the last restart that breaks a sample, or none; the accuracy is the same
        assert len(result.broken) == len(theirs.broken)
    else:
        assert result.broken.keys() == theirs.broken


def test_several_targets_in_one_call_break_what_one_by_one_breaks(digits: Case) -> None:
    from pytest_prunerob.attacks import apgd

    module, x, y = correct(digits)
    for norm, eps in (("linf", "0.08"), ("l2", "0.35")):
        plan = resolve(tiny("apgd-t", norm, eps), 10)
        lengths: list[int] = []
        hook = module[-1].register_forward_hook(lambda _m, i, _o, seen=lengths: seen.append(len(i[0])))  # type: ignore[operator, index]
        stacked = engine().run("decide", module, plan, 0, x, y, 10)
        hook.remove()
        assert max(lengths) > 2 * len(x)  # several targets were in one call
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apgd, "STACKED_ROWS", 0)
            single = engine().run("decide", module, plan, 0, x, y, 10)
        theirs = drive_library(plan, module, x, y)
        assert single.broken.keys() == theirs.broken
        assert stacked.broken.keys() == theirs.broken
        assert 2 <= len(theirs.broken) <= len(x) - 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_draw_as_the_library_does(norm: str, digits: Case) -> None:
    # One short step from many random starts: what breaks depends on the draws of the later restarts.
    plan = pgd(norm=norm, eps={"linf": "0.09", "l2": "0.5"}[norm], steps=1, step_size="0.02", restarts=8)
    module, x, y = correct(digits)
    theirs = drive_library(plan, module, x, y)
    ours = engine().run("decide", module, plan, 0, x, y, 10)
    assert theirs.broken <= ours.broken.keys()
    assert len(theirs.broken) > len(drive_library(pgd_once(plan), module, x, y).broken)


def pgd_once(plan: Plan) -> Plan:
    return replace(plan, stages=(plan.stages[0].changed(restarts=1),))


@pytest.mark.parametrize(("attack", "norm"), MINIMUM)
def test_distances_are_never_larger_than_the_librarys(attack: str, norm: str, digits: Case) -> None:
    plan = tiny(attack, norm, "1")
    module, x, y = digits
    with torch.no_grad():
        predicted = module(x).argmax(1)
    theirs = drive_library(plan, module, x, predicted)
    result = engine().run("minimise", module, plan, 0, x, y, 10)
    assert result.errors == {}
    assert result.values.keys() == set(range(len(x)))
    length = distances(x, theirs.returned, norm).tolist()
    for place in theirs.broken:
        assert abs(result.values[place]) <= length[place]
    # Clean errors are measured away from the prediction and are negative.
    assert {p for p, value in result.values.items() if value < 0} == set((predicted != y).nonzero().flatten().tolist())
    check_witnesses(result, plan, module, x, predicted)


# ---- a linear model, whose distances are known

SLACK = {"square": 2.5, "apgd-ce": 1.05, "apgd-dlr": 1.05, "apgd-t": 1.05, "fab": 1.05, "fab-t": 1.05}


def exact_distances(case: Case, norm: str) -> list[float]:
    module, x, _ = case
    with torch.no_grad():
        logits = module(x)
        weight = module[1].weight[0] - module[1].weight[1]  # type: ignore[operator, index]
    order = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    return ((logits[:, 0] - logits[:, 1]).abs() / torch.linalg.vector_norm(weight, order)).double().tolist()


@pytest.mark.parametrize(("attack", "norm"), FIXED)
def test_a_linear_model_breaks_beyond_its_distance_and_never_before(attack: str, norm: str, linear: Case) -> None:
    exact = exact_distances(linear, norm)
    module, x, y = linear
    eps = sorted(exact)[len(exact) // 2] * 1.01
    plan = resolve(tiny(attack, norm, repr(eps)), 4)
    (stage,) = plan.stages
    if attack == "square":
        stage = stage.changed(queries=600)
    elif attack.startswith("apgd"):
        stage = stage.changed(steps=50)
    result = engine().run("decide", module, replace(plan, stages=(stage,)), 0, x, y, 4)
    assert result.errors == {}
    check_witnesses(result, plan, module, x, y)
    reachable = {p for p, distance in enumerate(exact) if distance * SLACK.get(attack, 1.02) <= eps}
    possible = {p for p, distance in enumerate(exact) if distance <= eps * (1 + 1e-5)}
    assert reachable
    assert reachable <= result.broken.keys() <= possible
    assert len(possible) < len(exact)


@pytest.mark.parametrize(("attack", "norm"), MINIMUM)
def test_minimum_norm_distances_of_a_linear_model(attack: str, norm: str, linear: Case) -> None:
    module, x, y = linear
    result = engine().run("minimise", module, tiny(attack, norm, "1"), 0, x, y, 4)
    for place, distance in enumerate(exact_distances(linear, norm)):
        assert distance * (1 - 1e-5) <= result.values[place] <= 1.1 * distance
