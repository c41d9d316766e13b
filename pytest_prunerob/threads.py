"""How many CPU threads a batch is worth.

On a tiny batch, threads wait for each other longer than they work: on a busy machine two are many times slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# A forward of less work than this runs on one thread (ours): below it a second thread gains nothing on an idle machine
# and costs up to forty times the time on a busy one. About 25 digits through the small network.
SINGLE_THREAD_FLOPS = 3e7
# A training step of a network this small runs on one thread whatever the machine has: rounding depends on the number of
# threads, and a trained model should not depend on the number of cores (ours).
SMALL_TRAINING_FLOPS = 1e9

_flops: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], float]] = WeakKeyDictionary()


def threads_per_worker() -> int:
    """CPU threads for this process: those of torch, divided among the workers of pytest-xdist."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return max(1, torch.get_num_threads() // workers)


@contextmanager
def suited_to(module: nn.Module, x: Tensor, limit: float = SINGLE_THREAD_FLOPS) -> Iterator[Callable[[int], None]]:
    """Within this context the number of torch's CPU threads can be chosen for a batch of n inputs like ``x``.

    Yields the function that does it; ``x`` is (N, C, H, W). A forward of less than ``limit`` operations gets one
    thread. The number is put back at the end.
    """
    available = torch.get_num_threads()
    choice = available > 1 and x.device.type == "cpu"
    flops = _flops_per_sample(module, x) if choice else 0.0

    def choose(n: int) -> None:
        if choice:
            wanted = 1 if flops * n < limit else available
            if torch.get_num_threads() != wanted:
                torch.set_num_threads(wanted)

    try:
        yield choose
    finally:
        torch.set_num_threads(available)


def _flops_per_sample(module: nn.Module, x: Tensor) -> float:
    """Twice the multiplications of the convolutions and linear layers; +inf where they cannot be seen.

    Counted by hand: torch's own counter imports its compiler, which takes seconds.
    """
    if any(part.training for part in module.modules()):
        return float("inf")  # a forward might change it, and what it costs is not worth that
    shape = tuple(x.shape[1:])
    known = _flops.setdefault(module, {})
    if shape not in known:
        counts: list[int] = []

        def count(layer: nn.Module, _: object, output: Tensor) -> None:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            channels = output.shape[1] if output.ndim > 2 else output.shape[-1]
            counts.append(2 * weight.numel() * (output[0].numel() // channels))

        layers = [part for part in module.modules() if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        try:
            with torch.no_grad():
                module(x[:1])
        finally:
            for hook in hooks:
                hook.remove()
        known[shape] = float(sum(counts)) or float("inf")
    return known[shape]
