from __future__ import annotations

import copy

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from pytest_prunerob.adequacy.discrete import MISMATCH, discrete, gradient_mismatch
from pytest_prunerob.compression import compress


class Step(torch.autograd.Function):
    """The sign forwards, the identity backwards."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Activation(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator,no-any-return]


def through(soft: Tensor, hard: Tensor) -> Tensor:
    return soft + (hard - soft).detach()


STEPS = {
    "sign": Step.apply,
    "hard-tanh": lambda x: through(F.hardtanh(x), x.sign()),
    "8 bit": lambda x: through(x, (x * 64).round() / 64),
}


def network(activation: nn.Module, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        activation,
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    ).eval()


def fit(net: nn.Sequential, x: Tensor, y: Tensor, eps: float = 0.0) -> nn.Sequential:
    optimiser = torch.optim.Adam(net.train().parameters(), lr=0.01)
    for _ in range(20):
        z = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(z), y), z)
        optimiser.zero_grad()
        F.cross_entropy(net(x + eps * gradient.sign()), y).backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """Digits: their margins are flat, so that maxima of equal numbers occur."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.images[:128]).float().unsqueeze(1) / 16, torch.from_numpy(data.target[:128]).long()


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Hardtanh()], ids=["relu", "gelu", "hard-tanh"])
def test_ordinary_networks_have_their_own_gradients(
    images: tuple[Tensor, Tensor], activation: nn.Module, eps: float
) -> None:
    dense = fit(network(activation), *images, eps=eps)
    pruned = compress(dense, method="global-magnitude", amount="0.9").model
    masked = copy.deepcopy(dense)
    prune.l1_unstructured(masked[0], "weight", amount=0.5)  # such a module cannot be copied, and so not be doubled
    exported = torch.export.export(dense, (images[0],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for module, limit in ((dense, 1e-6), (pruned, 1e-6), (exported, 1e-6), (masked, 0.05)):
        assert gradient_mismatch(module, images[0]) < limit


class Cast(nn.Module):
    """A network that computes in another precision than its input has."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = copy.deepcopy(net).to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(self.dtype)).float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_no_step(images: tuple[Tensor, Tensor], dtype: torch.dtype, seed: int) -> None:
    assert gradient_mismatch(Cast(network(nn.ReLU(), seed), dtype), images[0]) < MISMATCH / 2


@pytest.mark.parametrize("after", [lambda o: 5000 * o, lambda o: o.log_softmax(1), lambda o: o.softmax(1)])
def test_outputs_of_any_scale(images: tuple[Tensor, Tensor], after: object) -> None:
    assert gradient_mismatch(nn.Sequential(network(nn.ReLU()), Activation(after)), images[0]) < 1e-4


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_straight_through_gradients_are_others(images: tuple[Tensor, Tensor], step: str, seed: int) -> None:
    untrained = network(Activation(STEPS[step]), seed)
    assert gradient_mismatch(untrained, images[0]) > 0.9
    assert gradient_mismatch(fit(untrained, *images), images[0]) > 0.9
    assert gradient_mismatch(Cast(untrained, torch.float32), images[0]) > MISMATCH  # no float64 to be had


def test_a_gradient_of_a_part_only(images: tuple[Tensor, Tensor]) -> None:
    for share in (0.0, 0.1):
        partly = Activation(lambda out, share=share: out.detach() + share * out)
        assert gradient_mismatch(nn.Sequential(network(nn.ReLU()), partly), images[0]) > 0.8


def test_where_nothing_moves_nothing_is_said(images: tuple[Tensor, Tensor]) -> None:
    assert gradient_mismatch(network(Activation(torch.sign)), images[0]) == 0.0


def test_the_module_and_few_probes_are_enough(images: tuple[Tensor, Tensor]) -> None:
    module, sizes = network(nn.ReLU()), []
    module.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    gradient_mismatch(module, images[0])
    assert set(sizes) == {16}
    assert gradient_mismatch(module, images[0][:1]) < 1e-6
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert next(module.parameters()).dtype == torch.float32
    assert all(parameter.grad is None for parameter in module.parameters())


def test_memory_that_runs_out_halves_the_probes(images: tuple[Tensor, Tensor]) -> None:
    def small(x: Tensor) -> Tensor:
        if len(x) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return x

    assert gradient_mismatch(nn.Sequential(Activation(small), network(nn.ReLU())), images[0]) < 1e-6


def test_names_of_what_computes_in_steps(images: tuple[Tensor, Tensor]) -> None:
    net = network(nn.ReLU())
    assert discrete(net) == ""
    faked = nn.Sequential(net, quantization.FakeQuantize())
    assert discrete(faked) == "FakeQuantize, MovingAverageMinMaxObserver"
    rounding = nn.Sequential(network(Activation(STEPS["8 bit"])), nn.Softmax(1))
    batch = ({0: torch.export.Dim("batch")},)
    assert discrete(torch.export.export(rounding, (images[0],), dynamic_shapes=batch).module()) == "aten.round.default"
    assert discrete(torch.export.export(net, (images[0],), dynamic_shapes=batch).module()) == ""
