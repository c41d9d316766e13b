"""Trainings that are interrupted and continued, their checkpoints in a store, and what becomes of those."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob import resuming
from pytest_prunerob.cells import Cell
from pytest_prunerob.compression import Masks
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import StoreError
from pytest_prunerob.models import Builder
from pytest_prunerob.resuming import Slot, Slots
from pytest_prunerob.store import Store
from pytest_prunerob.store.inventory import LEFT_BEHIND, check, entries, prunable
from pytest_prunerob.store.transfer import transfer
from pytest_prunerob.trainers import CellTrainer
from pytest_prunerob.training import TRAININGS, TUNED, Keep, Recipe, Saved, fit, recipe

KEY = "ab" + "0" * 62


class Interrupted(Exception):
    pass


def data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return Dataset("random", torch.rand(22, 1, 4, 4, generator=generator), torch.arange(22) % 3, 3)


def network() -> nn.Module:
    """With batch statistics to go on with, and a dropout that draws from torch's own generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 3))
        return nn.Sequential(*layers).eval()


def equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@dataclass
class Stopping:
    """A place for checkpoints that stops training after ``epoch``; ``seen`` are the epochs that were kept."""

    slot: Slot
    epoch: int | None = None
    seen: list[int] = field(default_factory=list)
    scalers: list[dict[str, float]] = field(default_factory=list)

    def load(self, of: str) -> Saved | None:
        return self.slot.load(of)

    def due(self) -> bool:
        return True

    def save(self, saved: Saved) -> None:
        self.slot.save(saved)
        self.seen.append(saved.facts["epoch"])
        self.scalers.append(saved.facts.get("scaler", {}))
        if saved.facts["epoch"] == self.epoch:
            raise Interrupted


def quick(name: str) -> Recipe:
    """Three epochs; the stopping rules would end them early or lower the rate, were their counts lost."""
    how = replace(recipe(name, dataset="digits"), epochs=3, batch_size=8, milestones=(2,))
    return replace(how, patience=1, stop_patience=99) if how.schedule == "plateau" else how


def trained(how: Recipe, keep: Keep | None, device: str = "cpu", **given: object) -> nn.Module:
    model = network()
    fit(model, data(), how, seed=1, device=device, progress=False, keep=keep, **given)  # type: ignore[arg-type]
    return model


def interrupted(store: Store, how: Recipe, epoch: int = 2, key: str = KEY) -> None:
    with pytest.raises(Interrupted):
        trained(how, Stopping(Slots(store, key, print).next(), epoch), label="a training")


def kept(store: Store, key: str = KEY) -> list[Path]:
    return sorted(store.folder(key).glob("checkpoint-*"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_a_training_is_continued_to_the_same_bits(name: str, tmp_path: Path) -> None:
    how, store, said = quick(name), Store(tmp_path), []
    interrupted(store, how)
    again = Stopping(Slots(store, KEY, said.append).next())
    assert equal(trained(how, again), trained(how, None))
    assert (again.seen, said) == ([3, 3], ["a training: is continued after epoch 2 of 3"])
    assert len(kept(store)) == 1  # each takes the place of the last
    assert store.quarantined == []


def test_what_was_over_is_not_trained_again(tmp_path: Path) -> None:
    how, store, said = quick("standard"), Store(tmp_path), []
    done = trained(how, Slots(store, KEY, print).next())
    again = Stopping(Slots(store, KEY, said.append).next())
    assert equal(trained(how, again), done)
    assert (again.seen, said) == ([], ["standard: was over"])


def test_a_damaged_checkpoint_is_set_aside_and_training_starts_anew(tmp_path: Path) -> None:
    how, store = quick("standard"), Store(tmp_path)
    interrupted(store, how)
    (path,) = kept(store)
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    again = Stopping(Slots(store, KEY, print).next())
    assert equal(trained(how, again), trained(how, None))
    assert again.seen == [1, 2, 3, 3]
    assert [text.partition(": ")[2] for text in store.quarantined] == ["its content does not match its name"]
    assert [file.read_bytes() for file in (store.folder(KEY) / "quarantine").iterdir()] == [payload]


@pytest.mark.parametrize("what", ["recipe", "seed", "start", "masks", "length", "samples"])
def test_the_checkpoint_of_another_training_is_never_used(what: str, tmp_path: Path) -> None:
    how, store = quick("standard"), Store(tmp_path)
    interrupted(store, how)
    other = replace(how, lr=how.lr * 2) if what == "recipe" else how
    samples = data().take(range(21)) if what == "samples" else data()
    masks = Masks({"0.weight": torch.arange(27).reshape(3, 1, 3, 3) > 4}) if what == "masks" else None
    models = [network(), network()]
    for model, keep in zip(models, (Slots(store, KEY, print).next(), None), strict=True):
        if what == "start":
            torch.nn.init.constant_(model.get_parameter("0.bias"), 0.5)
        given = {"epochs": 4 if what == "length" else None, "masks": masks, "progress": False, "device": "cpu"}
        fit(model, samples, other, seed=2 if what == "seed" else 1, keep=keep, **given)  # type: ignore[arg-type]
    assert equal(*models)
    (text,) = store.quarantined
    assert text.endswith("it is a checkpoint of another training, which starts anew")


def test_a_refreshed_store_uses_no_older_checkpoint_and_a_read_only_one_writes_none(tmp_path: Path) -> None:
    how, store = quick("standard"), Store(tmp_path)
    interrupted(store, how)
    refreshed = Store(tmp_path, "refresh", started=time.time() + 10)
    assert Slots(refreshed, KEY, print).next().load("any") is None
    assert kept(store) == []
    with pytest.raises(StoreError, match="store-mode=ro"):
        trained(how, Slots(Store(tmp_path, "ro"), KEY, print).next())
    assert kept(store) == []


def test_a_function_after_each_step_may_remember_so_that_its_training_is_repeated(tmp_path: Path) -> None:
    how, store, calls = quick("standard"), Store(tmp_path), []

    def after_step(_: nn.Module, done: float) -> None:
        calls.append(done)

    for _ in range(2):
        trained(how, Slots(store, KEY, print).next(), after_step=after_step)
    assert len(calls) == 2 * 3 * 3
    assert kept(store) == []


def test_checkpoints_are_written_when_they_are_due(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [100.0]
    monkeypatch.setattr(resuming, "time", SimpleNamespace(monotonic=lambda: now[0]))
    slot = Slot(Slots(Store(tmp_path), KEY, print), 0, written=100.0)
    assert not slot.due()
    now[0] += resuming.EVERY
    assert slot.due()
    slot.save(Saved({"model.w": torch.ones(1)}, {"of": "x", "epoch": 1, "finished": False}))
    assert not slot.due()


def test_the_store_tells_what_is_being_trained(tmp_path: Path) -> None:
    how, store = quick("standard"), Store(tmp_path / "one")
    interrupted(store, how)
    (entry,) = entries(store)
    assert (entry.kind, entry.subject, entry.state) == ("model", "a training", "epoch 2 of 3")
    assert not entry.complete
    assert (check(store), store.quarantined) == (1, [])
    target = Store(tmp_path / "two")
    done = transfer(store.root, target)
    assert (done.files, done.refused) == (0, [])
    (unfinished,) = prunable(store, time.time(), incomplete=True)
    assert set(kept(store)) <= set(unfinished.paths)
    # Left beside a model that is published, it is what a killed run leaves.
    store.add_model(KEY, {"w": torch.ones(1)}, {"kind": "model"})
    assert prunable(store, time.time(), incomplete=True) == []
    (loose,) = prunable(store, time.time() + LEFT_BEHIND + 60, incomplete=True)
    assert set(loose.paths) == set(kept(store))
    kept(store)[0].write_bytes(b"damaged")
    assert entries(store)[0].state == "complete"
    check(store)
    assert kept(store) == []


def test_a_cut_header_is_no_training(tmp_path: Path) -> None:
    store = Store(tmp_path)
    interrupted(store, quick("standard"))
    (path,) = kept(store)
    for payload in (b"", b"\xff" * 8, path.read_bytes()[:40], (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(payload)
        assert entries(store)[0].state == "damaged"


def test_of_several_trainings_behind_a_model_those_that_were_over_are_not_repeated(tmp_path: Path) -> None:
    store, masks = Store(tmp_path), Masks({"4.weight": torch.arange(36).reshape(3, 12) > 9})

    def steps(slots: Slots | None, stop: int | None = None) -> tuple[nn.Module, list[str]]:
        said: list[str] = []
        trainer = CellTrainer(
            data=data(),
            dataset="digits",
            training="standard",
            seed=1,
            steps="fine-tuning",
            device="cpu",
            progress=False,
            label="pruning",
            report=said.append,
            dense_early=lambda share: {},
            keep=(lambda: None) if slots is None else slots.next,
        )
        model = network()
        for number in range(3):
            if number == stop:
                raise Interrupted
            trainer.train(model, masks, epochs=Fraction(1, 25), adversarial=number == 1)
        return model, said

    with pytest.raises(Interrupted):
        steps(Slots(store, KEY, print), 2)
    assert [path.name[:15] for path in kept(store)] == ["checkpoint-0000", "checkpoint-0001"]
    again: list[str] = []
    model, _ = steps(Slots(store, KEY, again.append))
    assert equal(model, steps(None)[0])
    assert [text.rpartition(": ")[2] for text in again] == ["was over", "was over"]
    assert store.quarantined == []


def test_a_published_model_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"standard": replace(TUNED["digits"]["standard"], epochs=2)}
    monkeypatch.setitem(TUNED, "digits", {**TUNED["digits"], **names})
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    seen: list[int] = []
    real = Slot.save
    monkeypatch.setattr(Slot, "save", lambda self, saved: (seen.append(self.number), real(self, saved))[1])
    builder = Builder(Store(tmp_path), "cpu", False, lambda _: None, tmp_path)
    builder.dense(Cell("it", {"dataset": "digits", "network": "cnn", "training": "standard"}))
    assert seen == [0, 0, 0]
    assert len(list(tmp_path.rglob("model-*.safetensors"))) == 1
    assert list(tmp_path.rglob("checkpoint-*")) == []


def test_mixed_precision_is_of_cuda_alone_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    how = replace(quick("free"), precision="mixed")
    assert equal(trained(how, None), trained(replace(how, precision="float32"), None))
    from pytest_prunerob.training import fitting

    assert fitting.mixes(how, "cuda:0")
    assert not fitting.mixes(replace(how, precision="float32"), "cuda")
    # The CPU has an autocast and a scaler too, which stand in for those of CUDA.
    monkeypatch.setattr(fitting, "mixes", lambda *_: True)
    types: list[torch.dtype] = []

    def noted(_: nn.Module, __: object, output: Tensor) -> None:
        types.append(output.dtype)

    for name, wanted in (("free", {torch.float16}), ("pgd", {torch.float16, torch.float32})):
        model = network()
        model[4].register_forward_hook(noted)
        types.clear()
        how = replace(quick(name), precision="mixed")
        fit(model, data(), how, seed=1, device="cpu", progress=False)
        assert set(types[-3:]) == wanted  # inputs are crafted in float32
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_mixed_training_is_continued_with_its_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_prunerob.training import fitting

    monkeypatch.setattr(fitting, "mixes", lambda *_: True)
    how, store = quick("standard"), Store(tmp_path)
    interrupted(store, how)
    again, undisturbed = (Stopping(Slots(Store(root), KEY, print).next()) for root in (tmp_path, tmp_path / "other"))
    assert equal(trained(how, again), trained(how, undisturbed))
    # The scale itself is a power of two, which changes no bit unless something overflows.
    assert again.scalers == undisturbed.scalers[2:]
    assert undisturbed.scalers[2] != undisturbed.scalers[1] != {}
