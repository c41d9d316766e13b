"""Facts measured on a network as it is: how sparse, how many parameters, how many bytes."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pytest_prunerob.errors import ModelError, unknown

Unit = Literal["weights", "filters"]
Scope = Literal["prunable", "all"]
UNITS: tuple[Unit, ...] = ("weights", "filters")
SCOPES: tuple[Scope, ...] = ("prunable", "all")

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def convolutions(model: nn.Module) -> dict[str, Convolution]:
    """The convolutions of ``model`` by module name, in order of registration; a shared one appears once."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all convolutions and linear layers by parameter name; biases and norms are not prunable."""
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
    weights = {id(module.weight) for module in model.modules() if isinstance(module, kinds)}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in weights}


def empty_filters(weight: Tensor) -> Tensor:
    """Which filters of a convolution are all zero; ``weight: (O, ...)`` gives a bool tensor ``(O,)``."""
    return (weight.detach() == 0).flatten(1).all(dim=1)


def sparsity(model: nn.Module, *, unit: Unit = "weights", scope: Scope = "prunable") -> Fraction:
    """The share of exact zeros in ``model``.

    Unit "weights" counts scalars: those of convolution and linear weights (scope "prunable") or of all parameters
    ("all"). Unit "filters" counts the filters ``W[o]`` of convolutions that are zero throughout; every filter is
    prunable, so both scopes say the same.

    Raises:
        ModelError: for an unknown unit or scope, or a network that has nothing to count.
    """
    if unit not in UNITS:
        raise ModelError(unknown("unit of sparsity", unit, UNITS))
    if scope not in SCOPES:
        raise ModelError(unknown("scope of sparsity", scope, SCOPES))
    if unit == "filters":
        counts = [empty_filters(module.weight) for module in convolutions(model).values()]
    else:
        counted = model.parameters() if scope == "all" else prunable_weights(model).values()
        counts = [parameter.detach() == 0 for parameter in counted]
    total = sum(count.numel() for count in counts)
    if total == 0:
        wanted = "convolutions" if unit == "filters" else "convolution or linear weights"
        raise ModelError(
            f"sparsity of {type(model).__name__} in {unit} ({scope}): it has no "
            f"{'parameters' if unit == 'weights' and scope == 'all' else wanted} to count"
        )
    return Fraction(sum(int(count.sum()) for count in counts), total)


def parameters(model: nn.Module) -> int:
    """The number of parameters of ``model``, zeros included; buffers are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def size_bytes(model: nn.Module) -> int:
    """The bytes of the state dict of ``model`` as a safetensors file; zeros are stored like other values."""
    # safetensors refuses tensors that share memory, so tied weights are written once per name.
    tensors = {name: _plain(tensor) for name, tensor in model.state_dict().items()}
    return len(save(tensors))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
