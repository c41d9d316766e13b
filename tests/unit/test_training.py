from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.compression import Masks
from pytest_prunerob.datasets import Dataset, Splits, load
from pytest_prunerob.errors import CompressionError, InputError
from pytest_prunerob.networks import build
from pytest_prunerob.training import TRAININGS, Recipe, fine_tuning, fit, recipe
from pytest_prunerob.training.adversaries import crafted as craft


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load("digits")


@pytest.fixture(scope="module")
def few(digits: Splits) -> Dataset:
    assert digits.train is not None
    return digits.train.first(120)


def cnn(seed: int = 0) -> nn.Module:
    return build("cnn", inputs=(1, 8, 8), classes=10, seed=seed)


def mlp() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _tuples(values: dict[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def accuracy(model: nn.Module, data: Dataset) -> float:
    with torch.no_grad():
        return float((model(data.x).argmax(dim=1) == data.y).float().mean())


def test_recipes_state_the_eps_of_their_dataset_and_are_plain_values() -> None:
    digits, other = recipe("pgd", dataset="digits"), recipe("pgd", dataset="npz:cifar.npz")
    assert (digits.eps, other.eps, other.step_size, other.steps) == ("0.2", "8/255", "2/255", 7)
    assert recipe("standard", dataset="digits").eps is None
    assert Recipe(**json.loads(json.dumps(asdict(digits)), object_hook=_tuples)) == digits
    with pytest.raises(InputError, match=r"unknown training 'pdg': allowed are cutmix, .*; did you mean 'pgd'"):
        recipe("pdg", dataset="digits")


def test_fine_tuning_is_shorter_and_gentler_against_the_same_adversary() -> None:
    whole = recipe("pgd", dataset="digits")
    tuned = fine_tuning(whole)
    assert tuned == replace(whole, name="pgd-fine-tuning", epochs=11, lr=0.004)
    assert fine_tuning(replace(whole, epochs=1)).epochs == 1


def loss(model: nn.Module, data: Dataset) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(data.x), data.y))


@pytest.mark.parametrize("name", sorted(TRAININGS))
def test_every_training_learns_by_its_seed_and_keeps_what_is_pruned_at_zero(name: str, few: Dataset) -> None:
    how = recipe(name, dataset="digits")
    how = replace(how, batch_size=16, eps=None if how.eps is None else "0.05")
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    kept = torch.arange(32 * 64).reshape(32, 64) % 3 > 0
    models = [mlp() for _ in range(4)]
    for model, seed in zip(models[:3], (5, 5, 6), strict=True):
        fit(model, few, how, seed=seed, device="cpu", masks=Masks({"1.weight": kept}), epochs=6, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))
    assert not any(module.training for module in models[0].modules())
    assert all(parameter.grad is None for parameter in models[0].parameters())
    pruned = models[0].get_parameter("1.weight")
    assert bool((pruned[~kept] == 0).all())
    assert bool((pruned[kept] != 0).all())
    assert loss(models[0], few) < 0.95 * loss(models[3], few)


def test_dropout_follows_from_the_seed_too(few: Dataset) -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        torch.rand(1)
        fit(model, few, recipe("standard", dataset="digits"), seed=1, device="cpu", epochs=1, progress=False)
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_what_masks_prune_stays_exactly_zero(few: Dataset) -> None:
    model = cnn()
    generator = torch.Generator().manual_seed(0)
    shapes = {name: p.shape for name, p in model.named_parameters() if name != "conv2.bias"}
    masks = Masks({name: torch.rand(shape, generator=generator) > 0.5 for name, shape in shapes.items()})
    fit(model, few, recipe("standard", dataset="digits"), seed=0, device="cpu", masks=masks, epochs=2, progress=False)
    found = dict(model.named_parameters())
    for name, kept in masks.kept.items():
        assert bool((found[name][~kept] == 0).all()), name
        assert bool((found[name][kept] != 0).all()), name
    with pytest.raises(CompressionError, match=r"a mask for 'conv9\.weight', which the network does not have"):
        fit(
            model,
            few,
            recipe("standard", dataset="digits"),
            seed=0,
            device="cpu",
            masks=Masks({"conv9.weight": torch.ones(1, dtype=torch.bool)}),
            progress=False,
        )


def test_crafted_inputs_stay_in_ball_and_box_and_reach_the_best_corner_of_a_linear_model() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))
    x, y = torch.tensor([0.5, 0.5, 0.1, 0.95]).reshape(1, 1, 2, 2), torch.tensor([0])
    how = replace(recipe("pgd", dataset="digits"), eps="0.2", steps=7, step_size="0.1")
    crafted = craft(model, x, y, how, torch.Generator().manual_seed(0))
    # Lowering the margin x0 − x1 + x2 − x3: each pixel goes 0.2 the bad way, or to the border of [0, 1].
    assert torch.allclose(crafted.flatten(), torch.tensor([0.3, 0.7, 0.0, 1.0]))
    assert model[1].weight.grad is None


def test_crafting_moves_no_batch_statistics(few: Dataset) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    mean = model[0].running_mean
    assert isinstance(mean, Tensor)
    before = mean.clone()
    craft(model.train(), few.x, few.y, recipe("pgd", dataset="digits"), torch.Generator().manual_seed(0))
    assert torch.equal(mean, before)


def test_a_last_batch_of_one_sample_joins_the_one_before(few: Dataset) -> None:
    # A normalisation of 1×1 maps in train mode has no variance of a single sample.
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    fit(
        model,
        few.first(33),
        replace(TRAININGS["standard"], batch_size=16),
        seed=0,
        device="cpu",
        epochs=1,
        progress=False,
    )
    assert int(model[1].num_batches_tracked) == 2
    free = replace(TRAININGS["free"], batch_size=16, replays=1)
    fit(model, few.first(33), free, seed=0, device="cpu", epochs=1, progress=False)


def test_a_loss_that_is_not_finite_stops_training(few: Dataset) -> None:
    model = cnn()
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan
    with pytest.raises(InputError, match="training stopped: the loss is nan; a lower learning rate may help"):
        fit(model, few, recipe("standard", dataset="digits"), seed=0, device="cpu", progress=False)


def test_training_is_silent_without_progress(few: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    fit(cnn(), few, recipe("standard", dataset="digits"), seed=0, device="cpu", epochs=1, progress=False)
    assert capfd.readouterr() == ("", "")


def test_standard_training_learns_the_digits(digits: Splits) -> None:
    assert digits.train is not None
    model = cnn()
    fit(model, digits.train, recipe("standard", dataset="digits"), seed=0, device="cpu", progress=False)
    assert accuracy(model, digits.test) >= 0.97


@pytest.mark.slow
def test_adversarial_training_makes_the_digits_robust(digits: Splits) -> None:
    assert digits.train is not None
    model = cnn()
    fit(model, digits.train, recipe("pgd", dataset="digits"), seed=0, device="cpu", progress=False)
    assert accuracy(model, digits.test) >= 0.97
    strong = replace(recipe("pgd", dataset="digits"), steps=40, step_size="0.02")
    crafted = craft(model, digits.test.x, digits.test.y, strong, torch.Generator().manual_seed(0))
    assert accuracy(model, Dataset("crafted", crafted, digits.test.y, 10)) >= 0.60


def test_a_small_network_is_trained_alike_on_any_number_of_threads() -> None:
    data = load("digits").test.first(128)
    before, states = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = build("cnn", inputs=(1, 8, 8), classes=10, seed=0)
            how = recipe("pgd", dataset="digits")
            fit(model, data, how, seed=0, device="cpu", epochs=2, progress=False)
            states.append(model.state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
