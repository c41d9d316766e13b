from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from pytest_prunerob.training import TRAININGS, TUNED, fine_tuning, recipe
from pytest_prunerob.training.schedules import Watch, cosine, optimizer_of, rate


def test_the_cosine_rises_to_its_peak_and_falls_to_zero() -> None:
    assert [round(cosine(done, 0.2), 6) for done in (0.0, 0.1, 0.2, 0.6, 1.0)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert rate(TRAININGS["standard"], 0.1, 3, Watch()) == pytest.approx(5e-4)


def test_steps_fall_at_their_epochs() -> None:
    he = TRAININGS["jordao2021"]
    found = [rate(he, epoch / 200, epoch, Watch()) for epoch in (0, 99, 100, 149, 150, 199)]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    vora = TRAININGS["vora2023"]
    assert {rate(vora, epoch / 10, epoch, Watch()) for epoch in range(vora.epochs)} == {0.1}


def test_optimizers_are_those_of_the_papers() -> None:
    model = nn.Linear(2, 2)
    vora, merkle = optimizer_of(model, TRAININGS["vora2023"]), optimizer_of(model, TRAININGS["merkle2021"])
    assert isinstance(vora, torch.optim.SGD)
    assert (vora.defaults["momentum"], vora.defaults["nesterov"], vora.defaults["weight_decay"]) == (0.9, True, 0.0)
    assert type(merkle) is torch.optim.Adam
    assert type(optimizer_of(model, TRAININGS["standard"])) is torch.optim.AdamW


def test_a_plateau_lowers_the_rate_as_keras_counts_and_ends_training() -> None:
    how = replace(TRAININGS["merkle2021"], patience=2, stop_patience=4)
    # 0.99995 is a new best, and yet no fall by 1e-4: the rate's patience goes on.
    losses = [1.0, 0.99995, 1.2, 0.5, 0.6, 0.6, 0.6, 0.7]
    watch, rates, over = Watch(), [], []
    for epoch, loss in enumerate(losses):
        watch = watch.after(loss, how)
        rates.append(rate(how, 0.0, epoch, watch))
        over.append(watch.over(how))
    assert rates == pytest.approx([1e-3, 1e-3, 3e-4, 3e-4, 3e-4, 9e-5, 9e-5, 2.7e-5])
    assert over == [False] * 7 + [True]
    assert Watch.of(asdict(watch)) == watch


def test_a_plateau_is_that_of_torch_with_one_epoch_less_to_wait() -> None:
    how = TRAININGS["merkle2021"]
    assert how.patience is not None
    assert how.decay is not None
    given = {"factor": how.decay, "patience": how.patience - 1, "threshold": 1e-4, "threshold_mode": "abs", "eps": 0.0}
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=how.lr)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **given)  # type: ignore[arg-type]
    generator, watch = torch.Generator().manual_seed(0), Watch()
    for epoch in range(150):
        loss = float(torch.rand((), generator=generator)) + 5 * 0.9**epoch
        watch = watch.after(loss, how)
        theirs.step(loss)
        assert rate(how, 0.0, epoch, watch) == pytest.approx(optimizer.param_groups[0]["lr"]), epoch
    assert watch.drops >= 3


def test_the_papers_recipes() -> None:
    merkle, small = TRAININGS["merkle2021"], TRAININGS["merkle2021-cnn5"]
    assert (merkle.optimizer, merkle.lr, merkle.epochs, merkle.decay) == ("adam", 1e-3, 150, 0.3)
    assert (merkle.patience, merkle.stop_patience, small.stop_patience, small.schedule) == (12, 15, 5, "constant")
    vora = TRAININGS["vora2023"]
    assert (vora.optimizer, vora.lr, vora.batch_size, vora.epochs) == ("sgd", 0.1, 128, 10)
    assert (vora.milestones, vora.decay) == ((10, 20, 30), 0.1)
    jordao = TRAININGS["jordao2021"]
    assert (jordao.epochs, jordao.augmentation) == (200, "crop-flip")
    assert TRAININGS["trades"].beta == 6
    assert (TRAININGS["fast"].eps, TRAININGS["fast"].step_size) == ("8/255", "10/255")


def test_every_recipe_is_tuned_and_named_by_its_key() -> None:
    for catalogue in (TRAININGS, *TUNED.values()):
        assert list(catalogue) == list(TRAININGS)
        assert all(how.name == name for name, how in catalogue.items())


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "schedule"),
    [
        ("standard", 7, 5e-4, "cosine"),
        ("free", 2, 5e-4, "cosine"),
        ("merkle2021", 150, 1e-3, "plateau"),
        ("merkle2021-cnn5", 150, 1e-3, "constant"),
        ("vora2023", 2, 0.1, "constant"),
        ("jordao2021", 200, 1e-3, "constant"),
    ],
)
def test_fine_tuning_follows_from_the_schedule(name: str, epochs: int, lr: float, schedule: str) -> None:
    whole, tuned = TRAININGS[name], fine_tuning(TRAININGS[name])
    assert (tuned.name, tuned.epochs, tuned.schedule) == (f"{name}-fine-tuning", epochs, schedule)
    assert tuned.lr == pytest.approx(lr)
    assert (tuned.adversary, tuned.optimizer, tuned.augmentation) == (
        whole.adversary,
        whole.optimizer,
        whole.augmentation,
    )
    assert {rate(tuned, 0.3, epoch, Watch()) for epoch in range(3)} != {0.0}
    assert recipe(name, dataset="digits").epochs >= fine_tuning(recipe(name, dataset="digits")).epochs
