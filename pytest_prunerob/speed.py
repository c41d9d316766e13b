"""What a forward costs: its operations, counted, and its time, taken."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pytest_prunerob.errors import ModelError
from pytest_prunerob.randomness import kept

WARM_UP = 5  # forwards of each network before the clock runs: allocations, caches, choice of kernels (ours)


def flops(model: nn.Module, x: Tensor) -> int:
    """The operations of one forward of the sample ``x: (1, C, H, W)`` by torch's counter.

    A multiplication with its addition counts as two. Convolutions, matrix products and attention are counted; biases,
    normalisation, activations and pooling are not. Zeros count like other weights: to save operations they must be
    physically removed. ``model`` is in eval mode.

    Raises:
        ModelError: if nothing in it is counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports a part of torch's compiler

    with kept(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    found = int(counter.get_total_flops())
    if found == 0:
        raise ModelError(f"flops of {type(model).__name__}: it has no operations that torch.utils.flop_counter counts")
    return found


def times(
    models: Sequence[nn.Module], x: Tensor, *, runs: int, clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, ...]]:
    """For each of ``models`` the seconds of ``runs`` forwards of the batch ``x: (N, C, H, W)``, on its device.

    The models take turns, and every other round goes backwards, so that a drift of the machine meets all alike. They
    are in eval mode. The number of torch's CPU threads is the same for all forwards and what it was afterwards.

    Raises:
        ModelError: where the clock did not advance during a forward.
    """
    threads = torch.get_num_threads()
    found: list[list[float]] = [[] for _ in models]
    with kept(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network's warning must not end the timing under -W error
        try:
            for number in range(WARM_UP + runs):
                order = range(len(models)) if number % 2 == 0 else range(len(models) - 1, -1, -1)
                for place in order:
                    if torch.get_num_threads() != threads:  # a network may have set it
                        torch.set_num_threads(threads)
                    seconds = _timed(models[place], x, clock)
                    if number >= WARM_UP:
                        found[place].append(seconds)
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
    if any(seconds <= 0 for one in found for seconds in one):
        raise ModelError(f"a forward of {len(x)} samples took no time by the clock: time more samples")
    return [tuple(one) for one in found]


def batch(x: Tensor, size: int) -> Tensor:
    """``size`` samples of ``x: (N, ...)``, from the first on and again from the first where there are fewer."""
    return x[torch.arange(size) % len(x)]


def _timed(model: nn.Module, x: Tensor, clock: Callable[[], float]) -> float:
    _wait(x)
    start = clock()
    model(x)
    _wait(x)
    return clock() - start


def _wait(x: Tensor) -> None:
    """Until the device of ``x`` has done what it was given: a CUDA call returns before."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
