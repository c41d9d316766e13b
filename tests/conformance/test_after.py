"""What holds for every scheme that follows pruning, and what each of them does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pytest_prunerob.compression import AFTER, CompressedModel, Masks, Structure, apply, compress
from pytest_prunerob.compression.after.scratch import multiply_adds
from pytest_prunerob.datasets import Dataset, load
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.fingerprint import fingerprint
from pytest_prunerob.networks import build
from pytest_prunerob.trainers import CellTrainer
from pytest_prunerob.training import fresh
from tests.conformance.quick import QuickTrainer, residual, trained

METHODS = ("global-magnitude", "filter-l1")
AMOUNT = Fraction(1, 2)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """32 training digits."""
    train = load("digits").train
    assert train is not None
    return train.first(32)


@pytest.fixture(scope="module")
def dense(data: Dataset) -> nn.Module:
    return trained(data)


def followed(name: str, method: str, dense: nn.Module, data: Dataset, trainer: Any = None) -> CompressedModel:
    """The dense network pruned by a method with the scheme that follows, as the builder of models does it."""
    scheme = AFTER[name]
    if trainer is None:
        trainer = QuickTrainer(data, steps=scheme.steps != "none", hardened=scheme.steps == "adversarial")
    made = compress(dense, method=method, amount=AMOUNT, data=data, trainer=trainer)
    if scheme.finish is None:
        return made
    return scheme.finish(made, dense=dense, data=data, generator=torch.Generator().manual_seed(0), trainer=trainer)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(AFTER))
def test_every_scheme(name: str, method: str, dense: nn.Module, data: Dataset) -> None:
    before, generator = fingerprint(dense), torch.random.get_rng_state()
    found = followed(name, method, dense, data)
    assert same(state(found.model), state(followed(name, method, dense, data).model))
    assert fingerprint(dense) == before
    assert torch.equal(torch.random.get_rng_state(), generator)
    # The masks hold, and what is measured is what they say; inheritance gives a dense network.
    if name == "inverse-weights-inheritance":
        assert found.masks.kept == {}
        assert found.achieved < Fraction(2, 100)
    else:
        assert len(found.masks.kept) > 0
        assert all(bool((parameter[~kept] == 0).all()) for parameter, kept in found.masks.on(found.model))
        total = sum(size for _, size in found.layers.values())
        assert 0 <= found.achieved - AMOUNT <= Fraction(1, total)
    assert found.requested == AMOUNT
    for module in found.model.modules():
        assert not module.training
        assert (*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks) == ()
        assert getattr(module, "momentum", 0.1) == 0.1
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in found.model.parameters())
    again = residual()
    again.load_state_dict(found.model.state_dict(), strict=True)
    assert fingerprint(again.eval()) == fingerprint(found.model)


@dataclass
class Recorder:
    """Trains nothing: writes down from which state, for how long and by what, and sets all weights to 7."""

    seed: int = 3
    trainings: list[tuple[dict[str, Tensor], Fraction, bool]] = field(default_factory=list)

    def fine_tune(self, model: nn.Module, masks: Masks, **_: object) -> None:
        pass

    def train(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        epochs: Fraction = Fraction(1),
        adversarial: bool = False,
        **_: object,
    ) -> None:
        self.trainings.append((state(model), epochs, adversarial))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7)
        apply(model, masks)

    def fresh(self, model: nn.Module) -> None:
        fresh(model, seed=self.seed)

    def early(self, share: Fraction) -> Mapping[str, Tensor]:
        return {
            name: torch.full_like(tensor, float(100 * share) + 1) for name, tensor in residual().state_dict().items()
        }


def masked(start: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    return {name: tensor * masks.kept[name] if name in masks.kept else tensor for name, tensor in start.items()}


@pytest.mark.parametrize("name", ["scratch-e", "scratch-b"])
def test_from_scratch_is_from_new_weights_by_the_seed(name: str, dense: nn.Module, data: Dataset) -> None:
    trainer = Recorder()
    found = followed(name, "filter-l1", dense, data, trainer)
    ((start, epochs, adversarial),) = trainer.trainings
    anew = copy.deepcopy(dense)
    fresh(anew, seed=3)
    assert same(start, masked(anew.state_dict(), found.masks))
    assert not torch.equal(start["linear.weight"], dense.state_dict()["linear.weight"])
    other = Recorder(seed=4)
    followed(name, "filter-l1", dense, data, other)
    assert not torch.equal(start["linear.weight"], other.trainings[0][0]["linear.weight"])
    assert not adversarial
    assert epochs == 1 if name == "scratch-e" else 1 < epochs <= 2


def test_multiply_adds_are_half_of_the_flops_that_torch_counts(data: Dataset) -> None:
    model = build("resnet18", inputs=(3, 32, 32), classes=10, seed=0)
    sample = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(sample)
    assert 2 * multiply_adds(model, sample) == counter.get_total_flops()


@pytest.mark.parametrize(("gone", "epochs"), [(0, 1), (2, Fraction(4, 3)), (4, 2), (6, 2)])
def test_scratch_b_trains_for_the_same_computation_but_no_longer_than_twice(
    gone: int, epochs: Fraction, data: Dataset
) -> None:
    # 8 weights at 16 places and 160 products: 128 + 160.
    dense = nn.Sequential(nn.Conv2d(1, 8, 1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    pruned = copy.deepcopy(dense)
    with torch.no_grad():
        pruned[0].weight[:gone] = 0
        pruned[3].weight[:, : 16 * gone] = 0
    masks = Masks({"0.weight": pruned[0].weight != 0, "3.weight": pruned[3].weight != 0})
    made = CompressedModel(pruned, masks, "weights", Fraction(gone, 8), {"0": (gone, 8), "3": (160 * gone, 1280)})
    assert multiply_adds(pruned, data.x[:1]) == (8 - gone) * (16 + 160)
    trainer, scheme = Recorder(), AFTER["scratch-b"]
    assert scheme.finish is not None
    scheme.finish(made, dense=dense, data=data, generator=torch.Generator(), trainer=trainer)  # type: ignore[arg-type]
    assert [length for _, length, _ in trainer.trainings] == [epochs]


def test_the_winning_ticket_starts_from_a_quarter_of_the_training(dense: nn.Module, data: Dataset) -> None:
    trainer = Recorder()
    found = followed("winning-ticket", "global-magnitude", dense, data, trainer)
    ((start, epochs, adversarial),) = trainer.trainings
    assert same(start, masked(trainer.early(Fraction(1, 4)), found.masks))
    assert (epochs, adversarial) == (Fraction(3, 4), False)


@pytest.mark.parametrize(("name", "share"), [("lottery-ticket", 0), ("lottery-ticket-rewinding", Fraction(7, 100))])
def test_a_lottery_ticket_is_rewound_in_every_round(
    name: str, share: Fraction, dense: nn.Module, data: Dataset
) -> None:
    trainer = Recorder()
    found = compress(dense, method=name, amount=AMOUNT, trainer=trainer)  # type: ignore[arg-type]
    assert found.steps == (Fraction(1, 5), Fraction(9, 25), Fraction(61, 125), AMOUNT)
    assert [epochs for _, epochs, _ in trainer.trainings] == [1 - share] * 4
    total = sum(size for _, size in found.layers.values())
    for (start, _, _), step in zip(trainer.trainings, found.steps, strict=True):
        weights = {layer: start[f"{layer}.weight"] for layer in found.layers}
        gone = sum(int((weight == 0).sum()) for weight in weights.values())
        assert 0 <= gone - step * total < 1
        assert {float(value) for weight in weights.values() for value in weight.unique()} <= {
            0.0,
            1 + float(100 * share),
        }
        assert bool((start["bn.running_mean"] == 1 + float(100 * share)).all())
    rounds = compress(dense, method=name, amount="3/4", trainer=Recorder(), iterations=2).steps  # type: ignore[arg-type]
    assert rounds == (Fraction(1, 2), Fraction(3, 4))


def test_rewinding_needs_layers_in_their_shape(data: Dataset) -> None:
    scheme, narrow = AFTER["winning-ticket"], residual()
    narrow.linear = nn.Linear(16, 10)
    made = CompressedModel(narrow, Masks({}), "parameters", AMOUNT, {}, structure=Structure({"linear": (0,)}))
    assert scheme.finish is not None
    with pytest.raises(CompressionError, match=r"'linear.weight' has the shape \(10, 16\) and the shape \(10, 32\)"):
        scheme.finish(made, dense=residual(), data=data, generator=torch.Generator(), trainer=Recorder())  # type: ignore[arg-type]


def test_recalibration_is_the_mean_and_variance_of_the_training_half(data: Dataset) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Dropout(0.5),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 10),
    ).eval()
    found = followed("bn-recalibration", "global-magnitude", dense, data, Recorder())
    norm, before = found.model[2], compress(dense, method="global-magnitude", amount=AMOUNT).model  # type: ignore[index]
    with torch.no_grad():
        features = before[0](data.x).double()  # type: ignore[index]
    torch.testing.assert_close(norm.running_mean.double(), features.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var.double(), features.var(dim=(0, 2, 3), unbiased=True))
    assert norm.momentum == 0.3
    assert int(norm.num_batches_tracked) == 1
    assert same(dict(found.model.named_parameters()), dict(before.named_parameters()))
    # 600 samples go in three batches of 200 that count alike.
    many = Dataset("many", data.x.repeat(19, 1, 1, 1)[:600], data.y.repeat(19)[:600], 10)
    parts = before[0](many.x).detach().double().split(200)  # type: ignore[index]
    norm = followed("bn-recalibration", "global-magnitude", dense, many, Recorder()).model[2]  # type: ignore[index]
    variance = torch.stack([part.var(dim=(0, 2, 3), unbiased=True) for part in parts]).mean(dim=0)
    torch.testing.assert_close(norm.running_var.double(), variance)


def test_recalibration_needs_batch_normalisation(data: Dataset) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(CompressionError, match=r"^bn-recalibration needs batch normalisation, Sequential has none$"):
        followed("bn-recalibration", "global-magnitude", plain, data)


def test_adversarial_steps_are_by_pgd_whatever_the_dense_model_was_trained_by(data: Dataset) -> None:
    scheme = AFTER["adversarial-retraining"]
    show: dict[str, Any] = {"device": "cpu", "progress": False, "label": "", "report": print}
    trainer = CellTrainer(data, "digits", "standard", 0, scheme.steps, dense_early=lambda _: {}, **show)
    steps, whole = trainer.recipes()["steps"], trainer.recipes()["training"]
    assert (steps.eps, whole.eps) == ("0.2", None)
    assert steps.epochs < trainer.recipes()["adversarial"].epochs
    assert scheme.finish is None


@pytest.mark.parametrize("method", METHODS)
def test_the_large_network_inherits_the_sparse_weights(method: str, dense: nn.Module, data: Dataset) -> None:
    trainer = Recorder()
    found = followed("inverse-weights-inheritance", method, dense, data, trainer)
    ((start, epochs, adversarial),) = trainer.trainings
    sparse = compress(dense, method=method, amount=AMOUNT)
    anew = copy.deepcopy(dense)
    fresh(anew, seed=3)
    for name, kept in sparse.masks.kept.items():
        assert torch.equal(start[name][kept], sparse.model.state_dict()[name][kept])
        # A filter that is gone begins at random, a single weight at zero.
        lost = ~kept.reshape(len(kept), -1).any(dim=1)
        assert torch.equal(start[name][lost], anew.state_dict()[name][lost])
        assert bool((start[name][~lost][~kept[~lost]] == 0).all())
    assert (epochs, adversarial) == (1, True)
    assert (found.requested, found.achieved, found.unit) == (AMOUNT, 0, sparse.unit)


def test_a_scheme_says_what_it_lacks(dense: nn.Module, data: Dataset) -> None:
    made = compress(dense, method="global-magnitude", amount=AMOUNT)
    for name, scheme in AFTER.items():
        if scheme.finish is not None:
            with pytest.raises(
                CompressionError, match=rf"^{name} (trains the network:|needs training samples|counts )"
            ):
                scheme.finish(made, dense=dense, data=None, generator=torch.Generator(), trainer=None)
