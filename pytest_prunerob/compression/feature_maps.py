"""What filters and residual blocks give for training samples, read in the graph of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_prunerob.compression.elements import BATCH
from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.compression.units import traced
from pytest_prunerob.facts import convolutions

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.Tanh)
RECTIFYING: frozenset[object] = frozenset({
    functional.elu, functional.gelu, functional.hardswish, functional.leaky_relu, functional.mish, functional.relu,
    functional.relu6, functional.silu, functional.tanh, torch.relu, torch.relu_, torch.tanh, "relu", "relu_", "tanh",
})  # fmt: skip
# From maps (n, C, ...) to one number of each sample and channel: (n, C).
Reduce = Callable[[Tensor], Tensor]
WHY = "scoring by feature maps needs the graph of the network"


def activations(model: nn.Module, x: Tensor, reduce: Reduce) -> dict[str, Tensor]:
    """``reduce`` of what each convolution's filters give, by weight name: ``x: (N, C, H, W)`` → (N, filters).

    Taken after the batch normalisation and the activation function that follow the convolution and read nothing else;
    of a convolution that is called several times, the first call.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    points = {name: _after(node, modules, norms=True) for name, node in _convolutions(model).items()}
    return _run(model, points, x, reduce)


def convolved(model: nn.Module, x: Tensor, reduce: Reduce) -> dict[str, Tensor]:
    """``reduce`` of what each convolution itself gives, by weight name: ``x: (N, C, H, W)`` → (N, filters)."""
    return _run(model, _convolutions(model), x, reduce)


def block_outputs(
    model: nn.Module, blocks: Iterable[Block], x: Tensor, reduce: Reduce, *, rectified: bool
) -> dict[str, Tensor]:
    """``reduce`` of the sums of shortcut and branch, by block: ``x: (N, C, H, W)`` → (N, channels).

    With ``rectified`` a ReLU is taken of the sum, whether or not the network has one there.
    """
    nodes = {node.name: node for node in traced(model, WHY).nodes}
    points = {block.name: nodes[block.addition] for block in blocks}
    return _run(model, points, x, (lambda maps: reduce(maps.relu())) if rectified else reduce)


def mean_absolute(maps: Tensor) -> Tensor:
    """The mean ``|a|`` of every sample's map: (n, C, ...) → (n, C)."""
    return maps.flatten(2).abs().mean(dim=-1, dtype=torch.float64)


def maximum(maps: Tensor) -> Tensor:
    """Global max pooling: (n, C, ...) → (n, C)."""
    return maps.flatten(2).amax(dim=-1)


def relative_rank(maps: Tensor) -> Tensor:
    """The rank of every sample's map over the largest it can have: (n, C, H, W) → (n, C), 0 to 1."""
    flat = maps.reshape(*maps.shape[:2], -1, maps.shape[-1])
    rank: Tensor = torch.linalg.matrix_rank(flat)
    return rank.double() / min(flat.shape[-2:])


def _convolutions(model: nn.Module) -> dict[str, fx.Node]:
    layers = convolutions(model)
    found: dict[str, fx.Node] = {}
    for node in traced(model, WHY).nodes:
        if node.op == "call_module" and str(node.target) in layers:
            found.setdefault(f"{node.target}.weight", node)
    return {name: found[name] for name in (f"{layer}.weight" for layer in layers) if name in found}


def _after(node: fx.Node, modules: Mapping[str, nn.Module], *, norms: bool) -> fx.Node:
    """The last node of the chain ``node``, batch normalisation, activation function in which each reads only one."""
    readers = list(node.users)
    if len(readers) != 1:
        return node
    (reader,) = readers
    module = modules.get(str(reader.target)) if reader.op == "call_module" else None
    if norms and isinstance(module, _BatchNorm):
        return _after(reader, modules, norms=False)
    return reader if isinstance(module, RECTIFIERS) or reader.target in RECTIFYING else node


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps ``reduce`` of some of its nodes, taken before a later layer can change them in place."""

    def __init__(self, module: fx.GraphModule, wanted: frozenset[str], reduce: Reduce) -> None:
        super().__init__(module)
        self.wanted, self.reduce = wanted, reduce
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The value of the node."""
        value = super().run_node(n)
        if n.name in self.wanted:
            self.kept[n.name] = self.reduce(value).cpu()
        return value


def _run(model: nn.Module, points: Mapping[str, fx.Node], x: Tensor, reduce: Reduce) -> dict[str, Tensor]:
    """``reduce`` at each of ``points``, for all samples, without gradients."""
    if not points:
        return {}
    graph = next(iter(points.values())).graph
    module = fx.GraphModule(model, graph)
    wanted = frozenset(node.name for node in points.values())
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in torch.split(x, BATCH):
            recorder = _Recorder(module, wanted, reduce)
            recorder.run(batch.to(device))
            for name, part in recorder.kept.items():
                parts[name].append(part)
    return {key: torch.cat(parts[node.name]) for key, node in points.items()}
