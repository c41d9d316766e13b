"""What holds for every network of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, fx, nn

from pytest_prunerob.networks import NETWORKS, build

NAMES = sorted(NETWORKS)
# To fill larger networks with random weights takes seconds: they are run without values.
LARGE = 40_000_000
# Networks below this are built three times.
SMALL = 1_000_000

Settled = tuple[nn.Module, Tensor, Tensor]


@dataclass(frozen=True)
class Count:
    """The number of parameters for images of shape ``inputs`` and so many ``classes``."""

    parameters: int
    inputs: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10


# What others have published, with where it stands.
PUBLISHED = {
    # The pytorch-cifar models counted in tables of many repositories; microsoft/nni counts the same for -18 and -50.
    "resnet18": Count(11_173_962),
    "resnet34": Count(21_282_122),
    "resnet50": Count(23_520_842),
    # Option B beside option A's 464,154 and 853,018; pytorch-cifar-models logs n_params=0.86M for ResNet-56.
    "resnet32": Count(466_906),
    "resnet56": Count(855_770),
    # ResNet-18 of version 2, with the last normalisation; pytorch-cifar's 11,171,146 has none (2 · 512 fewer).
    "preact-resnet18": Count(11_172_170),
    # As WRN-10-1, which is the same network: 3 stages of one block, widths 16, 32, 64.
    "preact-resnet8": Count(77_850),
    # Zagoruyko & Komodakis 2016, Tables 4 to 6: 2.7M and 36.5M; to the digit in osmr/imgclsmob's test of WRN-28-10.
    "wrn-16-4": Count(2_748_890),
    "wrn-28-10": Count(36_479_194),
    "wrn-28-4": Count(5_849_050),
    # Tables of the pytorch-cifar models in many repositories.
    "vgg11": Count(9_231_114),
    "vgg16": Count(14_728_266),
    "vgg19": Count(20_040_522),
    "mobilenet-v1": Count(3_217_226),
    "mobilenet-v2": Count(2_296_922),
    "densenet121": Count(6_956_298),
    # osmr/imgclsmob; Huang et al. 2017, Table 2: 0.8M.
    "densenet-bc": Count(769_162),
    # Han et al. 2015, Table 1: 267K and 431K.
    "lenet-300-100": Count(266_610, (1, 28, 28)),
    "lenet-5": Count(431_080, (1, 28, 28)),
    # VeriGauge's table of the CIFAR-10 networks of Wong et al.
    "cnn-small": Count(214_918),
    "cnn-large": Count(2_466_858),
    # ``num_params`` of torchvision's weights; Inception-v3 without the 3,326,696 of its auxiliary classifier.
    "imagenet-alexnet": Count(61_100_840, (3, 224, 224), 1000),
    "imagenet-vgg16-bn": Count(138_365_992, (3, 224, 224), 1000),
    "imagenet-resnet18": Count(11_689_512, (3, 224, 224), 1000),
    "imagenet-resnet50": Count(25_557_032, (3, 224, 224), 1000),
    "imagenet-mobilenet-v2": Count(3_504_872, (3, 224, 224), 1000),
    "imagenet-densenet121": Count(7_978_856, (3, 224, 224), 1000),
    "imagenet-inception-v3": Count(27_161_264 - 3_326_696, (3, 299, 299), 1000),
}
# What nobody has published: derived by hand.
DERIVED = {
    # (1 · 16 + 16 · 32 + 32 · 64) · 9 + 16 + 32 + 64 weights and biases of 3×3 convolutions, 64 · 4 · 4 · 10 + 10.
    "cnn": Count(33_546, (1, 8, 8)),
    # ResNet-32 with one block more in each stage: 466,906 + 18 · (16² + 32² + 64²) + 4 · (16 + 32 + 64).
    "resnet38": Count(564_122),
    # As LeNet-5 with widths 6, 16, 120, 84: 6 · 26 + 16 · 151 + 120 · 401 + 84 · 121 + 10 · 85.
    "cnn5": Count(61_706, (1, 28, 28)),
    # 784 · 100 + 100 + 100 · 10 + 10.
    "mlp-100": Count(79_510, (1, 28, 28)),
}
COUNTS = {**PUBLISHED, **DERIVED}
BUILT = [name for name, count in COUNTS.items() if count.parameters <= LARGE]


def smallest(name: str) -> tuple[int, int, int]:
    """The smallest input that the network says it takes, and a little wider than high."""
    network = NETWORKS[name]
    return network.exact or (network.channels or 1, network.least, network.least + 3)


def hollow(name: str, inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """The network in eval mode, with shapes but no values."""
    with torch.device("meta"):
        return NETWORKS[name].build(inputs, classes).eval()


def test_every_network_has_a_count() -> None:
    assert COUNTS.keys() == NETWORKS.keys()
    assert not PUBLISHED.keys() & DERIVED.keys()


@pytest.mark.parametrize("name", NAMES)
def test_it_has_as_many_parameters_as_published(name: str) -> None:
    count = COUNTS[name]
    model = hollow(name, count.inputs, count.classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count.parameters


@pytest.fixture(scope="module", params=BUILT)
def built(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A network with random weights and its name."""
    before = torch.random.get_rng_state()
    model = build(request.param, inputs=smallest(request.param), classes=10, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    return request.param, model


def test_it_is_ready_for_attacks_on_the_cpu(built: tuple[str, nn.Module]) -> None:
    _, model = built
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.fixture(scope="module")
def settled(built: tuple[str, nn.Module]) -> Settled:
    """The network with the batch statistics of four samples, and its logits for two of them.

    With the statistics of a fresh network, depth lets next to nothing through.
    """
    name, model = built
    x = torch.rand(4, *smallest(name), generator=torch.Generator().manual_seed(0))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(x)
    for norm in norms:
        norm.eval()
    x = x[:2].clone().requires_grad_()
    logits: Tensor = model(x)
    return model, x, logits


def test_a_sample_alone_has_the_logits_that_it_has_in_a_batch(settled: Settled) -> None:
    model, x, logits = settled
    assert logits.shape == (2, 10)
    spread = (logits[0] - logits[1]).abs().amax()
    assert spread > 1e-4
    with torch.no_grad():
        assert (model(x[:1]) - logits[:1]).abs().amax() < 0.01 * spread


def test_the_gradient_reaches_every_input(settled: Settled) -> None:
    _, x, logits = settled
    (slope,) = torch.autograd.grad(logits.logsumexp(dim=1).sum(), x, retain_graph=True)
    assert bool((slope.flatten(1).norm(dim=1) > 1e-6).all())


def test_torch_fx_traces_it(settled: Settled) -> None:
    model, x, _ = settled
    with torch.no_grad():
        assert torch.equal(fx.GraphModule(model, fx.Tracer().trace(model))(x[:1]), model(x[:1]))


@pytest.mark.parametrize("name", [name for name in COUNTS if name not in BUILT])
def test_a_large_network_runs_without_values(name: str) -> None:
    inputs = smallest(name)
    model = hollow(name, inputs, 10)
    with torch.no_grad():
        logits: Tensor = fx.GraphModule(model, fx.Tracer().trace(model))(torch.empty(2, *inputs, device="meta"))
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("name", [name for name in BUILT if COUNTS[name].parameters <= SMALL])
def test_its_weights_follow_from_its_seed_and_its_state_dict_holds_all(name: str) -> None:
    inputs = smallest(name)
    model, again, other = (build(name, inputs=inputs, classes=7, seed=seed) for seed in (3, 3, 4))
    assert all(map(torch.equal, again.parameters(), model.parameters()))
    assert not all(map(torch.equal, other.parameters(), model.parameters()))
    other.load_state_dict(model.state_dict(), strict=True)
    x = torch.rand(2, *inputs, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(other(x), model(x))
