"""Every attack of the catalogue against its library, alone, on the same micro-batch and seed, and on closed forms."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import pgd
from pytest_prunerob.attacks import ATTACKS, OWN, Pool
from pytest_prunerob.engine import Engine, Result
from pytest_prunerob.oracle import distances
from pytest_prunerob.plans import Plan, resolve
from tests.conformance.catalogue import CASES
from tests.conformance.catalogue.case import SEED, Case
from tests.conformance.catalogue.foolbox import _pgd, driven

Subject = tuple[nn.Module, Tensor, Tensor]
FIXED = [case for case in CASES if ATTACKS[case.attack].kind == "fixed"]
LINEAR = [case for case in FIXED if case.linear]
MINIMUM = [case for case in CASES if ATTACKS[case.attack].kind == "minimum"]
BATCHES = (1, 3, 8)


def ids(cases: list[Case]) -> list[str]:
    return [case.id for case in cases]


def test_every_attack_has_a_case_in_every_norm_and_a_library_unless_it_is_ours() -> None:
    adversarial = [attack for attack in ATTACKS.values() if attack.kind in ("fixed", "minimum")]
    wanted = {(attack.name, norm) for attack in adversarial for norm in attack.norms}
    assert {(case.attack, case.norm) for case in CASES} == wanted
    assert len(CASES) == len(wanted)
    for case in CASES:
        assert (case.library is None) == (ATTACKS[case.attack].library == OWN), case.id


@dataclass(frozen=True)
class Driven:
    """What the library does by itself: which samples it breaks, what it returns, how many it forwards."""

    broken: set[int]
    returned: Tensor
    forwards: int


class Counting(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits: Tensor = self.inner(x)
        return logits


def drive_library(case: Case, plan: Plan, module: nn.Module, x: Tensor, y: Tensor) -> Driven:
    assert case.library is not None
    model = Counting(module).eval()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own imports warn
        returned = case.library(plan)(model, x, y).detach()
    with torch.no_grad():
        wrong = model(returned).argmax(1) != y
    return Driven(set(wrong.nonzero().flatten().tolist()), returned, model.forwards)


def run(kind: str, plan: Plan, subject: Subject, among: Subject | None = None) -> Result:
    """What our engine makes of the only stage of ``plan``; attacks that start elsewhere start from ``among``."""
    module, x, y = subject
    _, others, _ = among or subject
    with torch.no_grad():
        logits = module(others)
    pool = Pool(others, logits.argmax(1))
    return Engine("cpu", 256, SEED).run(kind, module, plan, 0, x, y, logits.shape[1], pool=pool)  # type: ignore[arg-type]


def wrapped(case: Case, subject: Subject) -> Subject:
    module, x, y = subject
    return (case.wrap(module) if case.wrap else module), x, y


def correct(subject: Subject) -> Subject:
    module, x, y = subject
    with torch.no_grad():
        right = module(x).argmax(1) == y
    return module, x[right], y[right]


def check_witnesses(result: Result, plan: Plan, module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Forward every witness again and measure it: misclassified, in the box, in the ball, as far away as it says.

    It was misclassified in a batch of another size, whose rounding decides about inputs on the very boundary.
    """
    if not result.broken:
        assert result.witness is None
        return
    places = sorted(result.broken)
    assert result.witness is not None
    witness = torch.from_numpy(result.witness)
    assert len(witness) == len(places)
    with torch.no_grad():
        logits = torch.cat([module(z.unsqueeze(0)) for z in witness])
    own = logits.gather(1, y[places].unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, y[places].unsqueeze(1), float("-inf")).amax(1)
    assert (own - others <= 1e-5).all()
    assert logits.isfinite().all()
    assert witness.min() >= 0
    assert witness.max() <= 1
    length = distances(x[places], witness, plan.threat.norm)
    assert length.tolist() == [result.broken[p] for p in places]
    if plan.threat.eps is not None:
        assert (length <= float(plan.threat.radius)).all()


# ---- the golden network, beside the library


@pytest.mark.parametrize("case", FIXED, ids=ids(FIXED))
def test_what_the_library_breaks_is_broken_and_every_break_has_its_witness(case: Case, golden: Subject) -> None:
    plan = resolve(case.plan(case.radius), 10)
    module, x, y = correct(golden)
    ours = run("decide", plan, wrapped(case, (module, x, y)))
    assert ours.errors == {}
    check_witnesses(ours, plan, module, x, y)
    assert 0 < len(ours.broken) < len(x)
    if case.library is None:
        return
    theirs = drive_library(case, plan, module, x, y)
    assert theirs.broken <= ours.broken.keys()
    if case.attack.startswith("apgd") and case.norm in ("linf", "l2"):
        assert theirs.broken == ours.broken.keys()
    if ATTACKS[case.attack].keeps_positions:
        assert ours.cost.forward <= theirs.forwards + 2 * len(x)


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_returned_is_the_accuracy_on_what_the_library_returns(case: Case, golden: Subject) -> None:
    plan = resolve(case.plan(case.radius), 10)
    module, x, y = golden
    result = run("returned", plan, wrapped(case, golden))
    assert result.errors == {}
    if case.library is None:
        return
    theirs = drive_library(case, plan, module, x, y)
    if case.attack == "pgd":  # foolbox keeps the last restart that breaks a sample, or none; the accuracy is the same
        assert len(result.broken) == len(theirs.broken)
    else:
        assert result.broken.keys() == theirs.broken


@pytest.mark.parametrize("case", MINIMUM, ids=ids(MINIMUM))
def test_distances_are_never_larger_than_the_librarys(case: Case, golden: Subject) -> None:
    plan = case.plan("1")
    module, x, y = golden
    with torch.no_grad():
        predicted = module(x).argmax(1)
    result = run("minimise", plan, golden)
    assert result.errors == {}
    assert result.values.keys() == set(range(len(x)))
    # Clean errors are measured away from the prediction and are negative.
    assert {p for p, value in result.values.items() if value < 0} == set((predicted != y).nonzero().flatten().tolist())
    check_witnesses(result, plan, module, x, predicted)
    assert len(result.broken) > len(x) // 2
    if case.library is None:
        return
    theirs = drive_library(case, plan, module, x, predicted)
    length = distances(x, theirs.returned, case.norm).tolist()
    for place in theirs.broken:
        assert abs(result.values[place]) <= length[place]


# ---- a linear network, whose distances are known


def exact_distances(subject: Subject, norm: str) -> list[float]:
    """The smallest perturbations inside the box that change the class, in closed form."""
    module, x, _ = subject
    with torch.no_grad():
        logits = module(x)
        weight = module[1].weight[0] - module[1].weight[1]  # type: ignore[operator, index]
    margin = (logits[:, 0] - logits[:, 1]).double()
    if norm == "l0":
        return _fewest_features(x.flatten(1).double(), margin, weight.double())
    order = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    return (margin.abs() / torch.linalg.vector_norm(weight, order)).double().tolist()


def _fewest_features(x: Tensor, margin: Tensor, weight: Tensor) -> list[float]:
    """Each feature goes to the end of the box that helps most; the largest gains first until the margin is gone."""
    down = margin.sign().unsqueeze(1) * weight > 0
    gains = torch.where(down, x, 1 - x) * weight.abs()
    reached = gains.sort(dim=1, descending=True)[0].cumsum(1).numpy()
    return [float(np.argmax(row > float(m)) + 1) for row, m in zip(reached, margin.abs(), strict=True)]


def part(subject: Subject, case: Case, size: int) -> Subject:
    module, x, y = subject
    chosen = (y == 0).nonzero().flatten() if case.one_class else torch.arange(len(x))
    places = chosen[torch.linspace(0, len(chosen) - 1, min(size, len(chosen))).long()]
    return module, x[places], y[places]


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("case", LINEAR, ids=ids(LINEAR))
def test_a_linear_network_breaks_beyond_its_distance_and_never_before(case: Case, size: int, linear: Subject) -> None:
    subject = module, x, y = part(linear, case, size)
    exact = exact_distances(subject, case.norm)
    # Above the median by what the attack is allowed to miss, so that some must break, and for more than one sample
    # (of which none is nearer by that factor) some must not.
    eps = sorted(exact)[len(exact) // 2] * case.factor * 1.01
    eps = float(int(eps)) if case.norm == "l0" else eps
    plan = resolve((case.strong or case.plan)(repr(eps)), 4)
    result = run("decide", plan, wrapped(case, subject))
    assert result.errors == {}
    check_witnesses(result, plan, module, x, y)
    reachable = {p for p, distance in enumerate(exact) if distance * case.factor <= eps}
    possible = {p for p, distance in enumerate(exact) if distance <= eps * (1 + 1e-5)}
    assert reachable
    assert reachable <= result.broken.keys() <= possible


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("case", MINIMUM, ids=ids(MINIMUM))
def test_minimum_norm_distances_of_a_linear_network(case: Case, size: int, linear: Subject) -> None:
    subject = part(linear, case, size)
    result = run("minimise", (case.strong or case.plan)("1"), subject, linear)
    for place, distance in enumerate(exact_distances(subject, case.norm)):
        assert distance * (1 - 1e-5) <= abs(result.values[place]) <= case.factor * distance


# ---- what single attacks owe their libraries


def test_several_targets_in_one_call_break_what_one_by_one_breaks(golden: Subject) -> None:
    from pytest_prunerob.attacks import apgd

    module, x, y = correct(golden)
    for norm, eps in (("linf", "0.08"), ("l2", "0.35")):
        (case,) = (case for case in CASES if (case.attack, case.norm) == ("apgd-t", norm))
        plan = resolve(case.plan(eps), 10)
        plan = plan.of((plan.stages[0].changed(steps=10),))
        lengths: list[int] = []
        hook = module[-1].register_forward_hook(lambda _m, i, _o, seen=lengths: seen.append(len(i[0])))  # type: ignore[operator, index]
        stacked = run("decide", plan, (module, x, y))
        hook.remove()
        assert max(lengths) > 2 * len(x)  # several targets were in one call
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apgd, "STACKED_ROWS", 0)
            single = run("decide", plan, (module, x, y))
        theirs = drive_library(case, plan, module, x, y)
        assert single.broken.keys() == theirs.broken
        assert stacked.broken.keys() == theirs.broken
        assert 2 <= len(theirs.broken) <= len(x) - 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_draw_as_the_library_does(norm: str, golden: Subject) -> None:
    # One short step from many random starts: what breaks depends on the draws of the later restarts.
    plan = pgd(norm=norm, eps={"linf": "0.09", "l2": "0.5"}[norm], steps=1, step_size="0.02", restarts=8)
    case = Case("pgd", norm, lambda eps: plan, driven(_pgd))
    subject = module, x, y = correct(golden)
    theirs = drive_library(case, plan, module, x, y)
    ours = run("decide", plan, subject)
    assert theirs.broken <= ours.broken.keys()
    once = replace(plan, stages=(plan.stages[0].changed(restarts=1),))
    assert len(theirs.broken) > len(drive_library(case, once, module, x, y).broken)
