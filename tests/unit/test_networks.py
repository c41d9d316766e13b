from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pytest_prunerob.errors import ModelError
from pytest_prunerob.networks import build


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.mark.parametrize("inputs", [(1, 8, 8), (3, 9, 7), (1, 28, 28), (2, 1, 1)])
def test_the_cnn_takes_images_of_any_size(inputs: tuple[int, int, int]) -> None:
    assert build("cnn", inputs=inputs, classes=4, seed=0)(torch.zeros(1, *inputs)).shape == (1, 4)


def test_the_cnn_is_small() -> None:
    assert sum(p.numel() for p in build("cnn", inputs=(1, 8, 8), classes=10, seed=0).parameters()) == 33_546


@pytest.mark.parametrize(
    ("name", "inputs", "classes", "message"),
    [
        ("resnet", (3, 32, 32), 10, "unknown network 'resnet': allowed are .*; did you mean 'resnet"),
        ("cnn", (8, 8), 10, r"inputs must be \(channels, height, width\), found \(8, 8\)"),
        ("cnn", (1, 8, 8), 1, "at least 2 classes are needed, found 1"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, inputs: tuple[int, int, int], classes: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(name, inputs=inputs, classes=classes, seed=0)


def test_the_cifar_checkpoint_of_pyautoattack_loads_strictly_and_knows_its_classes() -> None:
    model = build("resnet18", inputs=(3, 32, 32), classes=10, seed=0)
    checkpoint = package("pyautoattack") / "examples" / "model_test.pt"
    model.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"), strict=True)
    files = sorted((package("foolbox") / "data").glob("cifar10_*.png"))
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) for file in files]) / 255
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    labels = torch.tensor([int(file.stem.split("_")[-1]) for file in files])
    with torch.no_grad():
        correct = int((model(images).argmax(dim=1) == labels).sum())
    assert len(files) == 20
    assert correct >= 17
