from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.errors import ModelError
from pytest_prunerob.speed import WARM_UP, batch, flops, times


@pytest.mark.parametrize(
    ("layer", "inputs", "wanted"),
    [
        (nn.Conv2d(3, 8, 3), (3, 8, 8), 2 * 8 * 27 * 36),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), (4, 4, 4), 2 * 4 * 18 * 16),
        (nn.Conv2d(3, 6, 3, stride=2, groups=3), (3, 5, 5), 2 * 6 * 9 * 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2), 2 * 12 * 5),
    ],
)
def test_a_multiplication_and_its_addition_are_two_operations(
    layer: nn.Module, inputs: tuple[int, int, int], wanted: int
) -> None:
    assert flops(nn.Sequential(layer, nn.ReLU()), torch.zeros(1, *inputs)) == wanted
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    assert flops(layer, torch.zeros(1, *inputs)) == wanted


def test_nothing_counted_is_no_number() -> None:
    with pytest.raises(ModelError, match=r"flops of ReLU: it has no operations that torch\.utils\.flop_counter counts"):
        flops(nn.ReLU(), torch.zeros(1, 3))


@dataclass
class Clock:
    """A clock that only forwards move on."""

    now: float = 0.0
    called: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """Its n-th forward takes the n-th of ``seconds``, the last of them from then on."""

    def __init__(self, name: str, clock: Clock, *seconds: float, during: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.name, self.clock, self.seconds, self.during = name, clock, list(seconds), during

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.during()
        self.clock.called.append(self.name)
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return x


def test_models_take_turns_and_the_warm_up_is_not_counted() -> None:
    clock = Clock()
    one, two = Slow("a", clock, *[9.0] * WARM_UP, 1.0, 2.0, 3.0), Slow("b", clock, 0.5)
    assert times([one, two], torch.zeros(2, 1), runs=3, clock=clock) == [(1.0, 2.0, 3.0), (0.5, 0.5, 0.5)]
    assert "".join(clock.called) == "abba" * ((WARM_UP + 3) // 2)


def test_threads_and_random_numbers_are_what_they_were() -> None:
    threads, clock = torch.get_num_threads(), Clock()
    seen: list[int] = []

    def meddle() -> None:
        seen.append(torch.get_num_threads())
        torch.set_num_threads(threads + 1)
        torch.rand(1)

    state = torch.get_rng_state()
    times([Slow("a", clock, 1.0, during=meddle)], torch.zeros(1, 1), runs=2, clock=clock)
    assert seen == [threads] * (WARM_UP + 2)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_clock_that_stands_still_is_an_error() -> None:
    clock = Clock()
    with pytest.raises(ModelError, match="a forward of 3 samples took no time by the clock: time more samples"):
        times([Slow("a", clock, 0.0)], torch.zeros(3, 1), runs=2, clock=clock)


def test_a_batch_repeats_samples_where_there_are_fewer() -> None:
    assert batch(torch.arange(3), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert batch(torch.arange(9), 2).tolist() == [0, 1]
