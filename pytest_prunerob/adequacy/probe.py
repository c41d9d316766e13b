"""What the indicators of a subject look at, and forwards that leave nothing behind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob.randomness import seeded
from pytest_prunerob.subjects import as_logits, plain_attributes

__all__ = ["Finding", "Level", "Probe", "State", "differs", "drawn_alike", "forward", "untouched"]

Level = Literal["error", "inconclusive"]


@dataclass(frozen=True)
class Finding:
    """One reason why survival may not count: the indicator that fired, how bad, and one sentence on what to do.

    ``randomness``: it says no more than that the model draws at inference, which measures by votes take into account.
    """

    indicator: str
    level: Level
    message: str
    randomness: bool = False


@dataclass(frozen=True)
class State:
    """What a forward may change of a module: copies of its parameters and buffers on the CPU, its plain attributes."""

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, object]

    @staticmethod
    def of(module: nn.Module) -> State:
        """The state of ``module`` as it is now."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in _tensors(module).items()}
        return State(tensors, plain_attributes(module))

    def changed(self, module: nn.Module) -> tuple[str, ...]:
        """What of this state ``module`` no longer has; what a forward only added is no change."""
        tensors, attributes = _tensors(module), plain_attributes(module)
        names = [name for name, old in self.tensors.items() if not _same(old, tensors.get(name))]
        return (*names, *(name for name, old in self.attributes.items() if attributes.get(name) != old))

    def restore(self, module: nn.Module) -> None:
        """Put the contents of parameters and buffers back."""
        with torch.no_grad():
            for name, tensor in _tensors(module).items():
                old = self.tensors.get(name)
                if old is None or _same(old, tensor):
                    continue
                if old.shape != tensor.shape:
                    tensor.data = old.to(tensor.device)
                else:
                    tensor.copy_(old)


@dataclass(frozen=True)
class Probe:
    """Clean samples and their ``logits``.

    ``noise`` is the largest difference (NaN or infinite: there is no saying) between these and other forwards of the
    same inputs; ``before`` the state of the module before the first forward, ``trains`` whether more than dropout is
    in train mode.
    """

    module: nn.Module
    x: Tensor
    classes: int
    logits: Tensor
    noise: float
    before: State
    trains: bool

    @property
    def finite(self) -> bool:
        """Whether all logits on the clean probes are numbers."""
        return bool(self.logits.isfinite().all())


def forward(module: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, K) of ``x: (N, C, H, W)``, without gradients; ``x`` stays as it is."""
    with torch.no_grad():
        return as_logits(module(x.clone()), samples=len(x))


def drawn_alike(module: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, K) of ``x: (N, C, H, W)`` with the draws that follow one fixed seed, the same in every call."""
    with seeded(0):
        return forward(module, x)


def differs(a: Tensor, b: Tensor, limit: float) -> bool:
    """Whether any two logits are further apart than ``limit``; NaN always is."""
    return a.shape != b.shape or not bool(((a - b).abs() <= limit).all())


@contextmanager
def untouched(module: nn.Module) -> Iterator[State]:
    """Put back what forwards may change: weights, buffers, attributes, and the global random states.

    Within, all global random states start from a fixed seed, so that an audit is repeatable whatever the model draws.
    """
    parts = list(module.modules())
    attributes = [dict(vars(part)) for part in parts]
    registered = [dict(part._buffers) for part in parts]
    state = State.of(module)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (global state of the user's model)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002 (as above)
            yield state
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 (as above)
        for part, attribute, buffers in zip(parts, attributes, registered, strict=True):
            vars(part).clear()
            vars(part).update(attribute)
            part._buffers.clear()
            part._buffers.update(buffers)
        state.restore(module)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _same(old: Tensor, new: Tensor | None) -> bool:
    if new is None or old.shape != new.shape or old.dtype != new.dtype:
        return False
    now = new.detach().cpu()
    return bool(((old == now) | ((old != old) & (now != now))).all())
