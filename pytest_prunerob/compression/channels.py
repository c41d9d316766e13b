"""Output channels taken out of layers for good, with everything that depends on them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytest_prunerob.errors import CompressionError, unknown

Channel = Mapping[str, tuple[int, ...]]
Layer = nn.modules.conv._ConvNd | nn.Linear
EXTRA = "structured"  # the extra of this package that brings torch-pruning


def without_channels(
    model: nn.Module, channels: Mapping[str, Iterable[int]], *, inputs: tuple[int, int, int]
) -> nn.Module:
    """A copy of ``model`` in eval mode without the output channels ``channels`` (layer → indices) of its layers.

    torch-pruning finds what depends on a channel: the batch normalisation behind it, the inputs of the layers that read
    it, also behind flattening and concatenation, and the layers whose outputs are added to it, which lose the same
    channels whether they are named or not. ``inputs`` is the shape (C, H, W) of one sample.

    Raises:
        CompressionError: without torch-pruning, for a layer or index that is not there, channels of which only a part
            of what depends on each other is named, a layer that would be left empty, or a network that cannot be
            narrowed.
    """
    narrow = copy.deepcopy(model).eval()
    layers = _layers(narrow)
    wanted = {name: frozenset(indices) for name, indices in channels.items()}
    for name, indices in wanted.items():
        if name not in layers:
            raise CompressionError(unknown("layer with channels", name, layers))
        if not indices <= set(range(_width(layers[name]))):
            raise CompressionError(
                f"{name} has the output channels 0 to {_width(layers[name]) - 1}, asked to go are {sorted(indices)}"
            )
    graph = _dependencies(narrow, inputs)
    names = {module: name for name, module in narrow.named_modules()}
    # All groups are found on the whole network before anything goes, so that indices mean what the caller means.
    going: dict[tuple[nn.Module, Any], set[int]] = {}
    for name, indices in wanted.items():
        if indices:
            for dependency, found in _group(graph, layers[name], sorted(indices)):
                if dependency.target.module in names:
                    going.setdefault((dependency.target.module, dependency.handler), set()).update(found)
    for (module, handler), lost in going.items():
        if isinstance(module, Layer) and graph.is_out_channel_pruning_fn(handler):
            _check_lost(names[module], module, lost, wanted)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for (module, handler), lost in going.items():
        handler(module, sorted(lost))
    for name, parameter in narrow.named_parameters():
        parameter.requires_grad_(flags[name])
    _check_output(model, narrow, inputs)
    return narrow


@dataclass(frozen=True)
class Element:
    """Channels that can only go at once, such as those whose filters' outputs are added.

    ``writes`` maps every layer that makes them to its output channels, ``reads`` every layer that reads them to its
    input channels (features, of a linear layer). A depthwise convolution hands them on: it writes and does not read.
    """

    writes: Channel
    reads: Channel


def coupled(model: nn.Module, *, inputs: tuple[int, int, int]) -> list[list[Channel]]:
    """The groups of output channels of ``model`` that can be taken out: each a list of what goes together.

    One element maps every layer of the group to its output channels that can only go at once, such as both filters
    whose outputs are added. The channels of the outputs of the network belong to no group.

    Raises:
        CompressionError: without torch-pruning, or for a network that it cannot follow.
    """
    return [[element.writes for element in group] for group in elements(model, inputs=inputs)]


def elements(model: nn.Module, *, inputs: tuple[int, int, int]) -> list[list[Element]]:
    """The groups of :func:`coupled` with the layers that read each element; raises as that does."""
    probe = copy.deepcopy(model).eval()
    graph = _dependencies(probe, inputs)
    names = {module: name for name, module in probe.named_modules()}
    groups: list[list[Element]] = []
    seen: set[str] = set()
    for name, layer in _layers(probe).items():
        if name in seen or layer not in graph.module2node:
            continue
        group = _group(graph, layer, range(_width(layer)))
        writes: list[dict[str, list[int]]] = [{} for _ in range(_width(layer))]
        reads: list[dict[str, list[int]]] = [{} for _ in range(_width(layer))]
        for item in group:
            module = item.dep.target.module
            if module in names and isinstance(module, Layer):
                own = writes if graph.is_out_channel_pruning_fn(item.dep.handler) else reads
                for index, root in zip(item.idxs, item.root_idxs, strict=True):
                    own[root].setdefault(names[module], []).append(index)
        seen |= {name for member in writes for name in member}
        ends = (item.dep for item in group if graph.is_out_channel_pruning_fn(item.dep.handler))
        if all(dependency.target.outputs for dependency in ends):
            groups.append([Element(_sorted(out), _sorted(read)) for out, read in zip(writes, reads, strict=True)])
    return groups


def _sorted(channels: Mapping[str, list[int]]) -> Channel:
    return {name: tuple(sorted(set(own))) for name, own in channels.items()}


def _layers(model: nn.Module) -> dict[str, Layer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def _width(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _dependencies(model: nn.Module, inputs: tuple[int, int, int]) -> Any:
    """torch-pruning's graph of ``model``, whose parameters all require gradients afterwards."""
    try:
        import torch_pruning
    except ImportError as error:
        raise CompressionError(
            f"taking channels out of a network needs torch-pruning: pip install 'pytest-prunerob[{EXTRA}]'"
        ) from error
    model.requires_grad_()
    sample = torch.zeros(1, *inputs, device=next(model.parameters()).device)
    with torch.enable_grad():
        try:
            # In a tuple: a bare tensor would first be tried sample by sample, without the batch axis.
            return torch_pruning.DependencyGraph().build_dependency(model, (sample,), verbose=False)
        except Exception as error:  # it runs the network's own code, which may raise anything
            raise _cannot(model, f"{type(error).__name__}: {error}") from error


def _group(graph: Any, layer: Layer, indices: Iterable[int]) -> Any:
    """What depends on the output channels ``indices`` of ``layer``; refuses what torch-pruning would get wrong."""
    if layer not in graph.module2node:
        raise _cannot(graph.model, "a layer plays no part in its output")
    group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(indices))
    for dependency, _ in group:
        module = dependency.target.module
        if isinstance(module, nn.Parameter):
            raise _cannot(graph.model, "a parameter outside of all layers depends on the channels")
        grouped = isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1
        if grouped and not module.groups == module.in_channels == module.out_channels:
            raise _cannot(graph.model, "it has grouped convolutions that are not depthwise")
    return group


def _check_lost(name: str, layer: Layer, lost: set[int], wanted: Mapping[str, frozenset[int]]) -> None:
    if name in wanted and lost != wanted[name]:
        more = sorted(lost - wanted[name])
        raise CompressionError(
            f"{name} would lose the output channels {more} too, which go with those of other layers: name all or none"
        )
    if len(lost) >= _width(layer):
        raise CompressionError(f"{name} would lose all of its {_width(layer)} output channels: at least one must stay")


def _check_output(model: nn.Module, narrow: nn.Module, inputs: tuple[int, int, int]) -> None:
    """One forward of both: a channel that was missed shows in the shapes."""
    sample = torch.zeros(1, *inputs, device=next(model.parameters()).device)
    training = {name for name, module in model.named_modules() if module.training}
    with torch.no_grad():
        whole = copy.deepcopy(model).eval()(sample) if training else model(sample)
        try:
            shape = narrow(sample).shape
        except Exception as error:  # it runs the network's own code, which may raise anything
            raise _cannot(model, f"{type(error).__name__}: {error}") from error
    if shape != whole.shape:
        raise _cannot(model, f"its output would have the shape {tuple(shape)} instead of {tuple(whole.shape)}")


def _cannot(model: nn.Module, why: str) -> CompressionError:
    return CompressionError(
        f"torch-pruning cannot take channels out of {type(model).__name__} ({why}); allowed are methods that mask"
    )
