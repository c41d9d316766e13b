"""Residual blocks that do nothing, replaced by the identity."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import fx, nn
from torch.nn import functional

from pytest_prunerob.compression.residual_blocks import blocks, removed_blocks
from pytest_prunerob.compression.units import traced
from pytest_prunerob.errors import CompressionError

RELU_CALLS: frozenset[object] = frozenset({functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_"})


def idle(model: nn.Module) -> tuple[str, ...]:
    """The modules of ``model`` that are residual blocks and hand on their input unchanged, whatever it is.

    The branch of such a block is exactly zero, and nothing else happens in its module; a ReLU behind the addition does
    nothing where the input comes out of a ReLU already.

    Raises:
        CompressionError: if torch.fx cannot trace the network.
    """
    modules = dict(model.named_modules())
    silent = removed_blocks(model)
    if not any(silent.values()):
        return ()
    graph = traced(model, "finding residual blocks needs the graph of the network")
    return tuple(
        block.name
        for block in blocks(model)
        if silent[block.name] and block.name in modules and _hands_on(graph, block.name, block.addition, modules)
    )


def without_blocks(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy of ``model`` in which the modules ``names`` are ``nn.Identity``.

    Raises:
        CompressionError: for a module that is not there.
    """
    narrow = copy.deepcopy(model)
    for name in names:
        owner, _, own = name.rpartition(".")
        try:
            parent = narrow.get_submodule(owner)
            parent.get_submodule(own)
        except AttributeError:
            raise CompressionError(f"{type(model).__name__} has no block {name!r} that could be taken out") from None
        setattr(parent, own, nn.Identity())
    return narrow.eval()


def _hands_on(graph: fx.Graph, name: str, addition: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the module ``name`` returns its one input if the branch of its addition is zero."""
    inside = [node for node in graph.nodes if name in _owners(node)]
    sources = {one for node in inside for one in node.all_input_nodes if one not in inside}
    ends = [node for node in inside if any(user not in inside for user in node.users)]
    if len(sources) != 1 or len(ends) != 1:
        return False
    (source,), (end,) = sources, ends
    if _is_relu(end, modules) and _is_relu(source, modules):
        end = end.all_input_nodes[0]
    return end.name == addition and source in end.args


def _owners(node: fx.Node) -> list[str]:
    return [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), nn.ReLU)
    return node.target in RELU_CALLS
