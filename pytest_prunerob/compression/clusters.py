"""Convolutions whose filters belong together because their outputs are added, read off the graph of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import fx, nn

from pytest_prunerob.compression.units import traced
from pytest_prunerob.facts import Convolution, convolutions

# What joins its inputs channel by channel, as the names of functions, operators and methods without underscores.
ELEMENTWISE = {"add", "iadd", "sub", "isub", "mul", "imul", "div", "truediv", "itruediv", "maximum", "minimum"}


@dataclass(frozen=True)
class Clusters:
    """The convolutions of a network by module name, in ``joined`` groups; every convolution is in one of them.

    ``first`` read the network's input, ``last`` reach its output, with no convolution or linear layer on the way.
    ``split`` are those whose channels a grouped convolution that is not depthwise reads in groups.
    """

    joined: tuple[tuple[str, ...], ...]
    first: frozenset[str]
    last: frozenset[str]
    split: frozenset[str]


def clusters(model: nn.Module, why: str) -> Clusters:
    """The groups of convolutions whose filters are pruned together: o of one with o of the others.

    Outputs that meet in an addition, another elementwise operation or a depthwise convolution belong together, however
    many activations, normalisations or poolings lie between; a convolution or linear layer ends the way.

    Raises:
        CompressionError: if the network cannot be traced by torch.fx; ``why`` begins the sentence.
    """
    graph, layers = traced(model, why), convolutions(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    named = {id(layer): name for name, layer in layers.items()}
    groups = {name: {name} for name in layers}
    # For each node, which filters are its channels; and what is still the network's input.
    behind: dict[fx.Node, frozenset[str]] = {}
    raw: set[fx.Node] = set()
    first: set[str] = set()
    last: set[str] = set()
    split: set[str] = set()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        sources = frozenset[str]().union(*(behind[one] for one in inputs))
        from_input = node.op == "placeholder" or not raw.isdisjoint(inputs)
        module = modules[str(node.target)] if node.op == "call_module" else None
        if id(module) in named:
            name = named[id(module)]
            behind[node] = frozenset({name})
            first |= {name} if from_input else set()
            if depthwise(layers[name]):
                _join(groups, {name, *sources})
            elif layers[name].groups != 1:
                split |= sources
        elif isinstance(module, nn.Linear):
            behind[node] = frozenset()
        else:
            behind[node] = sources
            raw |= {node} if from_input else set()
            if len(inputs) > 1 and _elementwise(node):
                _join(groups, sources)
        last |= sources if node.op == "output" else set()
    joined = {id(group): tuple(name for name in layers if name in group) for group in groups.values()}
    return Clusters(tuple(joined.values()), frozenset(first), frozenset(last), frozenset(split))


def depthwise(layer: Convolution) -> bool:
    """Whether each filter reads the one channel of its own number."""
    return layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1


def _elementwise(node: fx.Node) -> bool:
    name = getattr(node.target, "__name__", node.target)
    return node.op in ("call_function", "call_method") and str(name).strip("_") in ELEMENTWISE


def _join(groups: Mapping[str, set[str]], names: Iterable[str]) -> None:
    """Let all of ``names`` and what they are grouped with share one set."""
    together = set().union(*(groups[name] for name in names))
    for name in together:
        groups[name] = together  # type: ignore[index]
