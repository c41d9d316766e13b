from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pytest_prunerob.training import TRAININGS
from pytest_prunerob.training.augmentation import augmenting, cutout


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_cutout_fills_one_square_of_each_image_with_the_mean_wherever_its_centre_is() -> None:
    x = torch.ones(400, 3, 8, 8)
    filled = cutout(x, 0.5, torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1))
    gone = filled != 1
    assert torch.equal(filled[:, 2][gone[:, 2]], torch.full((int(gone[:, 2].sum()),), 0.3))
    assert torch.equal(gone[:, 0], gone[:, 1])
    heights, widths = gone[:, 0].any(dim=2).sum(dim=1), gone[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(gone[:, 0].sum(dim=(1, 2)), heights * widths)
    # A square of 4 whose first row is at −2 … 5 has 2, 3 or 4 rows left.
    assert set(heights.tolist()) == set(widths.tolist()) == {2, 3, 4}
    assert bool(gone[:, 0].any(dim=0).all())
    assert bool((x == 1).all())


def test_cutout_of_a_recipe_uses_the_mean_of_what_is_trained_on() -> None:
    data = torch.rand(50, 1, 8, 8)
    changed, labels = augmenting(TRAININGS["cutout"], data, 10)(torch.ones(5, 1, 8, 8), torch.arange(5))
    assert torch.equal(changed.unique(), torch.stack([data.mean(), torch.tensor(1.0)]))
    assert torch.equal(labels, torch.arange(5))


def test_mixup_mixes_images_and_labels_by_one_share() -> None:
    x, y = torch.eye(4).reshape(4, 1, 2, 2), torch.arange(4)
    mixed, labels = augmenting(TRAININGS["mixup"], x, 4)(x, y)
    assert torch.allclose(mixed.flatten(1), labels)
    share = float(labels[0, 0])
    assert 0 < share < 1
    assert labels[0].tolist() == pytest.approx([share, 0, 0, 1 - share])


def test_cutmix_mixes_every_second_batch_and_labels_by_area() -> None:
    x, y = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 8, 8) / 4, torch.arange(4)
    augment = augmenting(TRAININGS["cutmix"], x, 4)
    plain = 0
    for _ in range(60):
        mixed, labels = augment(x, y)
        own = (mixed == x).float().mean(dim=(1, 2, 3))
        assert torch.allclose(labels[torch.arange(4), y], own)
        plain += torch.equal(mixed, x)
    assert 20 <= plain <= 40


def test_crop_and_flip_are_drawn_for_each_image() -> None:
    image = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8) / 64
    augment = augmenting(TRAININGS["jordao2021"], image, 10)
    changed, labels = augment(image.repeat(64, 1, 1, 1), torch.arange(64) % 10)
    assert labels.shape == (64,)
    assert changed.shape == (64, 1, 8, 8)
    # Padded by 1: 3 × 3 places, each mirrored or not.
    found = {tuple(one.flatten().tolist()) for one in changed}
    assert len(found) > 12
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    allowed = [padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    allowed += [crop.flip(-1) for crop in allowed]
    assert found <= {tuple(crop.flatten().tolist()) for crop in allowed}


def test_nothing_is_drawn_without_augmentation() -> None:
    before = torch.random.get_rng_state()
    x, y = torch.rand(2, 1, 4, 4), torch.arange(2)
    torch.random.set_rng_state(before)
    same, labels = augmenting(replace(TRAININGS["standard"]), x, 10)(x, y)
    assert same is x
    assert labels is y
    assert torch.equal(torch.random.get_rng_state(), before)
