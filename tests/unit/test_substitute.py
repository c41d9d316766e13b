from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_prunerob import substitute
from pytest_prunerob.attacks import ATTACKS, Load, Settings
from pytest_prunerob.attacks.substitute import network, train_substitute
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import PlanError
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.oracle import distances

SUBSTITUTE = ATTACKS["substitute"]


class Labels(nn.Module):
    """A subject that no gradient may be asked of, and that counts its queries; ``noise`` leaves only its labels."""

    def __init__(self, inputs: tuple[int, ...], classes: int, noise: bool = False) -> None:
        super().__init__()
        weight = torch.randn(classes, *inputs, generator=torch.Generator().manual_seed(0)).flatten(1)
        self.register_buffer("weight", weight)
        self.noise = noise
        self.queries = 0

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        assert not torch.is_grad_enabled()
        self.queries += len(x)
        logits = (x.flatten(1) - 0.5) @ self.weight.T  # type: ignore[operator]
        if not self.noise:
            return logits
        winner = nn.functional.one_hot(logits.argmax(1), logits.shape[1])
        return 9.0 * winner + torch.rand(logits.shape, generator=torch.Generator().manual_seed(self.queries))


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 19), st.integers(1, 19)),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([("linf", "0.1"), ("l2", "0.7")]),
    st.sampled_from([1, 3]),
)
def test_it_asks_for_labels_and_nothing_else(
    inputs: tuple[int, int, int], classes: int, n: int, rounds: int, threat: tuple[str, str], steps: int
) -> None:
    norm, eps = threat
    x = torch.rand(n, *inputs, generator=torch.Generator().manual_seed(n))
    subject = Labels(inputs, classes)
    with torch.no_grad():
        y = subject(x).argmax(1)
    plan = substitute(norm=norm, eps=eps, rounds=rounds, epochs=1, steps=steps, step_size="0.05" if steps > 1 else 0)
    made = Settings(plan.stages[0], norm, float(plan.threat.radius), 3, classes)
    subject.queries = 0
    z = SUBSTITUTE.perturb(subject, x, y, made)
    assert subject.queries == n * 2**rounds == n * SUBSTITUTE.passes(plan.stages[0], Load(n, classes, 1)).forward
    assert z.shape == x.shape
    assert (distances(x, z, norm) <= float(eps)).all()
    assert z.amin() >= 0
    assert z.amax() <= 1
    assert torch.equal(SUBSTITUTE.perturb(Labels(inputs, classes, noise=True), x, y, made), z)


def test_its_training_is_no_pass_of_the_subject() -> None:
    inputs, classes = (1, 6, 6), 4
    subject = Labels(inputs, classes)
    x = torch.rand(10, *inputs, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = subject(x).argmax(1)
    plan = substitute(norm="linf", eps="0.3", rounds=2)
    result = Engine("cpu", 64, 0).run("decide", subject, plan, 0, x, y, classes)
    assert result.errors == {}
    assert result.cost.backward == 0
    assert result.cost.forward <= stage_bound(plan.stages[0], "linf", "decide", Load(10, classes, 36)).forward
    # Clean logits, four labels of each sample, and one look at what it returns and at what has to be projected.
    assert 6 * 10 <= result.cost.forward <= 7 * 10
    assert len(result.broken) >= 3


def test_the_substitute_learns_the_labels_and_follows_from_the_seed() -> None:
    inputs, classes = (1, 6, 6), 3
    subject = Labels(inputs, classes)
    x = torch.rand(60, *inputs, generator=torch.Generator().manual_seed(1))
    plan = substitute(norm="linf", eps="0.1", rounds=2)

    def trained(seed: int) -> Tensor:
        torch.manual_seed(seed)
        net = train_substitute(subject, x, Settings(plan.stages[0], "linf", 0.1, seed, classes))
        logits: Tensor = net(x)
        return logits

    with torch.random.fork_rng(), torch.no_grad():
        y = subject(x).argmax(1)
        torch.set_grad_enabled(True)
        first, again, other = trained(0), trained(0), trained(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert int((first.argmax(1) == y).sum()) > 50  # a guess of the most frequent class has half as many
    assert int((y == y.mode().values).sum()) < 30


@pytest.mark.parametrize("inputs", [(1, 1, 1), (3, 32, 32), (2, 5, 70)])
def test_a_substitute_fits_any_image(inputs: tuple[int, int, int]) -> None:
    net = network(inputs, 7)
    assert net(torch.zeros(2, *inputs)).shape == (2, 7)
    assert sum(weight.numel() for weight in net.parameters()) < 300_000


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"norm": "l1"}, "unknown norm 'l1': allowed are l2, linf; did you mean 'l2'?"),
        ({"rounds": 0}, "rounds=0 is not a whole number of at least 1"),
        ({"rounds": 13}, "rounds=13 would ask for 2^13 labels of each sample: 12 are the most"),
        ({"steps": 4}, "steps=4 needs a step_size, a length in units of the input"),
        ({"augmentation": 0}, "augmentation=0 is not positive"),
        ({"step_size": "-1"}, "step_size='-1' is below 0"),
    ],
)
def test_bad_input_is_one_sentence(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        substitute(**{"norm": "linf", "eps": 1, **given})  # type: ignore[arg-type]
    assert str(caught.value) == sentence
