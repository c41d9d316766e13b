from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.datasets import Dataset
from pytest_prunerob.training import TRAININGS, Recipe, fit, recipe
from pytest_prunerob.training.adversaries import bounds, crafted
from pytest_prunerob.training.checkpoints import State
from pytest_prunerob.training.fitting import _loss, _step, _Task
from pytest_prunerob.training.schedules import optimizer_of

ADVERSARIES = sorted(name for name, how in TRAININGS.items() if how.adversary != "none")


def classifier(seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 5)
    return model


def state(model: nn.Module, how: Recipe) -> State:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return State(optimizer_of(model, how), scaler, torch.Generator().manual_seed(0))


def seen_by(model: nn.Module) -> list[Tensor]:
    """Every batch that goes through ``model`` from now on."""
    batches: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: batches.append(given[0].detach().clone()))
    return batches


def test_there_is_a_recipe_for_every_adversary() -> None:
    assert ADVERSARIES == ["fast", "fgsm", "free", "pgd", "trades"]
    assert all(TRAININGS[name].adversary == name for name in ADVERSARIES)


@pytest.mark.parametrize("name", ADVERSARIES)
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16), eps=st.sampled_from(["0.01", "8/255", "0.3", "1"]), size=st.sampled_from(["0.02", "2"])
)
def test_all_that_is_trained_on_lies_in_ball_and_box(name: str, seed: int, eps: str, size: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    # A third of the pixels at either end of the box, where a clip is needed.
    x = (torch.rand(4, 1, 4, 4, generator=generator) * 3 - 1).clamp(0, 1)
    y = torch.randint(3, (4,), generator=generator)
    how = replace(TRAININGS[name], eps=eps, step_size=size)
    model = classifier(seed)
    batches, now = seen_by(model), state(model, how)
    task = _Task(model, how, 3, None, None, None, 1)
    for _ in range(2):  # free training carries its perturbation on
        _step(task, now, x, y)
    low, high = bounds(x, float(Fraction(eps)))
    assert any(not torch.equal(batch, x) for batch in batches)
    for batch in batches:
        assert bool(((batch >= low - 1e-6) & (batch <= high + 1e-6)).all())
        assert bool(((batch >= 0) & (batch <= 1)).all())


def test_one_step_from_the_clean_input_and_one_from_a_random_start() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    x, y = torch.full((500, 1, 1, 2), 0.5), torch.zeros(500, dtype=torch.int64)
    fgsm = crafted(model, x, y, recipe("fgsm", dataset="digits"), torch.Generator())
    assert torch.allclose(fgsm.flatten(1), torch.tensor([0.3, 0.7]).expand(500, 2))
    fast = crafted(model, x, y, recipe("fast", dataset="digits"), torch.Generator()).flatten(1)
    # A start in U(−0.2, 0.2) and a step of 0.25 that is clipped to 0.2.
    moved = (0.5 - fast[:, 0]).sort().values
    assert float(moved[0]) >= 0.05 - 1e-6
    assert float(moved[-1]) == pytest.approx(0.2)
    assert 0.55 < float((moved > 0.2 - 1e-6).float().mean()) < 0.7  # of starts above −0.05: 5 of 8


def test_trades_seeks_divergence_and_weighs_it() -> None:
    model = classifier()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(6, 1, 4, 4, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    how = replace(TRAININGS["trades"], eps="0.1", step_size="0.02")

    def apart(inputs: Tensor) -> Tensor:
        clean = model(x).softmax(1)
        return (clean * (clean.log() - model(inputs).softmax(1).log())).sum()

    found = crafted(model, x, y, how, torch.Generator().manual_seed(1))
    assert torch.equal(crafted(model, x, y.flip(0), how, torch.Generator().manual_seed(1)), found)  # no label enters
    none = crafted(model, x, y, replace(how, steps=0), torch.Generator().manual_seed(1))
    assert 0 < float((none - x).abs().max()) < 0.01
    assert float(apart(found).detach()) > 50 * float(apart(none).detach())
    expected = functional.cross_entropy(model(x), y) + 6 * apart(found) / 6
    assert torch.allclose(_loss(model, found, x, y, how), expected, rtol=1e-4)
    other = functional.cross_entropy(model(found), y)
    assert torch.allclose(_loss(model, found, x, y, replace(how, adversary="pgd")), other)


def test_free_training_replays_every_batch_and_hands_its_perturbation_on() -> None:
    generator = torch.Generator().manual_seed(0)
    data = Dataset("random", torch.rand(10, 1, 4, 4, generator=generator), torch.arange(10) % 3, 3)
    how = replace(TRAININGS["free"], batch_size=4, replays=3, eps="0.1", step_size="0.1", precision="float32")
    model, shares = classifier(), []
    batches = seen_by(model)
    fit(
        model, data, how, seed=0, device="cpu", epochs=1, progress=False, after_step=lambda _, done: shares.append(done)
    )
    assert [len(batch) for batch in batches[-9:]] == [4] * 6 + [2] * 3
    assert shares == pytest.approx([number / 9 for number in range(1, 10)])
    clean = {tuple(image.flatten().tolist()) for image in data.x}
    is_clean = [all(tuple(image.flatten().tolist()) in clean for image in batch) for batch in batches[-9:]]
    assert is_clean == [True] + [False] * 8  # only the very first begins without a perturbation
