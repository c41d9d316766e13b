"""Activations that keep only their largest outputs: the module, and networks with and without it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.amounts import parse_amount
from pytest_prunerob.compression.units import traced
from pytest_prunerob.errors import CompressionError


class LargestReLU(nn.Module):
    """A ReLU that sets the smallest ``amount`` of the outputs of each sample to zero (k-winners-take-all).

    Which ones go depends on the sample, so that the network jumps where two outputs change their ranks: its gradients
    are those of the outputs that are kept. ``amount`` is a rational in a string.
    """

    def __init__(self, amount: str) -> None:
        super().__init__()
        self.amount = amount

    def extra_repr(self) -> str:
        """The amount, which the fingerprint of a network reads."""
        return f"amount={self.amount}"

    def forward(self, x: Tensor) -> Tensor:
        """``x: (N, ...)`` → its positive part with all but the largest outputs of each sample zero."""
        positive = nn.functional.relu(x)
        return positive.masked_fill(~self.kept(positive.detach()), 0.0)

    def kept(self, positive: Tensor) -> Tensor:
        """Which outputs stay, a bool tensor like ``positive: (N, ...)``; of equal ones the last stay.

        ``ceil(amount · M)`` of the M outputs of a sample go, but one stays.
        """
        flat = positive.flatten(1)
        count = min(math.ceil(Fraction(self.amount) * flat.shape[1]), flat.shape[1] - 1)
        if count == 0:
            return torch.ones_like(positive, dtype=torch.bool)
        limit = flat.kthvalue(count, dim=1, keepdim=True).values
        below, ties = flat < limit, flat == limit
        gone = below | (ties & (ties.cumsum(1) <= count - below.sum(1, keepdim=True)))
        return ~gone.reshape(positive.shape)


def with_largest(model: nn.Module, amount: str) -> nn.Module:
    """A copy of ``model`` in which each ``nn.ReLU`` is a ``LargestReLU`` of ``amount``.

    Raises:
        CompressionError: if there is no such module, or for an impossible amount.
    """
    parse_amount(amount)
    if not any(type(part) is nn.ReLU for part in model.modules()):
        raise CompressionError(
            f"activation pruning replaces nn.ReLU modules and {type(model).__name__} has none; allowed are networks "
            "whose activations are nn.ReLU modules, such as cnn"
        )
    by_call = _calls_relu(model)
    if by_call:
        raise CompressionError(
            f"activation pruning replaces nn.ReLU modules and {type(model).__name__} also calls {by_call} itself, "
            "which would stay; allowed are networks whose activations are all nn.ReLU modules, such as cnn"
        )
    return _replaced(model, nn.ReLU, lambda: LargestReLU(amount))


def without_largest(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with a plain ``nn.ReLU`` for each ``LargestReLU``: the network without the jumps."""
    return _replaced(model, LargestReLU, nn.ReLU)


def _calls_relu(model: nn.Module) -> str:
    """The name of a ReLU that ``model`` calls as a function; the empty string for none, or if torch.fx cannot tell."""
    with suppress(CompressionError):
        for node in traced(model, "finding activations needs the graph of the network").nodes:
            name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
            if node.op in ("call_function", "call_method") and name in ("relu", "relu_"):
                return str(name)
    return ""


def _replaced(model: nn.Module, old: type[nn.Module], new: Callable[[], nn.Module]) -> nn.Module:
    changed = copy.deepcopy(model)
    made: dict[int, nn.Module] = {}  # a module that is used in several places stays one
    for name, part in list(changed.named_modules(remove_duplicate=False)):
        if type(part) is old:
            if not name:
                raise CompressionError(f"the network is nothing but one {old.__name__}")
            replacement = made.setdefault(id(part), new()).train(part.training)
            changed.set_submodule(name, replacement)
    return changed
