"""Subjects that do more than one pass of a fixed network: that optimise, decide, or remember while they infer.

Gradient attacks follow one pass; defences that adapt at test time have looked robust for that alone (Croce et al. 2022,
"Evaluating the adversarial robustness of adaptive test-time defenses", arXiv:2202.13711).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_prunerob.adequacy.probe import Finding, Probe, forward
from pytest_prunerob.randomness import seeded

__all__ = ["data_dependent", "optimises", "stateful"]

# Probes whose forwards are looked into, all and each of them alone. Ours.
COMPARED = 4


def optimises(probe: Probe) -> Finding | None:
    """Whether a forward takes gradients itself, by whichever of torch's ways."""
    calls: list[None] = []
    with _counted_backwards(calls):
        forward(probe.module, probe.x[:COMPARED])
    if not calls:
        return None
    return Finding(
        "optimisation-at-inference",
        "inconclusive",
        f"one forward takes gradients {len(calls)} times: attacks do not see through such an optimisation; evaluate "
        "the network without it, or with an attack made for it",
    )


@contextmanager
def _counted_backwards(calls: list[None]) -> Iterator[None]:
    # torch.autograd.grad, torch.autograd.backward, Tensor.backward and torch.func all end here, however imported.
    real: Callable[..., Any] = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return real(*args, **kwargs)

    torch.autograd._engine_run_backward = counted  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.autograd._engine_run_backward = real  # type: ignore[attr-defined]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the operations of a forward in their order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def data_dependent(probe: Probe) -> Finding | None:
    """Whether inputs of one shape go through different operations: early exits, loops until something holds.

    What a model draws is the same for all of them, so that a branch that hangs on a draw is none of these.
    """
    some = probe.x[:COMPARED]
    grey = torch.full_like(some, 0.5)
    batches = [grey, grey, 1 - some, *(some[i : i + 1].expand_as(some) for i in range(len(some)))]
    taken = [_operations(probe, batch) for batch in batches][1:]  # the first forward may prepare something
    if all(names == taken[0] for names in taken):
        return None
    return Finding(
        "data-dependent",
        "inconclusive",
        f"inputs of one shape go through {min(map(len, taken))} to {max(map(len, taken))} operations, and not the same "
        "ones: a gradient attack follows the branch that it is on; give the network without early exits or loops",
    )


def _operations(probe: Probe, batch: Tensor) -> list[str]:
    watch = _Operations()
    with seeded(0), watch:
        forward(probe.module, batch)
    return watch.names


def stateful(probe: Probe) -> Finding | None:
    """Whether forwards changed the module; looked at after all other indicators."""
    names = probe.before.changed(probe.module)
    if not names or probe.trains:
        return None
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Finding(
        "stateful",
        "error",
        f"a forward changes the model's {listed}: what it answers may hang on what it was asked before; keep counters, "
        "observers and running statistics out of forward",
    )
