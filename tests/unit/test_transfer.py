"""Inputs crafted on one model and tried on others: crafted once, kept, shared, made again where they are lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_prunerob.errors import ClaimError, StoreMissError
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.ledger import Cost
from pytest_prunerob.measurement import Bench, Measurement
from pytest_prunerob.plans import Plan, fmn, pgd, worst_case
from pytest_prunerob.store import Store
from pytest_prunerob.transfer import transfer
from tests.faults.tiny import CALLS, bench, data, hooked, network

RANDOM = pgd(norm="linf", eps="0.045", steps=2, step_size="0.02", micro_batch=4)
WEAK = pgd(norm="linf", eps="0.045", steps=1, step_size="0.01", random_start=False, micro_batch=4)
STRONG = pgd(norm="linf", eps="0.045", steps=1, step_size="0.045", random_start=False, micro_batch=4)
TWO = worst_case(WEAK, STRONG)
# A target that changes its mind at 0.507: its margins are 3, 27, 23, 47, 43 … thousandths, so four are within 0.045.
OTHER = 0.507


def transferred(used: Bench, plan: Plan, target: nn.Module, source: nn.Module | None = None) -> Measurement:
    """``plan`` on the source, tried on the target, as far as the store has it."""
    of_source = used.prepare(source or network(), data(), "dense")
    return used.prepare(target, data(), "pruned").measurement("transferred", plan, of_source)


def finished(used: Bench, plan: Plan, target: nn.Module, source: nn.Module | None = None) -> Measurement:
    found = transferred(used, plan, target, source)
    found.finish()
    return found


def outcome(found: Measurement) -> tuple[dict[int, float], list[int], list[int], bool]:
    broken = {p: v for segment in found.ledger.segments.values() for p, v in segment.broken.items()}
    return broken, sorted(found.ledger.survived), sorted(found.ledger.errors), found.ledger.complete


@pytest.mark.parametrize("plan", [RANDOM, STRONG, fmn(steps=5, micro_batch=4)], ids=["random", "one step", "fmn"])
def test_on_the_source_itself_it_is_the_accuracy_on_the_returned_inputs(tmp_path: Path, plan: Plan) -> None:
    used, model = bench(tmp_path), network(0.515)  # wrong on the clean sample at 0.51
    itself = finished(used, plan, model, model)
    returned = used.prepare(model, data(), "dense").measurement("returned", plan)
    returned.finish()
    assert outcome(itself) == outcome(returned)
    assert itself.crafted is not None
    assert sorted(itself.crafted.ledger.values) == list(range(8))  # clean errors too
    assert itself.ledger.broken


def test_the_second_target_costs_its_forwards_and_no_gradient(tmp_path: Path) -> None:
    first = finished(bench(tmp_path), STRONG, network(OTHER))
    assert first.crafted is not None
    assert (first.cost.forward, first.cost.backward) == (8, 0)
    assert first.crafted.cost.backward == 8
    again = bench(tmp_path)  # another run, another target
    second = finished(again, STRONG, network(0.512))
    assert second.crafted is not None
    assert second.crafted.ledger.key == first.crafted.ledger.key
    assert second.ledger.key != first.ledger.key
    assert (second.cost.forward, second.cost.backward) == (8, 0)
    assert second.crafted.cost == Cost()
    assert again.cost.backward == 0
    assert sorted(second.ledger.broken) == [0, 1, 2, 4]  # margins of −2 (a clean error), 32, 18, 52, 38 … thousandths


def test_another_source_is_another_measurement(tmp_path: Path) -> None:
    used = bench(tmp_path)
    known = finished(used, STRONG, network(OTHER))
    other = transferred(used, STRONG, network(OTHER), network(0.499))
    assert other.ledger.key != known.ledger.key
    assert not other.ledger.segments


def test_of_several_stages_the_worst_counts_sample_by_sample(tmp_path: Path) -> None:
    """Every stage is crafted for all samples, whatever an earlier one did to the source."""
    used = bench(tmp_path)
    one, two = (finished(used, plan, network(OTHER)) for plan in (WEAK, STRONG))
    both = finished(used, TWO, network(OTHER))
    assert both.ledger.broken == one.ledger.broken | two.ledger.broken
    assert one.ledger.broken < two.ledger.broken
    assert both.crafted is not None
    assert all(len(segment.values) == 4 for segment in both.crafted.ledger.segments.values())
    # The source loses these to the first stage; the second one's inputs for them exist all the same.
    judged = {p for (stage, _), segment in both.ledger.segments.items() if stage == 1 for p in segment.attacked}
    assert judged == set(range(8)) - one.ledger.broken


def only(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if "quarantine" not in path.parts)


@pytest.mark.parametrize(
    ("harm", "running"), [("flipped", False), ("gone", False), ("flipped", True)], ids=["flipped", "gone", "in a run"]
)
def test_a_damaged_crafted_file_is_set_aside_and_made_again(tmp_path: Path, harm: str, running: bool) -> None:
    whole = outcome(finished(bench(tmp_path / "whole"), STRONG, network(OTHER)))
    root = tmp_path / "store"
    made = finished(bench(root), STRONG, network(0.49))  # the first target
    assert made.crafted is not None
    files = only(root, "wit-*.npy")
    assert len(files) == 2  # one for each micro-batch: the targets keep none
    used = bench(root)
    found = transferred(used, STRONG, network(OTHER)) if running else None
    for file in files:
        payload = bytearray(file.read_bytes())
        payload[-3] ^= 64
        file.unlink()
        if harm == "flipped":
            file.write_bytes(payload)
    found = found or transferred(used, STRONG, network(OTHER))
    found.finish()
    assert outcome(found) == whole
    assert used.cost.backward == 8  # all were crafted again
    assert len(used.store.quarantined) >= 2
    assert found.crafted is not None
    again = bench(root)
    assert outcome(finished(again, STRONG, network(OTHER))) == whole
    assert again.store.quarantined == []


def test_the_first_stage_is_made_again_while_a_target_is_at_its_second(tmp_path: Path) -> None:
    whole = outcome(finished(bench(tmp_path / "whole"), TWO, network(OTHER)))
    root = tmp_path / "store"
    found = transferred(bench(root), TWO, network(OTHER))
    for micro_batch in range(2):
        found.run(0, micro_batch)
    for file in only(root, "wit-*.npy"):
        file.unlink()
    used = bench(root)
    assert outcome(finished(used, TWO, network(OTHER))) == whole
    assert used.store.quarantined


def test_inputs_are_kept_where_witnesses_are_hashes_only(tmp_path: Path) -> None:
    used = replace(bench(tmp_path), store=Store(tmp_path, policy="hash"))
    finished(used, STRONG, network(OTHER))
    later = replace(bench(tmp_path), store=Store(tmp_path, policy="hash"))
    finished(later, STRONG, network(0.49))
    assert later.cost.backward == 0


def test_a_read_only_store_gives_what_it_has_and_makes_nothing(tmp_path: Path) -> None:
    kept = finished(bench(tmp_path), STRONG, network(OTHER))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert outcome(finished(bench(tmp_path, "ro"), STRONG, network(OTHER))) == outcome(kept)
    with pytest.raises(StoreMissError, match="crafted on the dense model is not in the store"):
        finished(bench(tmp_path, "ro"), STRONG, network(0.49))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


class Killed(BaseException):
    """What stands in for a kill: nothing catches it, and every later call of the dying process fails too."""


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``dies(n)``: the n-th call that changes the disk and all after it fail."""
    real = {name: getattr(os, name) for name in CALLS}

    def arm(last: int) -> None:
        left = iter(range(last))

        def before(name: str, given: tuple[Any, ...]) -> None:
            if next(left, None) is None:
                raise Killed

        monkeypatch.undo()
        assert {name: getattr(os, name) for name in CALLS} == real
        for name, call in hooked(before).items():
            monkeypatch.setattr(os, name, call)

    return arm


def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_outcomes(
    tmp_path: Path, dies: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcome(finished(bench(tmp_path / "whole"), TWO, network(OTHER)))
    for last in range(0, 200, 7):
        root = tmp_path / str(last)
        dies(last)
        try:
            finished(bench(root), TWO, network(OTHER))
        except Killed:
            ended = False
        else:
            ended = True
        monkeypatch.undo()
        known = transferred(bench(root, "ro"), TWO, network(OTHER))
        assert known.ledger.broken <= set(whole[0])
        assert known.ledger.survived <= set(whole[1])
        used = bench(root)
        assert outcome(finished(used, TWO, network(OTHER))) == whole
        assert used.store.quarantined == []
        if ended:
            return
    raise AssertionError("the run never came to its end")


class Undifferentiable(nn.Module):
    """``network()`` that an attack by gradients meets an exception in."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            raise RuntimeError("no gradients here")
        logits: torch.Tensor = self.net(x)
        return logits


def test_what_was_not_crafted_is_undecided(tmp_path: Path) -> None:
    found = finished(bench(tmp_path), STRONG, network(OTHER), Undifferentiable().eval())
    assert outcome(found) == ({}, [], list(range(8)), True)
    assert found.ledger.errors[0] == "pgd failed: RuntimeError: no gradients here"


@pytest.fixture
def evaluation(tmp_path: Path) -> TestEvaluation:
    return TestEvaluation(bench(tmp_path), "testset", 0.95)


def test_no_number_until_all_is_measured(evaluation: TestEvaluation) -> None:
    source = evaluation.subject(network(), data(), "dense")
    target = evaluation.subject(network(OTHER), data(), "pruned")
    quantity = transfer(source, target, TWO)
    ((measure, _),) = quantity.terms
    found = evaluation._measurement(measure)
    assert found is not None
    for micro_batch in range(2):
        while (stage := found.ledger.todo(micro_batch)) is not None:
            known = evaluation._known(measure)
            assert known.number is None
            assert known.low < known.high
            found.run(stage, micro_batch)
    assert evaluation._known(measure).number == float(quantity) == 0.5
    assert quantity.text == f"transfer(dense, pruned, {TWO.text})"


def test_a_source_that_speaks_against_attacks_leaves_survival_open(evaluation: TestEvaluation) -> None:
    class Probabilities(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).softmax(1)

    source = evaluation.subject(Probabilities().eval(), data(), "dense")
    target = evaluation.subject(network(OTHER), data(), "pruned")
    quantity = transfer(source, target, STRONG)
    kept = quantity >= 0.1
    assert not kept
    assert kept.verdict is not None
    assert kept.verdict.status == "inconclusive"
    assert "dense: " in kept.verdict.reason
    assert quantity <= 0.9  # what breaks counts
    with pytest.raises(ClaimError, match="has no number: dense: "):
        float(quantity)
    # As a target it is only forwarded.
    assert transfer(target, source, STRONG) >= 0.1


def test_what_cannot_be_transferred_is_one_sentence(evaluation: TestEvaluation) -> None:
    one = evaluation.subject(network(), data(), "dense")
    other = evaluation.subject(network(), data().first(4), "pruned")
    with pytest.raises(ClaimError, match=r"transfer\(dense, pruned, ...\) needs one dataset: tiny, tiny"):
        transfer(one, other, STRONG)
    with pytest.raises(ClaimError, match="takes two subjects, received Sequential"):
        transfer(network(), one, STRONG)  # type: ignore[arg-type]
    with pytest.raises(ClaimError, match=r"transfer\(...\) takes a plan"):
        transfer(one, one, "pgd")  # type: ignore[arg-type]
