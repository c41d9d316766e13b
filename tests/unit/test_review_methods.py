"""The methods that the review names: what decides which units go, beside what holds for every method."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pytest_prunerob.compression import Masks, Trainer, compress
from pytest_prunerob.compression.activation_pruning import dropped
from pytest_prunerob.compression.activations import LargestReLU, with_largest, without_largest
from pytest_prunerob.compression.dynamic_surgery import Masked, Surgery, dense
from pytest_prunerob.compression.method import AfterStep, Penalty
from pytest_prunerob.compression.progressive import cubic
from pytest_prunerob.compression.sparse_structure_selection import RATES, Selection, soft_threshold
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError
from tests.conformance.quick import residual


class Scripted:
    """A training that only asks for the penalty and takes one plain gradient step of it, of size ``rate``."""

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate

    def fine_tune(
        self, model: nn.Module, masks: Masks, *, penalty: Penalty | None = None, after_step: AfterStep | None = None
    ) -> None:
        """Nothing."""

    def train(
        self,
        model: nn.Module,
        masks: Masks,
        *,
        epochs: Fraction = Fraction(1),
        penalty: Penalty | None = None,
        after_step: AfterStep | None = None,
        adversarial: bool = False,
    ) -> None:
        if penalty is not None:
            parameters = list(model.parameters())
            slopes = torch.autograd.grad(penalty(model), parameters, allow_unused=True)
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    if slope is not None:
                        parameter -= self.rate * slope
        if after_step is not None:
            for step in range(4):
                after_step(model, (step + 1) / 4)

    def fresh(self, model: nn.Module) -> None:
        raise NotImplementedError

    def early(self, share: Fraction) -> dict[str, Tensor]:
        raise NotImplementedError


TRAINER: Trainer = Scripted()


def test_slimming_takes_the_channels_whose_scales_the_penalty_leaves_smallest() -> None:
    model = residual()
    scales = {name: part.weight for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)}
    with torch.no_grad():
        for scale in scales.values():
            scale.copy_(torch.linspace(0.3, 1.0, len(scale)))
        scales["bn"][5] = -0.05
        scales["blocks.0.bn1"][:] = torch.linspace(-2, -1, 8)
    found = compress(model, method="network-slimming", amount="0.1", trainer=Scripted(1000.0))
    # λ = 1e-4 and a step of 1000: every scale is 0.1 nearer to zero, and -0.05 and 0.3 alike come before all others.
    assert found.achieved == Fraction(9, 88)
    assert not found.masks.kept["conv.weight"][5].any()
    assert torch.equal(found.masks.kept["bn.bias"], torch.tensor([False, True, True, True, True, False, True, True]))
    assert found.layers["blocks.0.conv1"] == (0, 8)  # large and negative
    kept = found.model.get_submodule("blocks.0.bn1").weight
    torch.testing.assert_close(kept, scales["blocks.0.bn1"] + 0.1)


def test_surgery_splices_a_weight_that_regrows_back() -> None:
    layer = nn.Linear(10, 1, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.arange(1.0, 11.0)
    parametrize.register_parametrization(layer, "weight", Masked(layer.weight))
    surgery = Surgery({"weight": layer}, Fraction(1, 2), torch.Generator().manual_seed(0))
    surgery(layer, 0.1)  # t = 5: below 4.5 pruned, above 5.5 kept; 5 is in between and stays as it was
    assert torch.equal(layer.weight[0] == 0, torch.tensor([True] * 4 + [False] * 6))
    layer(torch.ones(1, 10)).sum().backward()
    original = layer.get_parameter("parametrizations.weight.original")
    assert original.grad is not None
    assert bool((original.grad == 1).all())  # pruned weights keep their gradient
    with torch.no_grad():
        dense(layer)[0, 0], dense(layer)[0, 9] = 9.0, 0.5
    surgery(layer, 0.5)
    assert float(layer.weight.detach()[0, 0]) == 9.0
    assert float(layer.weight.detach()[0, 9]) == 0.0
    surgery(layer, 0.9)  # past the end: exactly half of them
    assert int((layer.weight == 0).sum()) == 5
    before = layer.weight.detach().clone()
    with torch.no_grad():
        dense(layer)[0, 1] = 100.0
    surgery(layer, 1.0)
    assert torch.equal(layer.weight.detach(), before)  # masks stay once they are final


def test_the_cubic_schedule_prunes_fast_at_first_and_reaches_its_target() -> None:
    shares = [cubic(Fraction("0.8"), done) for done in (0.0, 0.1875, 0.375, 0.75, 1.0)]
    assert shares == [0, Fraction("0.8") * (1 - Fraction(27, 64)), Fraction("0.7"), Fraction("0.8"), Fraction("0.8")]


def test_a_step_without_finite_gradients_leaves_the_factors() -> None:
    """Mixed precision skips such a step; its gradients must not decide what goes."""
    factor = nn.Parameter(torch.ones(3))
    selection = Selection({"filters": factor}, count=2, spare=True)
    factor.grad = torch.tensor([1.0, 0.0, 0.0])
    selection(nn.Identity(), 0.1)
    before = factor.detach().clone()
    factor.grad = torch.tensor([torch.inf, torch.nan, 0.0])
    selection(nn.Identity(), 0.1)
    assert torch.equal(factor.detach(), before)
    assert bool(selection.momentum["filters"].isfinite().all())


def test_soft_thresholds() -> None:
    values = torch.tensor([-1.0, -0.2, 0.0, 0.1, 0.5])
    torch.testing.assert_close(soft_threshold(values, 0.2), torch.tensor([-0.8, 0.0, 0.0, 0.0, 0.3]))


def test_selection_steps_as_accelerated_proximal_gradients_and_stops_at_the_count() -> None:
    factor = nn.Parameter(torch.ones(3))
    selection = Selection({"filters": factor}, count=1, spare=True)
    factor.grad = torch.tensor([0.0, 1.0, 2.0])
    selection(nn.Identity(), 0.1)
    # By hand with rate 0.1, γ = 0.01, momentum 0.9: z = 1 - 0.1·g - 0.001, then z + 0.9·(z - 1).
    torch.testing.assert_close(factor.detach(), torch.tensor([0.9981, 0.8081, 0.6181]))
    factor.data[:] = 5.0  # what the optimizer makes of it does not count
    factor.grad = torch.tensor([100.0, 100.0, 100.0])
    selection(nn.Identity(), 0.1)
    assert factor.detach().tolist() == pytest.approx([0.9981, 0.8081, 0.0])
    assert RATES[0][1] == 0.1


@pytest.mark.parametrize(("method", "unit"), [("sss-filters", "filters"), ("sss-layers", "layers")])
def test_factors_are_folded_into_the_network(method: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = residual()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def halve(selection: Selection, _: nn.Module, __: float) -> None:
        with torch.no_grad():
            for number, factor in enumerate(selection.factors.values()):
                factor[:] = 0.25 if number == 2 else 0.5

    monkeypatch.setattr(Selection, "__call__", halve)
    found = compress(model, method=method, amount="0.05", trainer=TRAINER)
    state = found.model.state_dict()
    assert state.keys() == start.keys()
    assert found.unit == unit
    if unit == "layers":
        assert found.layers["blocks.2"] == (1, 1)
        assert torch.equal(state["blocks.1.bn2.weight"], 0.5 * start["blocks.1.bn2.weight"])
        assert torch.equal(state["blocks.1.bn1.weight"], start["blocks.1.bn1.weight"])
    else:
        assert found.layers["blocks.0.conv2"] == (5, 8)  # the third convolution
        assert torch.equal(state["bn.weight"], 0.5 * start["bn.weight"])
        assert torch.equal(state["conv.weight"], start["conv.weight"])


@pytest.mark.parametrize("amount", ["0.5", "0.85", "0.99"])
def test_activations_keep_exactly_the_largest_of_each_sample(amount: str) -> None:
    x = torch.randn(5, 3, 4, 2, generator=torch.Generator().manual_seed(0)) + 3
    x[0, 0] = 2.5  # ties
    kept = {"0.5": 12, "0.85": 3, "0.99": 1}[amount]
    output = LargestReLU(amount)(x)
    for sample, given in zip(output, x, strict=True):
        largest = given.flatten().sort(descending=True).values[:kept]
        assert torch.equal(sample[sample != 0].sort(descending=True).values, largest)
    inputs = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(LargestReLU(amount)(inputs).sum(), inputs)
    assert torch.equal(slope != 0, output != 0)
    assert torch.equal(LargestReLU(amount)(x[1:2]), output[1:2])  # a sample does not hang on its batch


def test_dropped_counts_what_a_forward_drops() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3), nn.ReLU()).eval()
    sparse = with_largest(net, "0.7")
    assert dropped(sparse, torch.rand(6, 1, 2, 2)) == {"1": (12, 16), "4": (2, 3)}
    sparse[1].amount = "0.2"  # type: ignore[assignment]
    assert dropped(sparse, torch.rand(6, 1, 2, 2))["1"] == (4, 16)
    plain = without_largest(sparse)
    assert [type(part) for part in plain] == [type(part) for part in net]
    x = torch.rand(2, 1, 2, 2)
    assert torch.equal(plain(x), net(x))


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("network-slimming", "Sequential has none; allowed are networks with batch normalisation, such as resnet18"),
        ("sss-layers", "Sequential has none; allowed are residual networks, such as resnet18"),
        ("activation-pruning", "Sequential has none; allowed are networks whose activations are nn.ReLU modules"),
    ],
)
def test_networks_that_a_method_does_not_fit(method: str, reason: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(128, 4)).eval()
    data = Dataset("two", torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), classes=4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CompressionError, match=reason) as met:
        compress(model, method=method, amount="0.5", data=data, trainer=TRAINER)
    assert "\n" not in str(met.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
