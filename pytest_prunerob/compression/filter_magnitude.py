"""Filter-wise global magnitude pruning: the weakest convolution filters of the whole network go."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import convolutions

SOURCE = (
    "Li et al. 2017, arXiv:1608.08710 (L1 norm of a filter); 'magnitude global filter' of Merkle, Samsinger & "
    "Schöttle 2021, Pruning in the Face of Adversaries, Sec. 3.3"
)


def select(model: nn.Module, amount: Fraction, *, previous: Masks | None = None) -> Masks:
    """Masks that prune the ``ceil(amount · F)`` weakest of the ``F`` convolution filters of the network.

    Merkle et al. prune convolutions only and rank globally, but name no norm. The score here is the L1 norm (Li et
    al.) divided by the number of weights of the filter, the mean ``|w|``: plain L1 norms grow with the fan-in, so
    the narrow first layers would go before all others. The best filter of each layer stays. A pruned filter takes its
    bias with it, and scale and shift of the batch normalisation that reads it, so that the channel is exactly zero.

    Raises:
        CompressionError: if there is no convolution, if ``amount`` would empty a layer, or if a network with batch
            normalisation cannot be traced.
    """
    layers = convolutions(model)
    if not layers:
        raise CompressionError(
            f"filter-l1 prunes the filters of convolutions and {type(model).__name__} has none; "
            "allowed here is global-magnitude"
        )
    scores = {name: _score(f"{name}.weight", layer.weight, previous) for name, layer in layers.items()}
    total = sum(score.numel() for score in scores.values())
    count = math.ceil(amount * total)
    if count > total - len(layers):
        raise CompressionError(
            f"filter-l1: sparsity {float(amount):.4g} means {count} of {total} filters, but each of the {len(layers)} "
            f"convolutions keeps at least one, so at most {total - len(layers)} can go"
        )
    for score in scores.values():
        score[score.argmax()] = math.inf
    order = torch.sort(torch.cat(list(scores.values())), stable=True).indices
    kept = torch.ones(total, dtype=torch.bool)
    kept[order[:count]] = False
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return _masks(model, dict(zip(scores, parts, strict=True)))


def _score(name: str, weight: Tensor, previous: Masks | None) -> Tensor:
    """The mean ``|w|`` of every filter of ``weight: (O, ...)``; −1 for the filters already pruned."""
    score = weight.detach().abs().cpu().double().flatten(1).mean(dim=1)
    if previous is not None and name in previous.kept:
        score = score.masked_fill(~previous.kept[name].flatten(1).any(dim=1), -1.0)
    return score


def _masks(model: nn.Module, filters: dict[str, Tensor]) -> Masks:
    """The masks of all parameters that belong to the filters; ``filters`` maps a convolution to what it keeps."""
    norms = _following_norms(model)
    kept: dict[str, Tensor] = {}
    for name, keep in filters.items():
        layer = convolutions(model)[name]
        shape = (-1, *[1] * (layer.weight.dim() - 1))
        kept[f"{name}.weight"] = keep.reshape(shape).expand(layer.weight.shape).clone()
        if layer.bias is not None:
            kept[f"{name}.bias"] = keep.clone()
        for norm in norms.get(name, ()):
            kept[f"{norm}.weight"] = keep.clone()
            kept[f"{norm}.bias"] = keep.clone()
    return Masks(kept)


def _following_norms(model: nn.Module) -> dict[str, list[str]]:
    """The affine batch normalisations that read each convolution's output directly, by module name.

    The order of registration does not tell: in a pre-activation ResNet the module after a convolution can be the
    normalisation of a *sum*, so the graph decides.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return {}
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:
        raise CompressionError(
            f"filter-l1 must know which batch normalisation follows which convolution, and {type(model).__name__} "
            f"cannot be traced by torch.fx ({type(error).__name__}); allowed here is global-magnitude"
        ) from error
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
