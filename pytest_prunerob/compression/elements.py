"""Single structures of a network, filters and residual blocks, and taking one out for a moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.compression.units import following_norms, traced
from pytest_prunerob.facts import convolutions

# Samples in one forward; ours.
BATCH = 128


@dataclass(frozen=True)
class Element:
    """A filter, the ``index``-th of the convolution ``layer``, or the residual block ``layer`` (``index`` ``None``).

    ``parameters`` are the names of the parameters that are zero without it: entry ``index`` of each, or the whole.
    """

    layer: str
    index: int | None
    parameters: tuple[str, ...]


def filters(model: nn.Module) -> list[Element]:
    """Every filter of every convolution with its bias and the batch normalisation that reads it.

    Raises:
        CompressionError: if a network with batch normalisation cannot be traced.
    """
    norms = following_norms(model)
    found = []
    for name, layer in convolutions(model).items():
        owners = [name, *norms.get(name, [])]
        parameters = [f"{owner}.{kind}" for owner in owners for kind in ("weight", "bias")]
        if layer.bias is None:
            parameters.remove(f"{name}.bias")
        found += [Element(name, index, tuple(parameters)) for index in range(layer.out_channels)]
    return found


def whole_blocks(blocks: Sequence[Block]) -> list[Element]:
    """The blocks as elements."""
    return [Element(block.name, None, block.parameters) for block in blocks]


@contextmanager
def without(model: nn.Module, element: Element) -> Iterator[None]:
    """``model`` with the parameters of ``element`` at zero; afterwards they are what they were, bit for bit."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    where = slice(None) if element.index is None else slice(element.index, element.index + 1)
    entries = [parameters[name].detach()[where] for name in element.parameters]
    saved = [entry.clone() for entry in entries]
    try:
        for entry in entries:
            entry.zero_()
        yield
    finally:
        with torch.no_grad():
            for entry, before in zip(entries, saved, strict=True):
                entry.copy_(before)


def logits_without(model: nn.Module, found: Sequence[Element], x: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The logits of ``model`` as it is and without each of ``found``: (place in ``found``, whole, without).

    ``x: (N, C, H, W)`` goes through in batches, so that every place comes once per batch with logits (n, K). What
    lies before an element in the network is computed once for all of them: filters are many where little follows.

    Raises:
        CompressionError: if torch.fx cannot trace the network.
    """
    graph = traced(model, "masking structures one by one needs the graph of the network")
    nodes = list(graph.nodes)
    where = _first_nodes(model, nodes)
    waiting: dict[int, list[int]] = {}
    for place, element in enumerate(found):
        # What is never called, such as a head for training, changes nothing: it waits for the output.
        first = min((where[name] for name in element.parameters if name in where), default=len(nodes) - 1)
        waiting.setdefault(first, []).append(place)
    runner = fx.Interpreter(fx.GraphModule(model, graph))
    device = next(model.parameters()).device
    for batch in torch.split(x, BATCH):
        with torch.no_grad():
            whole = model(batch.to(device))
        runner.args_iter = iter((batch.to(device),))
        values: dict[fx.Node, Any] = {}
        for position, node in enumerate(nodes):
            for place in waiting.get(position, []):
                # Later layers may change in place what they read.
                copies = {key: value.clone() if isinstance(value, Tensor) else value for key, value in values.items()}
                with without(model, found[place]), torch.no_grad():
                    logits = _advance(runner, nodes[position:], copies)
                yield place, whole, logits
            with torch.no_grad():
                _advance(runner, [node], values)


def _first_nodes(model: nn.Module, nodes: Sequence[fx.Node]) -> Mapping[str, int]:
    """The position of the first of ``nodes`` that reads each parameter."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, int] = {}
    for position, node in enumerate(nodes):
        target = str(node.target)
        if node.op == "call_module":
            for name, _ in modules[target].named_parameters():
                found.setdefault(f"{target}.{name}", position)
        elif node.op == "get_attr":
            found.setdefault(target, position)
    return found


def _advance(runner: fx.Interpreter, nodes: Sequence[fx.Node], values: dict[fx.Node, Any]) -> Any:
    """Run ``nodes`` with the ``values`` of earlier ones, in place, without those that nothing later needs."""
    runner.env = values
    result = None
    for node in nodes:
        result = runner.run_node(node)
        values[node] = result
        for done in runner.user_to_last_uses.get(node, []):
            values.pop(done, None)
    return result
