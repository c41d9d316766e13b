from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pytest_prunerob.errors import ModelError
from pytest_prunerob.networks import NETWORKS, Network, build
from pytest_prunerob.networks.cnn import cnn


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.mark.parametrize("inputs", [(1, 8, 8), (3, 9, 7), (1, 28, 28), (2, 1, 1)])
def test_the_cnn_takes_images_of_any_size(inputs: tuple[int, int, int]) -> None:
    assert build("cnn", inputs=inputs, classes=4, seed=0)(torch.zeros(1, *inputs)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "inputs", "classes", "message"),
    [
        ("resnet-56", (3, 32, 32), 10, r"unknown network 'resnet-56': allowed are cnn, .*; did you mean 'resnet56'\?$"),
        ("wrn28-10", (3, 32, 32), 10, r"; did you mean 'wrn-28-10'\?$"),
        ("preact-resnet-8", (1, 8, 8), 10, r"; did you mean 'preact-resnet8'\?$"),
        ("cnn", (8, 8), 10, r"^network 'cnn': inputs must be \(channels, height, width\), found \(8, 8\)$"),
        ("wrn-16-4", (0, 8, 8), 10, r"^network 'wrn-16-4': inputs must be \(.*\), found \(0, 8, 8\)$"),
        ("cnn", (1, 8, 8), 1, "^network 'cnn': at least 2 classes are needed, found 1$"),
        (
            "picky",
            (1, 8, 8),
            10,
            r"^network 'picky': inputs with 3 channels and sides of at least 6 are allowed, found",
        ),
        ("picky", (3, 8, 5), 10, r"sides of at least 6 are allowed, found \(3, 8, 5\)$"),
        (
            "wide",
            (1, 5, 8),
            10,
            "^network 'wide': inputs with any number of channels and sides of at least 6 are allowed",
        ),
        ("exact", (1, 8, 8), 10, r"^network 'exact': inputs of shape \(1, 6, 6\) are allowed, found \(1, 8, 8\)$"),
    ],
)
def test_what_cannot_be_built_is_refused(
    name: str, inputs: tuple[int, int, int], classes: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for network in (
        Network("picky", cnn, "", least=6, channels=3),
        Network("wide", cnn, "", least=6),
        Network("exact", cnn, "", exact=(1, 6, 6)),
    ):
        monkeypatch.setitem(NETWORKS, network.name, network)
    with pytest.raises(ModelError, match=message):
        build(name, inputs=inputs, classes=classes, seed=0)


def test_a_network_takes_what_it_says() -> None:
    picky, exact = Network("", cnn, "", least=6, channels=3), Network("", cnn, "", exact=(1, 6, 6))
    assert [picky.takes(inputs) for inputs in ((3, 6, 9), (3, 5, 9), (1, 6, 9))] == [True, False, False]
    assert [exact.takes(inputs) for inputs in ((1, 6, 6), (1, 6, 9), (3, 6, 6))] == [True, False, False]


# Entries of the state dicts of pytorch-cifar, of RDI-Nets and pytorch-cifar-models, and of RobustBench (of its
# pre-activation ResNets those with bn_before_fc).
@pytest.mark.parametrize(
    ("name", "entries", "names"),
    [
        ("resnet34", 218, {"conv1.weight", "bn1.bias", "layer3.5.conv2.weight", "layer2.0.shortcut.1.running_var"}),
        ("resnet50", 320, {"layer1.0.shortcut.0.weight", "layer3.5.bn3.num_batches_tracked", "linear.bias"}),
        ("resnet56", 344, {"layer1.8.conv2.weight", "layer3.0.downsample.1.weight", "bn1.running_mean", "fc.weight"}),
        ("preact-resnet18", 107, {"conv1.weight", "layer2.0.shortcut.0.weight", "layer4.1.bn2.bias", "bn.running_var"}),
        (
            "wrn-28-10",
            155,
            {"conv1.weight", "block1.layer.0.convShortcut.weight", "block3.layer.3.bn2.bias", "fc.bias"},
        ),
    ],
)
def test_the_state_dict_has_the_names_of_public_checkpoints(name: str, entries: int, names: set[str]) -> None:
    with torch.device("meta"):
        found = NETWORKS[name].build((3, 32, 32), 10).state_dict()
    assert len(found) == entries
    assert names <= found.keys()


def test_resnet50_is_that_of_torchvision_but_for_its_stem() -> None:
    model = build("resnet50", inputs=(3, 32, 32), classes=10, seed=0).train()
    with torch.device("meta"):
        reference = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=10)
        reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    renamed = {"shortcut": "downsample", "linear": "fc"}
    state = {".".join(renamed.get(part, part) for part in key.split(".")): v for key, v in model.state_dict().items()}
    reference.load_state_dict(copy.deepcopy(state), strict=True, assign=True)
    x = torch.rand(3, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-5)


def test_a_block_of_the_narrow_resnets_is_that_of_torchvision() -> None:
    model = build("resnet32", inputs=(1, 8, 8), classes=10, seed=0).train()
    projection = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))
    for name, reference in (("layer1.2", BasicBlock(16, 16)), ("layer2.0", BasicBlock(16, 32, 2, projection))):
        block = model.get_submodule(name)
        reference.load_state_dict(block.state_dict(), strict=True)
        x = torch.randn(3, 16, 5, 4, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(block(x), reference.train()(x))


@pytest.mark.parametrize(
    ("name", "plain", "projected", "shortcut"),
    [
        ("preact-resnet8", "layer1.0", "layer2.0", "shortcut"),
        ("wrn-16-4", "block1.layer.1", "block1.layer.0", "convShortcut"),
    ],
)
def test_pre_activation_adds_the_input_or_a_projection_of_the_first_activation(
    name: str, plain: str, projected: str, shortcut: str
) -> None:
    model = build(name, inputs=(1, 8, 8), classes=10, seed=0)
    for place in (plain, projected):
        part = model.get_submodule(place).get_submodule
        x = torch.randn(2, len(part("bn1").get_parameter("weight")), 4, 3, generator=torch.Generator().manual_seed(0))
        active = torch.relu(part("bn1")(x))
        branch = part("conv2")(torch.relu(part("bn2")(part("conv1")(active))))
        assert torch.equal(part("")(x), branch + (x if place == plain else part(shortcut)(active)))


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
