"""Networks without residual stages: their names, the normalisation inside those from torchvision, the least side."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from pytest_prunerob.compression import compress
from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.units import following_norms
from pytest_prunerob.errors import ModelError
from pytest_prunerob.facts import convolutions
from pytest_prunerob.fingerprint import fingerprint
from pytest_prunerob.networks import NETWORKS, build
from pytest_prunerob.networks.normalised import normalised

MEAN, STD = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
# Torchvision's names, with what keeps its Inception-v3 from warning.
TORCHVISION = {
    "imagenet-alexnet": ("alexnet", {}),
    "imagenet-vgg16-bn": ("vgg16_bn", {}),
    "imagenet-resnet18": ("resnet18", {}),
    "imagenet-resnet50": ("resnet50", {}),
    "imagenet-mobilenet-v2": ("mobilenet_v2", {}),
    "imagenet-densenet121": ("densenet121", {}),
    "imagenet-inception-v3": ("inception_v3", {"init_weights": False}),
}
# Some names and shapes of public checkpoints, first and last among them.
CHECKPOINTS = {
    "vgg16": {
        "features.0.weight": (64, 3, 3, 3),
        "features.1.running_var": (64,),
        "features.40.bias": (512,),
        "features.41.weight": (512,),
        "classifier.weight": (10, 512),
    },
    "mobilenet-v1": {
        "conv1.weight": (32, 3, 3, 3),
        "bn1.bias": (32,),
        "layers.0.conv1.weight": (32, 1, 3, 3),
        "layers.12.bn2.weight": (1024,),
        "linear.weight": (10, 1024),
    },
    "mobilenet-v2": {
        "conv1.weight": (32, 3, 3, 3),
        "layers.0.shortcut.0.weight": (16, 32, 1, 1),
        "layers.2.conv1.weight": (144, 24, 1, 1),
        "layers.16.bn3.weight": (320,),
        "conv2.weight": (1280, 320, 1, 1),
        "linear.bias": (10,),
    },
    "densenet121": {
        "conv1.weight": (64, 3, 3, 3),
        "dense1.0.conv2.weight": (32, 128, 3, 3),
        "trans3.conv.weight": (512, 1024, 1, 1),
        "dense4.15.bn1.weight": (992,),
        "bn.weight": (1024,),
        "linear.weight": (10, 1024),
    },
    "densenet-bc": {
        "conv1.weight": (24, 3, 3, 3),
        "trans1.bn1.weight": (216,),
        "trans2.conv1.weight": (150, 300, 1, 1),
        "dense3.15.conv2.weight": (12, 48, 3, 3),
        "bn.running_mean": (342,),
        "fc.weight": (10, 342),
    },
    "cnn-small": {"0.weight": (16, 3, 4, 4), "2.bias": (32,), "5.weight": (100, 2048), "7.bias": (10,)},
    "cnn-large": {"0.weight": (32, 3, 3, 3), "6.weight": (64, 64, 4, 4), "9.weight": (512, 4096), "13.bias": (10,)},
}


def hollow(name: str, inputs: tuple[int, int, int], classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return NETWORKS[name].build(inputs, classes).eval()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_names_are_those_of_public_checkpoints(name: str) -> None:
    found = {key: tuple(tensor.shape) for key, tensor in hollow(name, (3, 32, 32)).state_dict().items()}
    assert CHECKPOINTS[name].items() <= found.items()


@pytest.mark.parametrize(("name", "width"), [("densenet121", 64), ("densenet-bc", 24)])
def test_the_order_of_dense_channels_is_that_of_the_checkpoint(name: str, width: int) -> None:
    """What goes into a layer comes out of it last with kuangliu, first with bearpaw."""
    layer = build(name, inputs=(1, 8, 8), classes=2, seed=0).get_submodule("dense1.0")
    x = torch.rand(1, width, 4, 4)
    out = layer(x)
    assert torch.equal(out[:, :width] if name == "densenet-bc" else out[:, -width:], x)


@pytest.mark.parametrize(("name", "least"), [(name, one.least) for name, one in NETWORKS.items() if one.least > 1])
def test_the_least_side_is_the_least(name: str, least: int) -> None:
    channels = NETWORKS[name].channels or 1
    small = (channels, least - 1, least)
    with pytest.raises(ModelError, match=rf"sides of at least {least} are allowed, found \({channels}, {least - 1}, "):
        build(name, inputs=small, classes=10, seed=0)
    with pytest.raises((RuntimeError, UserWarning)):
        hollow(name, small)(torch.empty(2, *small, device="meta"))


def test_networks_of_torchvision_take_colour_images() -> None:
    with pytest.raises(ModelError, match=r"inputs with 3 channels and sides of at least 63 are allowed, found \(1, 64"):
        build("imagenet-alexnet", inputs=(1, 64, 64), classes=10, seed=0)


@pytest.mark.parametrize("name", TORCHVISION)
def test_what_torchvision_publishes_loads_strictly(name: str) -> None:
    from torchvision.models import get_model

    called, options = TORCHVISION[name]
    with torch.device("meta"):
        public = get_model(called, weights=None, **options).state_dict()
    model = hollow(name, (3, 224, 224), 1000)
    own = [key for key in public if not key.startswith("AuxLogits.")]
    assert (len(own) < len(public)) == (name == "imagenet-inception-v3")
    assert list(model.state_dict()) == own
    assert {key.removesuffix(".weight") for key, _ in model.named_parameters()} & {"mean", "std"} == set()
    model.load_state_dict(public, strict=True)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*surplus"):
        model.load_state_dict({**public, "surplus": torch.empty(1, device="meta")}, strict=True)
    with pytest.raises(RuntimeError, match=rf"Missing key.*{own[0]}"):
        model.load_state_dict({key: public[key] for key in own[1:]}, strict=True)


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("imagenet-mobilenet-v2", 32, {}),
        # So is it built for the published weights: normalised as the others and converted.
        ("imagenet-inception-v3", 75, {"transform_input": True, "aux_logits": False}),
    ],
)
def test_the_logits_are_those_of_torchvision_on_normalised_inputs(
    name: str, side: int, options: dict[str, bool]
) -> None:
    from torchvision.models import get_model

    model = build(name, inputs=(3, side, side), classes=10, seed=0)
    called, more = TORCHVISION[name]
    public = get_model(called, weights=None, num_classes=10, **more, **options).eval()
    public.load_state_dict(model.state_dict(), strict=True)
    x = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0)).double()
    # In train mode batch statistics keep differences alive that random weights let die, roundings too: so in float64.
    outputs = [_trained(one, inputs) for one, inputs in ((model, x), (public, (x - MEAN) / STD), (public, x))]
    assert outputs[0].shape == (4, 10)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-3)
    assert float((outputs[2] - outputs[1]).abs().max()) > 0.1


def _trained(model: nn.Module, x: Tensor) -> Tensor:
    """The logits in train mode, with the draws of seed 0 for dropout."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        logits: Tensor = model.double().train()(x)
    return logits


@pytest.fixture
def small() -> nn.Module:
    """Normalised inside: two channels, a convolution, a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2))
    return normalised(layers, mean=(0.25, 0.5), std=(0.5, 2.0)).eval()


def test_normalisation_is_inside_and_leaves_the_names(small: nn.Module) -> None:
    x = torch.rand(3, 2, 4, 4)
    shifted = (x - torch.tensor((0.25, 0.5)).view(2, 1, 1)) / torch.tensor((0.5, 2.0)).view(2, 1, 1)
    plain = nn.Sequential(*small.children())
    assert torch.equal(small(x), plain(shifted))
    assert not torch.equal(small(x), plain(x))
    assert list(small.state_dict()) == list(plain.state_dict()) == [name for name, _ in small.named_parameters()]
    assert type(small).__name__ == "Sequential"
    traced = fx.symbolic_trace(small)
    assert torch.equal(traced(x), small(x))
    assert [name for name, _ in traced.named_parameters()] == list(plain.state_dict())


def test_a_normalised_network_can_be_copied_moved_and_masked(small: nn.Module) -> None:
    x = torch.rand(3, 2, 4, 4)
    before = small(x)
    other = copy.deepcopy(small).double()
    assert other(x.double()).dtype == torch.float64
    keep = torch.ones(3, 2, 3, 3, dtype=torch.bool)
    keep[0] = False
    apply(other, Masks({"0.weight": keep}))
    assert bool((other.state_dict()["0.weight"][0] == 0).all())
    assert torch.equal(small(x), before)


def test_the_fingerprint_knows_the_normalisation(small: nn.Module) -> None:
    layers = dict(small.named_children())

    def of(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
        return fingerprint(normalised(nn.Sequential(*copy.deepcopy(list(layers.values()))), mean=mean, std=std))

    same, shifted, scaled = (of((0.25, 0.5), (0.5, 2.0)), of((0.25, 0.4), (0.5, 2.0)), of((0.25, 0.5), (0.5, 1.0)))
    assert same == fingerprint(small)
    assert len({same, shifted, scaled, fingerprint(nn.Sequential(*layers.values()))}) == 4
    assert len(fingerprint(build("imagenet-mobilenet-v2", inputs=(3, 32, 32), classes=10, seed=0))) == 64


@pytest.mark.parametrize("name", ["cnn-small", "densenet-bc", "mobilenet-v1", "mobilenet-v2"])
def test_a_pruned_filter_is_silent(name: str) -> None:
    """Depthwise and dense connections among them: what reads the filter, or its normalisation, reads exact zeros."""
    model = build(name, inputs=(1, 8, 8), classes=10, seed=0)
    found = compress(model, method="filter-l1", amount="0.5").model
    for norm in found.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    norms, layers, seen = following_norms(found), convolutions(found), {}
    ends = {layer: norms.get(layer, [layer])[0] for layer in layers}
    for layer, end in ends.items():
        found.get_submodule(end).register_forward_hook(lambda _, __, out, layer=layer: seen.update({layer: out}))
    with torch.no_grad():
        found(torch.rand(2, 1, 8, 8))
    gone = {layer: (module.weight == 0).flatten(1).all(dim=1) for layer, module in layers.items()}
    assert sum(int(one.sum()) for one in gone.values()) * 2 == sum(one.numel() for one in gone.values())
    for layer, out in seen.items():
        assert bool((out[:, gone[layer]] == 0).all()), layer
    assert seen.keys() == layers.keys()
