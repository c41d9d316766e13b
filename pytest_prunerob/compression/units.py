"""What can be pruned of a network: single weights, kernels W[o, i], filters W[o]; and the masks that prune them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import convolutions, prunable_weights

MaskUnit = Literal["weights", "kernels", "filters"]
DIMENSIONS: dict[MaskUnit, int | None] = {"weights": None, "kernels": 2, "filters": 1}


def weights_of(model: nn.Module, unit: MaskUnit, method: str) -> dict[str, Tensor]:
    """The weights that hold the units, by parameter name, detached and on the CPU.

    Weights are those of convolutions and linear layers, kernels and filters of convolutions only.

    Raises:
        CompressionError: if there are none; ``method`` is the name in the sentence.
    """
    if unit == "weights":
        found: Mapping[str, Tensor] = prunable_weights(model)
        wanted = "convolutions or linear layers"
    else:
        found = {f"{name}.weight": layer.weight for name, layer in convolutions(model).items()}
        wanted = "convolutions"
    if not found:
        allowed = (
            ""
            if unit == "weights"
            else "; allowed here are methods that prune single weights, such as global-magnitude"
        )
        raise CompressionError(f"{method} prunes the {unit} of {wanted} and {type(model).__name__} has none{allowed}")
    return {name: weight.detach().cpu() for name, weight in found.items()}


def each(weight: Tensor, unit: MaskUnit) -> Tensor:
    """The entries of every unit in a row: ``weight`` of a layer → (units in their shape..., entries of one)."""
    dimensions = DIMENSIONS[unit]
    return weight.unsqueeze(-1) if dimensions is None else weight.flatten(dimensions).flatten(dimensions)


def magnitude(weight: Tensor, unit: MaskUnit) -> Tensor:
    """The mean ``|w|`` of every unit, in the shape of the units.

    The mean and not the sum: plain L1 norms grow with the fan-in, so that a global ranking would take the narrow first
    layers before all others; within a layer the order is the same.
    """
    return each(weight, unit).abs().double().mean(dim=-1) if unit != "weights" else weight.abs()


def masks_of(model: nn.Module, unit: MaskUnit, kept: Mapping[str, Tensor]) -> Masks:
    """The masks that leave the units ``kept`` (parameter name → bool tensor in the shape of the units).

    A pruned filter takes its bias with it, and scale and shift of the batch normalisation that reads it, so that its
    channel is exactly zero.

    Raises:
        CompressionError: for filters, if a network with batch normalisation cannot be traced.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    masks = {}
    for name, keep in kept.items():
        shape = parameters[name].shape
        masks[name] = keep.reshape(*keep.shape, *[1] * (len(shape) - keep.dim())).expand(shape).clone()
    if unit == "filters":
        norms = following_norms(model)
        for name, keep in kept.items():
            layer = name.removesuffix(".weight")
            for norm in norms.get(layer, ()):
                masks[f"{norm}.weight"], masks[f"{norm}.bias"] = keep.clone(), keep.clone()
            if f"{layer}.bias" in parameters:
                masks[f"{layer}.bias"] = keep.clone()
    return Masks(masks)


def kept_units(masks: Masks, name: str, weight: Tensor, unit: MaskUnit) -> Tensor:
    """Which units of the layer's parameter ``name`` the masks keep at least in part, in the shape of the units."""
    mask = masks.kept.get(name)
    whole = torch.ones(weight.shape, dtype=torch.bool) if mask is None else mask
    return each(whole, unit).any(dim=-1)


def removed(model: nn.Module, unit: MaskUnit, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Measured on ``model``: by layer, how many units are zero throughout and how many there are."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    zero = {name: each(parameters[name].detach() == 0, unit).all(dim=-1) for name in names}
    return {name.removesuffix(".weight"): (int(gone.sum()), gone.numel()) for name, gone in zero.items()}


def following_norms(model: nn.Module) -> dict[str, list[str]]:
    """The affine batch normalisations that read each convolution's output directly, by module name.

    The order of registration does not tell: in a pre-activation ResNet the module after a convolution can be the
    normalisation of a *sum*, so the graph decides.

    Raises:
        CompressionError: if a network with batch normalisation cannot be traced by torch.fx.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return {}
    graph = traced(model, "pruning filters must know which batch normalisation follows which convolution")
    modules = dict(model.named_modules(remove_duplicate=False))
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [str(node.target) for node in calls]
    layers = convolutions(model)
    found: dict[str, list[str]] = {}
    for node, target in zip(calls, targets, strict=True):
        norm, source = modules[target], node.args[0] if node.args else None
        if not isinstance(norm, _BatchNorm) or not norm.affine or targets.count(target) > 1:
            continue
        if isinstance(source, fx.Node) and source.op == "call_module" and str(source.target) in layers:
            found.setdefault(str(source.target), []).append(target)
    return found


def traced(model: nn.Module, why: str) -> fx.Graph:
    """The graph of ``model``; ``why`` begins the sentence of the ``CompressionError`` if torch.fx cannot trace it."""
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise CompressionError(
            f"{why}, and {type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}); "
            "allowed here are methods that prune single weights, such as global-magnitude"
        ) from error
