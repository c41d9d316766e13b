from __future__ import annotations

import copy

import pytest
import torch
import torch.ao.quantization as quantization
from torch import Tensor, nn
from torch.autograd import grad

from pytest_prunerob.adequacy import audit


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    return net.eval().requires_grad_(False)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def found(module: nn.Module, n: int = 20) -> dict[str, str]:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return {finding.indicator: finding.level for finding in audit(module.eval(), x, classes=5, exported=False)}


# ---- optimisation at inference


class Purifies(Wrapped):
    """Moves the input towards what the network is sure of, by whichever ``way`` of taking a gradient."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.clone() if x.requires_grad else x.clone().requires_grad_(True)
            match self.way:
                case "grad":
                    (step,) = torch.autograd.grad(self.entropy(z), z, create_graph=x.requires_grad)
                case "imported":
                    (step,) = grad(self.entropy(z), z, create_graph=x.requires_grad)
                case "func":
                    step = torch.func.grad(self.entropy)(z)
                case _:
                    z = x.detach().clone().requires_grad_(True)
                    optimiser = torch.optim.SGD([z], lr=0.1)
                    self.entropy(z).backward() if self.way == "backward" else torch.autograd.backward(self.entropy(z))
                    optimiser.step()
                    return self.net(x + (z - x).detach())  # type: ignore[no-any-return]
        return self.net(x - 0.1 * step)  # type: ignore[no-any-return]

    def entropy(self, z: Tensor) -> Tensor:
        out = self.net(z)
        return -(out.softmax(1) * out.log_softmax(1)).sum()


@pytest.mark.parametrize("way", ["grad", "imported", "func", "backward", "torch-backward"])
def test_optimisation_at_inference(way: str) -> None:
    real = torch.autograd._engine_run_backward  # type: ignore[attr-defined]
    assert found(Purifies(way)) == {"optimisation-at-inference": "inconclusive"}
    assert torch.autograd._engine_run_backward is real  # type: ignore[attr-defined]


def test_gradients_that_are_only_switched_on_are_none() -> None:
    class Enabled(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(True):
                return super().forward(x)

    assert found(Enabled()) == {}


# ---- operations that hang on the data


class Loops(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        while float(out.abs().max()) < 3:
            out = 1.5 * out
        return out


class Exits(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        early = x.flatten(1)[:, :5]
        if bool((early[:, 0] > 0.5).all()):
            return early
        return super().forward(x)


@pytest.mark.parametrize("kind", [Loops, Exits])
def test_operations_that_hang_on_the_data(kind: type[nn.Module]) -> None:
    assert found(kind())["data-dependent"] == "inconclusive"


def test_operations_that_hang_on_the_shape_or_come_first_only() -> None:
    class Shaped(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "grid"):
                self.grid = torch.zeros_like(x[:1])
            if len(x) == 1:
                return super().forward(torch.cat([x, x]) + self.grid)[:1]
            return super().forward(x + self.grid)

    assert found(Shaped()) == {}


# ---- forwards that change the module


class Counts(Wrapped):
    calls = 0

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.number = 0
        self.parts = (0, "a")
        self.unset: int | None = None
        self.history: list[int] = []
        self.register_buffer("seen", torch.tensor([0.0, float("nan")]))

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "buffer":
                self.seen = self.seen + 1
            case "in place":
                self.seen.data[0] += 1
            case "weights":
                self.net[4].weight.data[0, 0] += 1e-6
            case "number":
                self.number += 1
            case "tuple":
                self.parts = (len(x), "a")
            case "first":
                self.unset = 3
                self.added = 4
                self.register_buffer("late", torch.zeros(1))
            case "list":
                self.history.append(1)
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("buffer", "seen"), ("in place", "seen"), ("weights", "net.4.weight"), ("number", "number"), ("tuple", "parts")],
)
def test_a_forward_that_changes_the_module(kind: str, name: str) -> None:
    module = Counts(kind).eval()
    before = copy.deepcopy(module.state_dict()), dict(vars(module))
    (finding,) = audit(module, torch.rand(20, 1, 8, 8), classes=5, exported=False)
    assert (finding.indicator, finding.level) == ("stateful", "error")
    assert finding.message.startswith(f"a forward changes the model's {name}: what it answers may hang on")
    assert all(
        a.equal(b) or (a != a).any() for a, b in zip(before[0].values(), module.state_dict().values(), strict=True)
    )
    assert float(module.seen[0]) == 0
    assert (module.number, module.parts) == (0, (0, "a"))


@pytest.mark.parametrize("kind", ["first", "list", "nothing"])
def test_what_a_forward_only_adds_is_no_change(kind: str) -> None:
    assert found(Counts(kind)) == {}


def test_an_observer_that_still_observes() -> None:
    observing = nn.Sequential(network(), quantization.FakeQuantize())
    *_, finding = audit(observing.eval(), torch.rand(20, 1, 8, 8), classes=5, exported=False)
    assert (finding.indicator, finding.level) == ("stateful", "error")
    assert finding.message.startswith("a forward changes the model's 1.scale")
    observing(torch.rand(20, 1, 8, 8))
    observing.apply(quantization.disable_observer)
    assert found(observing) == {}


def test_a_model_that_learns_while_it_infers() -> None:
    """Test-time adaptation: statistics of the batch, and of the ones before it."""

    class Adapts(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            self.net[1].running_mean.lerp_(self.net[0](x).mean((0, 2, 3)), 0.1)
            return super().forward(x)

    assert found(Adapts())["stateful"] == "error"
