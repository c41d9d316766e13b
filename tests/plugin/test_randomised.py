"""Models that draw at inference: judged by votes under ``autoattack("rand")``, refused under everything else."""

from __future__ import annotations

import importlib
import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.commands.plan import plain
from pytest_prunerob.plugin.planning import Planner
from pytest_prunerob.store import Store, Witness
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Run, Suite

# The noise in front of the pruned model moves the mean of the pixels that it sees by 0.003 (one standard deviation):
# attacked samples whose margin is not larger are wrong in every fifth forward, or right in every fifth. Votes find what
# the model without its noise has: 20 of 40 samples survive.
#
# The dropout that stays on in front of the dense model leaves all 16 pixels as they are in 85 % of all forwards, 1/0.99
# times as bright. So class 0 survives from k = 5 on and class 1 from k = 6 on: 31 of 40.
MODELS = """
import torch
from torch import nn

class Noisy(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.003 * 8**0.5 * torch.randn_like(x))

@pytest.fixture
def pruned_model():
    return Noisy(classifier(2)).eval()

@pytest.fixture
def dense_model():
    return nn.Sequential(nn.Dropout(0.01).train(), classifier(4).eval()).eval().apply(dropping)

def dropping(part):
    if isinstance(part, nn.Dropout):
        part.train()
"""
PLAN = """
def short(plan):
    return plan.of(tuple(stage.changed(steps=3, eot=2) for stage in plan.stages))

R = short(autoattack("rand", norm="linf", eps="0.0525", micro_batch=20))
"""
CLAIM = """
@cells()
def test_share(pruned):
    assert within(pruned.robust_accuracy(R), 0.5, 0)
"""


@pytest.fixture
def randomised(suite: Suite, pytester: pytest.Pytester) -> Suite:
    pytester.makeconftest(CONFTEST + MODELS)

    def run(test: str | None, *args: str) -> Run:
        return suite(None if test is None else PLAN + textwrap.dedent(test), *args)

    return run


def measured(run: Run, kind: str = "decide") -> dict[str, Any]:
    (found,) = (entry for entry in run.results["measurements"].values() if entry["kind"] == kind)
    return dict(found)


def segments(store: Path) -> dict[str, Any]:
    """What all segments hold but their cost, by key and unit."""
    found = {}
    for path in sorted(store.rglob("seg-*.json")):
        content = json.loads(path.read_text())
        del content["cost"]
        found[f"{content['key']} {content['unit']}"] = content
    return found


def test_votes_judge_what_single_forwards_would_not(randomised: Suite) -> None:
    run = randomised("""
        @cells()
        def test_noise(pruned):
            assert within(pruned.robust_accuracy(R), 0.5, 0)
            assert within(pruned.accuracy_under(R), 0.5, 0)
            assert pruned.accuracy() >= 1

        @cells()
        def test_dropout(dense):
            assert within(dense.robust_accuracy(R), 0.775, 0)

        @cells()
        def test_too_much(pruned):
            assert pruned.robust_accuracy(R) >= 0.51
    """)
    assert [verdict for _, verdict in run.verdicts] == ["supported"] * 4 + ["refuted"]
    found = measured(run, "returned")
    assert (found["broken"], found["errors"], found["clean_errors"]) == (20, 0, 0)
    assert all(
        check["outcome"] != "failed" for entry in run.results["measurements"].values() for check in entry["checks"]
    )


def test_single_forwards_judge_no_model_that_draws(randomised: Suite) -> None:
    run = randomised("""
        P = pgd(norm="linf", eps="0.0525", steps=2, step_size="0.0525", random_start=False)

        @cells()
        def test_breaks(pruned):
            assert pruned.robust_accuracy(autoattack("standard", norm="linf", eps="0.0525")) <= 0.9

        @cells()
        def test_dropout(dense):
            assert dense.robust_accuracy(P) <= 0.9

        @cells()
        def test_returned(pruned):
            assert pruned.accuracy_under(P) <= 0.9

        @cells()
        def test_distance(pruned):
            assert pruned.distance(fmn(norm="linf", steps=5)) >= 0

        @cells()
        def test_flips(dense, pruned):
            assert flips(dense, pruned).share("S10") <= 1
    """)
    assert [verdict for _, verdict in run.verdicts] == ["error"] * 5
    assert all('autoattack("rand", ...)' in claim["reason"] for claim in run.results["claims"])


NEAR = """
@pytest.fixture
def pruned_model():
    return Coin().eval()

class Coin(nn.Module):
    def forward(self, x):
        right = classifier(2)(x)
        heads = torch.rand(len(x)) < 0.5  # on one side of the first row of pixels
        return torch.where((heads & (x[:, 0, 0, 0] > {above})).unsqueeze(1), right.flip(1), right)
"""


def test_what_votes_cannot_call_supports_nothing(randomised: Suite, pytester: pytest.Pytester) -> None:
    # The two samples of class 0 that are farthest from the boundary are tossed, and whatever is attacked beyond them.
    pytester.makeconftest(CONFTEST + MODELS + NEAR.replace("{above}", "0.592"))
    run = randomised("""
        @cells()
        def test_accuracy(pruned):
            assert pruned.accuracy() >= 0.95

        @cells()
        def test_more(pruned):
            assert pruned.accuracy() >= 0.96

        @cells()
        def test_fewer(pruned):
            assert pruned.accuracy() <= 0.99

        @cells()
        def test_survivors(pruned):
            assert pruned.robust_accuracy(R) >= 0.46
    """)
    verdicts = [verdict for _, verdict in run.verdicts]
    assert verdicts[:3] == ["supported", "inconclusive", "inconclusive"]
    assert "2 of 40 samples are undecided: on the clean input, " in run.results["claims"][1]["reason"]
    assert verdicts[3] == "inconclusive"


def test_outcomes_follow_the_seed_and_are_used_again(randomised: Suite, pytester: pytest.Pytester) -> None:
    randomised(CLAIM, "--collect-only")
    planner = Planner()
    pytester.inline_run("--collect-only", plugins=[planner])
    first, most = randomised(None), plain(planner)["at_most"]
    cost = first.results["cells"][0]["cost"]
    assert cost["backward"] <= most["backward"] <= 3 * cost["backward"]
    assert cost["forward"] <= most["forward"]
    store = pytester.path / ".prunerob"
    kept = segments(store)
    assert len(kept) == 1 + 4  # the votes on the clean inputs; two stages of two micro-batches
    again = randomised(None)
    assert segments(store) == kept
    assert again.results["cells"][0]["cost"]["backward"] == 0
    assert measured(again) == {**measured(first), "checks": measured(first)["checks"]}
    # A run that was killed has left some units, and no audit.
    for path in list(store.rglob("seg-*.json")):
        content = json.loads(path.read_text())
        if content["unit"] in ([0, 1], [1, 0], [1, 1]):
            path.unlink()
    for path in list(store.rglob("manifest.json")):
        if json.loads(path.read_text())["content"].get("kind") == "adequacy":
            shutil.rmtree(path.parent)
    assert len(segments(store)) == 2
    resumed = randomised(None)
    assert segments(store) == kept
    for run in (first, again, resumed):
        assert run.verdicts == [
            ("within(pruned.robust_accuracy(autoattack rand, linf, ε=0.0525), 0.5, 0)", "supported")
        ]
        assert not run.results["store"]["quarantined"]


def test_deep_judges_witnesses_by_votes(
    randomised: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(toy=(CONFTEST + MODELS).replace("@pytest.fixture\n", ""))
    pytester.makeconftest(
        CONFTEST + "import toy\n@pytest.fixture\ndef pruned_model():\n    return toy.pruned_model()\n"
    )
    pytester.syspathinsert()
    run = randomised(CLAIM)
    lock = pytester.path / "claims.lock"
    lock.write_text(json.dumps(lock_of(run.results, waived=[])))
    command = ["verify", str(run.path), "--lock", str(lock), "--deep", "--store", ".prunerob"]
    command += ["--model", "pruned=toy:pruned_model", "--dataset", "toy:dataset"]
    capsys.readouterr()
    assert main(command) == 0, capsys.readouterr().out
    assert "20 witnesses of 1 measurements forwarded again" in capsys.readouterr().out
    honest, data = Store.witnesses, importlib.import_module("toy").dataset().first(40)

    def forged(self: Store, key: str) -> dict[int, Witness]:
        found = honest(self, key)
        position = next(iter(found))
        near = data.x[position].clone()
        near[..., :2] = 0.5 + 0.003 * (1 - 2 * int(data.y[position]))  # on the right side, by a hair
        length = float((near.double() - data.x[position].double()).abs().max())
        return {**found, position: Witness(length, "", near.numpy())}

    monkeypatch.setattr(Store, "witnesses", forged)
    assert main(command) == 1
    assert ", which is no break" in capsys.readouterr().out
