"""AutoAttack's version "rand" on a network that draws nothing: votes find what the library's single forwards find."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import autoattack
from pytest_prunerob.attacks import Load
from pytest_prunerob.engine import Engine
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.oracle import distances
from tests.conformance.catalogue.case import EPS, SEED

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
STEPS, EOT = 8, 3


@pytest.mark.parametrize("norm", NORMS)
def test_rand_breaks_what_the_library_breaks(norm: str, golden: tuple[nn.Module, Tensor, Tensor]) -> None:
    from pyautoattack import AutoAttack
    from pyautoattack.autopgd_base import APGDAttack

    module, x, y = golden
    plan = autoattack("rand", norm=norm, eps=EPS[norm])
    plan = plan.of(tuple(stage.changed(steps=STEPS, eot=EOT) for stage in plan.stages))
    engine = Engine("cpu", 256, SEED)
    ballot, _ = engine.votes(module, x, y)
    places, broken = ballot.holds.nonzero().flatten(), set()
    start = len(places)
    for number in range(len(plan.stages)):
        result = engine.run("decide", module, plan, number, x[places], y[places], 10)
        assert result.errors == {}
        most = stage_bound(plan.stages[number], norm, "decide", Load(len(places), 10, 64))
        assert result.cost.forward <= most.forward
        assert result.cost.backward <= most.backward
        hit = sorted(result.broken)
        if hit:
            witness = torch.from_numpy(result.witness)
            length = distances(x[places[hit]], witness, norm)
            with torch.no_grad():
                assert (module(witness).argmax(1) != y[places[hit]]).all()
            assert length.tolist() == [result.broken[place] for place in hit]
            assert float(length.max()) <= float(EPS[norm])
        broken |= set(places[hit].tolist())
        places = places[[place for place in range(len(places)) if place not in result.broken]]

    theirs = AutoAttack(module, norm=NORMS[norm], eps=float(EPS[norm]), seed=SEED, version="rand", device="cpu")
    theirs.verbose = False
    theirs.apgd = APGDAttack(module, n_restarts=1, n_iter=STEPS, eps=float(EPS[norm]), norm=NORMS[norm], eot_iter=EOT,
                             rho=0.75, seed=SEED, device="cpu", logger=logging.getLogger("library"))  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        returned, _ = theirs.run_standard_evaluation(x.clone(), y, batch_size=250)
    with torch.no_grad():
        wrong = (module(returned).argmax(1) != y) & (module(x).argmax(1) == y)
    assert broken == set(wrong.nonzero().flatten().tolist())
    assert 0 < len(broken) < start
