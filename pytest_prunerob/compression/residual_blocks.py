"""The residual blocks of a network that can go: branches that are added to what they have read."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.units import traced

ADDITIONS: frozenset[object] = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
PRODUCTS: frozenset[object] = frozenset({operator.mul, operator.imul, torch.mul, "mul", "mul_"})
# What gives zero for a tensor of zeros; of everything else nothing is assumed.
STEADY = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Dropout2d, nn.ELU, nn.Flatten, nn.GELU,
    nn.Hardswish, nn.Identity, nn.LeakyReLU, nn.MaxPool2d, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Tanh,
    nn.ZeroPad2d,
)  # fmt: skip
STEADY_CALLS: frozenset[object] = frozenset({
    functional.adaptive_avg_pool2d, functional.avg_pool2d, functional.dropout, functional.dropout2d, functional.elu,
    functional.gelu, functional.hardswish, functional.leaky_relu, functional.max_pool2d, functional.mish,
    functional.relu, functional.relu6, functional.silu, operator.getitem, torch.flatten, torch.relu, torch.relu_,
    torch.tanh, "contiguous", "flatten", "mean", "relu", "relu_", "reshape", "tanh", "view",
})  # fmt: skip
LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
# Whether a parameter is zero throughout.
Zero = Callable[[Tensor], bool]


@dataclass(frozen=True)
class Block:
    """A residual block with an identity shortcut: ``x + branch(x)``.

    ``name`` is the module in whose ``forward`` the addition stands, and the name of the addition in the graph where
    one module has several. ``addition`` is that name in any case. ``modules`` are the leaf modules of the branch in
    the order of the graph, ``parameters`` the names of all their parameters. Nothing else reads the branch or shares
    its parameters, and with all of them zero the branch is exactly zero.
    """

    name: str
    addition: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def blocks(model: nn.Module) -> tuple[Block, ...]:
    """The residual blocks of ``model`` whose shortcut is the identity, in the order of the graph; may be empty.

    Found in the graph of torch.fx, not by names of classes: an addition one of whose operands leads back to the other
    through layers that nothing else uses. A block whose shortcut changes the shape (a projection, strides, padded
    channels) is none; where one block lies in another one, the inner one counts.

    Raises:
        CompressionError: if torch.fx cannot trace the network.
    """
    return tuple(block for block, _ in _found(model))


def masks_without(model: nn.Module, gone: Iterable[Block]) -> Masks:
    """The masks that set every parameter of the branches of ``gone`` to zero."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = [name for block in gone for name in block.parameters]
    return Masks({name: torch.zeros(parameters[name].shape, dtype=torch.bool) for name in names})


def removed_blocks(model: nn.Module) -> dict[str, bool]:
    """Measured on ``model``: by name of the block, whether its branch is exactly zero for every input.

    Raises:
        CompressionError: if torch.fx cannot trace the network.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    attributes = dict(model.named_parameters(remove_duplicate=False))

    def zero(tensor: Tensor) -> bool:
        return not bool(tensor.detach().any())

    return {block.name: _silent(branch, modules, attributes, zero) for block, branch in _found(model)}


def _found(model: nn.Module) -> list[tuple[Block, fx.Node]]:
    """Each block with the node whose output is that of its branch."""
    graph = traced(model, "finding residual blocks needs the graph of the network")
    modules = dict(model.named_modules(remove_duplicate=False))
    attributes = dict(model.named_parameters(remove_duplicate=False))
    called = Counter(str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr"))
    owners = Counter(id(parameter) for parameter in attributes.values())
    found: list[tuple[fx.Node, fx.Node, list[fx.Node], tuple[str, ...]]] = []
    for node in graph.nodes:
        for branch, inside in _branches(node, modules):
            targets = [str(one.target) for one in inside if one.op in ("call_module", "get_attr")]
            named = {target: _parameters_of(target, modules, attributes) for target in targets}
            names = tuple(name for own in named.values() for name in own)
            # A ReLU may serve many times; what has parameters goes with the block and must serve it alone.
            alone = all(called[target] == 1 for target, own in named.items() if own)
            alone = alone and all(owners[id(attributes[name])] == 1 for name in names)
            if names and alone and _silent(branch, modules, attributes, lambda _: True):
                found.append((node, branch, inside, names))
    inner = [one for one in found if not any(other[0] in one[2] for other in found)]
    shared = Counter(_owner(node) for node, *_ in inner)
    result = []
    for node, branch, inside, names in inner:
        owner = _owner(node)
        name = owner if owner and shared[owner] == 1 else f"{owner}.{node.name}".lstrip(".")
        leaves = tuple(str(one.target) for one in inside if one.op == "call_module")
        result.append((Block(name, node.name, leaves, names), branch))
    return result


def _branches(node: fx.Node, modules: Mapping[str, nn.Module]) -> list[tuple[fx.Node, list[fx.Node]]]:
    """The last node of the branch and all its nodes, if ``node`` adds a branch to the very tensor it has read."""
    if node.target not in ADDITIONS or node.kwargs or len(node.args) != 2:
        return []
    one, other = node.args
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return []
    for shortcut, branch in ((one, other), (other, one)):
        inside = _between(_behind_identities(shortcut, modules), branch)
        if inside and all(user is node or user in inside for one in inside for user in one.users):
            order = list(node.graph.nodes)
            return [(branch, sorted(inside, key=order.index))]
    return []


def _between(source: fx.Node, last: fx.Node) -> set[fx.Node]:
    """The nodes from ``source`` (not with it) to ``last``; empty if anything else than parameters leads into them."""
    inside: set[fx.Node] = set()
    waiting, reached = [last], False
    while waiting:
        node = waiting.pop()
        if node is source:
            reached = True
        elif node.op == "placeholder":
            return set()
        elif node not in inside:
            inside.add(node)
            waiting.extend(node.all_input_nodes)
    return inside if reached else set()


def _behind_identities(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node:
    """What ``node`` hands on unchanged: an ``nn.Identity`` is its input."""
    while node.op == "call_module" and isinstance(modules[str(node.target)], nn.Identity):
        (node,) = node.all_input_nodes
    return node


def _parameters_of(target: str, modules: Mapping[str, nn.Module], attributes: Mapping[str, nn.Parameter]) -> list[str]:
    """The names of the parameters of a leaf module, or of a parameter that is read itself."""
    if target in attributes:
        return [target]
    return [f"{target}.{name}" for name, _ in modules[target].named_parameters()] if target in modules else []


def _owner(node: fx.Node) -> str:
    """The module in whose ``forward`` the operation stands; empty for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _silent(
    node: fx.Node, modules: Mapping[str, nn.Module], attributes: Mapping[str, nn.Parameter], zero: Zero
) -> bool:
    """Whether ``node`` is zero for every input, as far as layers say that are known; ``zero`` tells of parameters."""
    inputs = [one for one in node.args if isinstance(one, fx.Node)]

    def quiet(one: fx.Node) -> bool:
        return _silent(one, modules, attributes, zero)

    if node.op == "get_attr":
        return str(node.target) in attributes and zero(attributes[str(node.target)])
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, (*LINEAR, *NORMS)):
            if module.weight is None or not (module.bias is None or zero(module.bias)):
                return False
            return zero(module.weight) or (isinstance(module, LINEAR) and quiet(inputs[0]))
        return isinstance(module, STEADY) and quiet(inputs[0])
    if node.target in PRODUCTS:
        return any(quiet(one) for one in inputs)
    if node.target in ADDITIONS:
        return len(inputs) == len(node.args) and all(quiet(one) for one in inputs)
    return node.target in STEADY_CALLS and bool(inputs) and quiet(inputs[0])
