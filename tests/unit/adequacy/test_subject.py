from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_prunerob.adequacy import INDICATORS, PROBES, Finding, audit, off_declared
from pytest_prunerob.errors import DatasetError
from pytest_prunerob.fingerprint import fingerprint
from pytest_prunerob.subjects import Model


class After(nn.Module):
    """A network with something done to its output, or to its input before."""

    def __init__(self, net: nn.Module, after: object = None, before: object = None) -> None:
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x: Tensor) -> object:
        out = self.net(x if self.before is None else self.before(x))  # type: ignore[operator]
        return out if self.after is None else self.after(out)  # type: ignore[operator]


def cnn(classes: int = 10, *, channels: int = 1, size: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(8 * (size // 2) ** 2, classes),
    )


def data(n: int = 64, *, channels: int = 1, size: int = 8, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Blobs: each class has a bright column, so that a network can learn them."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % classes
    x = 0.4 * torch.rand(n, channels, size, size, generator=generator)
    for i in range(n):
        x[i, :, :, int(y[i]) % size] += 0.3
        x[i, :, int(y[i]) // size, :] += 0.3
    return x, y


def trained(steps: int = 60, classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    net = cnn(classes)
    x, y = data(128, classes=classes)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return trained()


def found(module: nn.Module, n: int = 64, **settings: object) -> dict[str, str]:
    options: dict[str, object] = {"classes": 10, "exported": False, **settings}
    return {finding.indicator: finding.level for finding in audit(module, data(n)[0], **options)}  # type: ignore[arg-type]


# ---- healthy models


@pytest.mark.parametrize("n", [1, 2, 7, 64, 100])
def test_a_trained_network_is_healthy(net: nn.Module, n: int) -> None:
    assert found(net, n) == {}


def test_a_trained_network_of_two_classes_is_healthy() -> None:
    x, _ = data(classes=2)
    assert audit(trained(classes=2), x, classes=2, exported=False) == ()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 10), (3, 16, 4), (2, 4, 7)])
def test_random_networks_are_healthy(seed: int, channels: int, size: int, classes: int) -> None:
    torch.manual_seed(seed)
    nets: list[nn.Module] = [
        cnn(classes, channels=channels, size=size),
        nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 32), nn.ReLU(), nn.Linear(32, classes)),
        nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
        ),
        nn.Sequential(
            nn.Flatten(), nn.LayerNorm(channels * size**2), nn.GELU(), nn.Linear(channels * size**2, classes)
        ),
    ]
    x, _ = data(32, channels=channels, size=size, classes=classes)
    for module in nets:
        assert audit(module.eval(), x, classes=classes, exported=False) == ()


@pytest.mark.parametrize(
    "after",
    [
        lambda out: 5000 * out,
        lambda out: out / 1000,
        lambda out: F.log_softmax(out, 1),
        lambda out: F.relu(out),
        lambda out: out.double(),
    ],
    ids=["confident", "faint", "log-softmax", "relu", "double"],
)
def test_unusual_but_honest_logits_are_healthy(net: nn.Module, after: object) -> None:
    assert found(After(net, after).eval()) == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_healthy(dtype: torch.dtype) -> None:
    module = After(trained(10).to(dtype), before=lambda x: x.to(dtype))
    assert found(module.eval()) == {}


def test_an_exported_program_is_healthy(net: nn.Module) -> None:
    x, _ = data(4)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    module = program.module()
    assert found(module, exported=True) == {}
    assert found(After(module), exported=True) == {"train-mode": "error"}
    assert found(Model(module, mean=0.0).eval(), exported=True) == {}


# ---- each indicator


def test_train_mode_names_the_modules() -> None:
    net = trained(1)
    net[4].train()
    x, _ = data()
    findings = audit(net, x, classes=10, exported=False)
    message = (
        'in train mode: 4; call .eval() on the model where it is made, or claim under autoattack("rand", ...) if its '
        "dropout is to stay on"
    )
    assert findings[0] == Finding("train-mode", "error", message, randomness=True)
    assert found(net) == {"train-mode": "error", "repeatable": "error"}
    assert all(finding.randomness for finding in findings)


def test_what_trains_beside_dropout_is_no_matter_of_votes(net: nn.Module) -> None:
    net.train()
    x, _ = data()
    findings = {finding.indicator: finding for finding in audit(net, x, classes=10, exported=False)}
    assert not findings["train-mode"].randomness
    assert not findings["batch-coupling"].randomness


def test_noise_hides_no_coupling(net: nn.Module) -> None:
    noisy = After(net, lambda out: out + 0.1 * out.mean(0) + torch.randn_like(out))
    assert found(noisy.eval()) == {"batch-coupling": "error", "repeatable": "error"}


def test_a_branch_that_is_drawn_does_not_hang_on_the_data(net: nn.Module) -> None:
    drawn = After(net, lambda out: out + 1 if random.random() < 0.5 else out.relu())
    assert found(drawn.eval()) == {"repeatable": "error"}


def test_draws_that_follow_no_seed_are_no_matter_of_votes(net: nn.Module) -> None:
    own = random.Random(0)
    x, _ = data()
    (finding,) = audit(After(net, lambda out: out + own.random()).eval(), x, classes=10, exported=False)
    assert (finding.indicator, finding.level, finding.randomness) == ("repeatable", "error", False)
    assert "no seed repeats them" in finding.message


def test_batch_statistics_couple_the_batch() -> None:
    net = trained(10)
    net[1].train()
    assert found(net) == {"train-mode": "error", "batch-coupling": "error"}
    unflagged = nn.Sequential(*net)
    unflagged[1] = nn.BatchNorm2d(8, track_running_stats=False)
    assert found(unflagged.eval()) == {"batch-coupling": "error"}


@pytest.mark.parametrize(
    "mix",
    [
        lambda out: out + 0.01 * out.mean(0),
        lambda out: out + 0.1 * out[:1],
        lambda out: out * (1 + 0.1 * torch.arange(len(out)))[:, None],
        lambda out: out * (1 + 0.1 * (len(out) == 1)),
        lambda out: out - out.detach().max(),
    ],
    ids=["mean", "first", "place", "alone", "largest"],
)
def test_any_mixing_of_samples_is_coupling(net: nn.Module, mix: object) -> None:
    assert found(After(net, mix).eval()) == {"batch-coupling": "error"}


def test_a_model_that_cannot_take_one_sample(net: nn.Module) -> None:
    def grouped(out: Tensor) -> Tensor:
        return out.view(2, -1, 10).flatten(0, 1)

    x, _ = data()
    (finding,) = audit(After(net, grouped).eval(), x, classes=10, exported=False)
    assert (finding.indicator, finding.level) == ("batch-coupling", "error")
    assert finding.message.startswith("the model fails on a single sample: RuntimeError: shape '[2, -1, 10]'")


def test_numbers_that_are_none(net: nn.Module) -> None:
    def first_class(out: Tensor) -> Tensor:
        return out.index_fill(1, torch.tensor([0]), float("nan"))

    assert found(After(net, first_class).eval()) == {"non-finite": "error"}
    assert found(After(net, lambda out: out / 0.0).eval())["non-finite"] == "error"
    x, _ = data()
    (finding,) = audit(After(net, first_class).eval(), x, classes=10, exported=False)
    assert finding.message == (
        "NaN or infinite logits on 64 of 64 clean probes: check the weights and the input scaling"
    )


def test_another_number_of_classes(net: nn.Module) -> None:
    x, _ = data()
    assert audit(net, x, classes=100, exported=False) == (
        Finding(
            "class-count",
            "error",
            "the model has 10 logits, the dataset 100 classes: give the model that belongs to the dataset",
        ),
    )


def test_a_broken_graph(net: nn.Module) -> None:
    biased = After(net, lambda out: out.detach() + torch.zeros(10, requires_grad=True))
    for module in (After(net, lambda out: out.detach()), After(net, before=lambda x: x.detach()), biased):
        assert found(module.eval()) == {"gradient": "error"}
    assert found(After(net, torch.no_grad()(lambda out: 1 * out)).eval()) == {"gradient": "error"}
    assert found(After(net, before=lambda x: torch.from_numpy(x.numpy())).eval()) == {"gradient": "error"}
    assert found(After(net, before=lambda x: x + 0 * (x - x).sqrt()).eval()) == {"gradient": "inconclusive"}


@pytest.mark.parametrize("amount", [1e-3, 0.1])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "noise",
    [
        lambda out: torch.randn_like(out),
        lambda out: torch.randn(1),
        lambda out: random.random(),
        lambda out: np.random.rand(),  # noqa: NPY002 (what a model may do)
        lambda out: float(random.random() < 0.5),
        lambda out: F.dropout(torch.ones_like(out), 0.01, training=True),
    ],
    ids=["torch", "torch-scalar", "python", "numpy", "coin", "dropout"],
)
def test_noise_is_not_repeatable(net: nn.Module, noise: Callable[[Tensor], object], seed: int, amount: float) -> None:
    random.seed(seed)  # whatever was drawn before, the audit draws the same
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (as above)
    assert found(After(net, lambda out: out + amount * noise(out)).eval()) == {"repeatable": "error"}


def test_an_output_that_is_now_and_then_not_finite(net: nn.Module) -> None:
    def broken(out: Tensor) -> Tensor:
        return out + (float("nan") if random.random() < 0.7 else 0.0)

    assert set(found(After(net, broken).eval())) <= {"repeatable", "non-finite"}


@pytest.mark.parametrize(
    "after",
    [
        lambda out: out.softmax(1),
        lambda out: out.sigmoid(),
        lambda out: 100 * out.softmax(1),
        lambda out: out.softmax(1).half(),
        lambda out: out.half().softmax(1),
        lambda out: (100 * out.softmax(1)).bfloat16(),
        lambda out: (30 * out).softmax(1),
        lambda out: out.softmax(1).clamp(1e-7, 1 - 1e-7),
    ],
    ids=["softmax", "sigmoid", "scaled", "fp16-rounded", "fp16", "scaled-bf16", "saturated", "clamped"],
)
def test_probabilities_are_noticed(net: nn.Module, after: object) -> None:
    assert found(After(net, after).eval()) == {"probabilities": "inconclusive"}


@pytest.mark.parametrize(
    ("correct", "declared", "fires"),
    [
        # P(X <= 47) = 2.1e-6, P(X <= 46) = 4.4e-7 for X ~ Binomial(64, 0.93)
        (47, (93, 93), False),
        (46, (93, 93), True),
        (0, (93, 93), True),
        (64, (93, 93), False),
        # P(X = 64) = 1.7e-6 for 0.8125 and 6.7e-7 for 0.80: so many are as impossible
        (64, (80, 80), True),
        (64, (80, 82), False),
        # only the nearest end of the printed digits counts
        (46, (90, 96), False),
        (64, (100, 100), False),
        (63, (100, 100), True),
        (0, (0, 0), False),
        (1, (0, 0), True),
    ],
)
def test_the_bounds_on_a_declared_accuracy(correct: int, declared: tuple[int, int], fires: bool) -> None:
    low, high = (Fraction(end, 100) for end in declared)
    assert (off_declared(correct, 64, (low, high)) is not None) == fires


def test_an_accuracy_off_the_declared_one_says_why() -> None:
    low = off_declared(2715, 10000, (Fraction("0.9425"), Fraction("0.9435")))
    assert low == Finding(
        "clean-accuracy",
        "error",
        "2715 of 10000 clean samples are classified correctly (27.2%), 94.3% accuracy was declared: check the "
        "normalisation (missing, double, 0-255), the class order and the weights",
    )
    high = off_declared(9900, 10000, (Fraction("0.9425"), Fraction("0.9435")))
    assert high is not None
    assert high.message.endswith("it is about another model or other samples")


def test_an_exception_is_a_finding(net: nn.Module) -> None:
    x, _ = data()
    for module, message in (
        (nn.Conv2d(1, 1, 9), "RuntimeError: Calculated padded input size per channel: (8 x 8)"),
        (
            After(net, lambda out: {"out": out}),
            "the model returns a dict with keys 'out': say Model(..., logits='out')",
        ),
    ):
        (finding,) = audit(module.eval(), x, classes=10, exported=False)
        assert (finding.indicator, finding.level) == ("forward", "error")
        assert finding.message.startswith(f"the model raises on clean inputs: {message}")


def test_out_of_memory_halves_the_probes(net: nn.Module) -> None:
    seen: list[int] = []

    def small(x: Tensor) -> Tensor:
        seen.append(len(x))
        if len(x) > 20:
            raise torch.OutOfMemoryError("out of memory")
        return x

    assert found(After(net, before=small).eval()) == {}
    assert seen[:3] == [64, 32, 16]


# ---- what the audit leaves as it was


def test_nothing_is_touched() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = cnn()
            self.calls = 0
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.seen = self.seen + len(x)
            random.random()
            np.random.rand()  # noqa: NPY002 (the global state is under test)
            return self.net(x)  # type: ignore[no-any-return]

    module = Stateful()
    seen = module.seen
    x, _ = data()
    copy = x.clone()
    before = fingerprint(module)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002 (as above)
    audit(module, x, classes=10, exported=False)
    assert fingerprint(module) == before
    assert module.seen is seen
    assert module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002 (as above)


def test_an_input_changed_in_place_stays(net: nn.Module) -> None:
    x, _ = data()
    copy = x.clone()
    (finding,) = audit(After(net, before=lambda v: v.mul_(0.5)).eval(), x, classes=10, exported=False)
    assert finding.message.startswith("the model raises when the input asks for a gradient: RuntimeError: a leaf")
    assert torch.equal(x, copy)


def test_at_most_64_probes_are_used(net: nn.Module) -> None:
    sizes: set[int] = set()

    def counted(x: Tensor) -> Tensor:
        sizes.add(len(x))
        return x

    assert found(After(net, before=counted).eval(), 100) == {}
    assert sizes == {1, 4, 64}
    assert PROBES == 64
    assert len(INDICATORS) == 9


def test_no_probes(net: nn.Module) -> None:
    with pytest.raises(DatasetError, match="0 probe inputs: give at least one"):
        audit(net, data()[0][:0], classes=10, exported=False)
