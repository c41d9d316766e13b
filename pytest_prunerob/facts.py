"""Facts measured on a network as it is: how sparse, how many parameters, how many bytes."""

from __future__ import annotations

import zlib
from fractions import Fraction
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pytest_prunerob.errors import ModelError, unknown

Unit = Literal["weights", "kernels", "filters", "channels"]
Scope = Literal["prunable", "all"]
Form = Literal["dense", "compressed"]
UNITS: tuple[Unit, ...] = ("weights", "kernels", "filters", "channels")
SCOPES: tuple[Scope, ...] = ("prunable", "all")
FORMS: tuple[Form, ...] = ("dense", "compressed")
DEFLATE_LEVEL = 6  # what zip and gzip take where nothing is said

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


def reparametrised(model: nn.Module) -> str:
    """The name of a convolution or linear layer whose weight is computed from other tensors; empty where there is none.

    Such are those under ``torch.nn.utils.prune``, weight or spectral normalisation and other parametrisations.
    """
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
    for name, module in model.named_modules():
        if isinstance(module, kinds) and "weight" not in dict(module.named_parameters(recurse=False)):
            return name or type(module).__name__
    return ""


def _require_plain(model: nn.Module, what: str) -> None:
    name = reparametrised(model)
    if name:
        raise ModelError(
            f"{what} of {type(model).__name__}: the weight of {name!r} is computed from other tensors; make it plain "
            "first, such as by torch.nn.utils.prune.remove or parametrize.remove_parametrizations"
        )


def empty_filters(weight: Tensor) -> Tensor:
    """Which filters of a convolution are all zero; ``weight: (O, ...)`` gives a bool tensor ``(O,)``."""
    return (weight.detach() == 0).flatten(1).all(dim=1)


def empty_kernels(weight: Tensor) -> Tensor:
    """Which kernels of a convolution are all zero; ``weight: (O, I/groups, ...)`` gives a bool tensor of two axes."""
    return (weight.detach() == 0).flatten(2).all(dim=2)


def empty_channels(layer: Convolution) -> Tensor:
    """Which input channels a convolution does not read: a bool tensor ``(I,)``.

    A channel is read by the filters of its own group alone, ``W[o, i]`` for those ``o``; of a depthwise convolution
    that is one kernel.
    """
    kernels = empty_kernels(layer.weight)
    return kernels.reshape(layer.groups, -1, kernels.shape[1]).all(dim=1).flatten()


def sparsity(model: nn.Module, *, unit: Unit = "weights", scope: Scope = "prunable") -> Fraction:
    """The share of ``unit`` that is exactly zero in ``model``.

    Unit "weights" counts scalars: those of convolution and linear weights (scope "prunable") or of all parameters
    ("all"). The other units are parts of convolutions that are zero throughout, all of them prunable, so that both
    scopes say the same: "kernels" ``W[o, i]``, "filters" ``W[o]``, "channels" ``W[:, i]`` (input channels that nothing
    is read from). Biases are not looked at: a filter of zeros may emit a constant.

    Raises:
        ModelError: for an unknown unit or scope, a network that has nothing to count, or one with a weight that is
            computed from other tensors.
    """
    _require_plain(model, "sparsity")
    if unit not in UNITS:
        raise ModelError(unknown("unit of sparsity", unit, UNITS))
    if scope not in SCOPES:
        raise ModelError(unknown("scope of sparsity", scope, SCOPES))
    if unit == "weights":
        counted = model.parameters() if scope == "all" else prunable_weights(model).values()
        counts = [parameter.detach() == 0 for parameter in counted]
    else:
        layers = {id(layer.weight): layer for layer in convolutions(model).values()}.values()
        counts = [_empty(layer, unit) for layer in layers]
    total = sum(count.numel() for count in counts)
    if total == 0:
        wanted = "convolution or linear weights" if unit == "weights" else "convolutions"
        raise ModelError(
            f"sparsity of {type(model).__name__} in {unit} ({scope}): it has no "
            f"{'parameters' if unit == 'weights' and scope == 'all' else wanted} to count"
        )
    return Fraction(sum(int(count.sum()) for count in counts), total)


def _empty(layer: Convolution, unit: Unit) -> Tensor:
    if unit == "channels":
        return empty_channels(layer)
    return empty_filters(layer.weight) if unit == "filters" else empty_kernels(layer.weight)


def parameters(model: nn.Module) -> int:
    """The number of parameters of ``model``, zeros included; buffers are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzeros(model: nn.Module) -> int:
    """The number of parameters of ``model`` that are not exactly zero.

    Raises:
        ModelError: for a network with a weight that is computed from other tensors.
    """
    _require_plain(model, "nonzeros")
    return sum(int((parameter.detach() != 0).sum()) for parameter in model.parameters())


def size_bytes(model: nn.Module, *, form: Form = "dense") -> int:
    """The bytes of the state dict of ``model`` as a safetensors file; zeros are stored like other values.

    Form "compressed" is that file in zlib's format (deflate, level 6), in which zeros take next to nothing.

    Raises:
        ModelError: for an unknown form.
    """
    if form not in FORMS:
        raise ModelError(unknown("form of size_bytes", form, FORMS))
    # safetensors refuses tensors that share memory, so tied weights are written once per name.
    tensors = {name: _plain(tensor) for name, tensor in model.state_dict().items()}
    written = save(tensors)
    return len(written) if form == "dense" else len(zlib.compress(written, DEFLATE_LEVEL))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
