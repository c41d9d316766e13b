"""What attacks from ART are given, and that nothing of ART is seen elsewhere."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import jsma
from pytest_prunerob.attacks import ATTACKS, Load
from pytest_prunerob.attacks.art import array, classifier, quiet
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import PlanError
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.oracle import Meter, Network, Oracle
from pytest_prunerob.plans import resolve

IMPORTS = """
import logging, warnings
closed = []
class Mine(logging.StreamHandler):
    def close(self):
        closed.append(self)
handler = Mine()
logging.getLogger("mine").addHandler(handler)
from pytest_prunerob.attacks.art import load_art
warnings.simplefilter("ignore")
configure = logging.config.dictConfig
load_art()
import art
assert not closed
assert logging.getLogger("tests").handlers == []
assert logging.config.dictConfig is configure
import torch
assert torch.get_default_dtype() == torch.float32
"""


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4))
    return net.requires_grad_(False).train()  # a mode that ART would change if it could


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk", [100, 2])
def test_gradients_flow_through_the_oracle_and_are_counted(network: nn.Module, x: Tensor, chunk: int) -> None:
    meter = Meter()
    asked = Network(network, chunk=chunk, meter=meter)
    clean = network(x)
    oracle = Oracle(asked, x, clean.argmax(1), clean=clean, norm="l2", eps=1.0, mode="decide")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = classifier(oracle, x, 4)
    found = made.class_gradient(array(x))
    z = x.clone().requires_grad_(True)
    exact = torch.stack([torch.autograd.grad(network(z)[:, k].sum(), z)[0] for k in range(4)], 1)
    assert np.allclose(found, exact.numpy(), atol=1e-6)
    assert meter.backward == 4 * 5
    assert np.allclose(made.predict(array(x)), clean.numpy(), atol=1e-6)
    loss = made.loss_gradient(array(x), np.eye(4)[[0, 1, 2, 3, 0]])
    (wanted,) = torch.autograd.grad(nn.functional.cross_entropy(network(z), torch.tensor([0, 1, 2, 3, 0])), z)
    assert np.allclose(loss, wanted.numpy(), atol=1e-6)
    assert network.training
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert made.device == x.device


def test_importing_art_leaves_everybody_elses_logging_alone() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def test_art_is_quiet_only_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with quiet():
        logging.getLogger("art.attacks").error("every batch")
        logging.getLogger("mine").error("mine")
    logging.getLogger("art.attacks").error("later")
    assert caplog.messages == ["mine", "later"]


# ---- JSMA


@pytest.mark.parametrize("theta", ["1", "0.3", "-0.7"])
@pytest.mark.parametrize("eps", [2, 3, 5, 8, 50])
def test_jsma_never_changes_more_features_than_it_may(network: nn.Module, x: Tensor, eps: int, theta: str) -> None:
    plan = resolve(jsma(eps=eps, theta=theta, targets=2), 4)
    network.eval()
    y = network(x).argmax(1)
    engine = Engine("cpu", 100, 0)
    crafted = engine.run("crafted", network, plan, 0, x, y, 4)
    assert crafted.errors == {}  # what leaves the threat model is an error
    assert max(crafted.values.values()) <= eps
    found = engine.run("decide", network, plan, 0, x, y, 4)
    bound = stage_bound(plan.stages[0], "l0", "decide", Load(5, 4, 12, eps))
    assert found.cost.forward <= bound.forward
    assert found.cost.backward <= bound.backward
    assert engine.run("decide", network, plan, 0, x, y, 4).broken == found.broken  # nothing is drawn


def test_jsma_reaches_the_class_it_is_steered_to(network: nn.Module, x: Tensor) -> None:
    network.eval()
    clean = network(x)
    found = Engine("cpu", 100, 0).run("decide", network, jsma(eps=12, target="next"), 0, x, clean.argmax(1), 4)
    assert found.broken
    assert found.witness is not None
    places = sorted(found.broken)
    reached = network(torch.from_numpy(found.witness)).argmax(1)
    assert reached.tolist() == ((clean.argmax(1)[places] + 1) % 4).tolist()


def test_fewer_classes_than_targets_are_all_tried(network: nn.Module) -> None:
    assert resolve(jsma(eps=4), 4).stages[0].integer("targets") == 3
    assert resolve(jsma(eps=4, target="next"), 4).stages[0].params == (("theta", "1"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 1}, "eps=1 is no number of features that jsma could change: write a whole one from 2 up"),
        ({"eps": "2.5"}, "eps='2.5' is no number of features"),
        ({"eps": "8/255"}, "eps='8/255' is no number of features"),
        ({"eps": 4, "theta": "1.5"}, r"theta='1.5' is outside \[-1, 1\]: inputs lie in \[0, 1\]"),
        ({"eps": 4, "theta": 0}, "theta='0' is not positive"),
        ({"eps": 4, "theta": "x"}, "theta='x' is not a number"),
        ({"eps": 4, "targets": 0}, "targets=0 is not a whole number of at least 1"),
        ({"eps": 4, "target": "nxt"}, "unknown target 'nxt': .*did you mean 'next'?"),
        ({"eps": 4, "target": "next", "targets": 3}, r"jsma\(target='next'\) has one class for each sample"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        jsma(**arguments)  # type: ignore[arg-type]


def test_jsma_has_no_other_norm() -> None:
    with pytest.raises(PlanError, match="jsma has no norm 'l2': allowed are l0"):
        ATTACKS["jsma"].require("l2")
