"""What is zero in a network is taken out of it for good: the same logits, fewer operations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from pytest_prunerob.compression.channels import Element, Layer, elements, without_channels
from pytest_prunerob.compression.identities import idle, without_blocks
from pytest_prunerob.compression.structure import Structure
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import reparametrised
from pytest_prunerob.subjects import Model

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]
TOLERANCE = 1e-5  # of the largest logit; what is removed is exactly zero, so only the order of sums differs
PROBES = 4  # inputs of the caller, and as many random ones of each kind (ours)
COMPARES = "gt lt ge le eq ne greater less greater_equal less_equal equal not_equal isclose sign sgn signbit heaviside"
RANKS = "argmax argmin sort argsort topk kthvalue median mode nanmedian unique histc searchsorted bucketize"
REPLACES = "where nan_to_num isnan isfinite isinf nansum nanmean fmax fmin long int short bool item nonzero"
DECIDES = frozenset(f"{COMPARES} {RANKS} {REPLACES}".split())


def shrink(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy of ``model`` in eval mode without what is zero in it, with the same logits.

    Channels go that are exactly zero wherever they are read, whatever the input of the network, or that no weight
    reads: those of filters that were pruned with their bias and their batch normalisation, with all that depends on
    them (torch-pruning, extra ``structured``). A filter of zeros whose channel is a constant other than zero stays, and
    so does one that is added to a filter that is alive. At least one channel of every layer stays. Residual blocks
    whose branch is zero become ``nn.Identity`` if that is what they are; they are looked for in networks that torch.fx
    can trace.

    Args:
        model: a network with plain parameters, or a ``Model`` around one. It is left as it is.
        inputs: example inputs ``(N, C, H, W) in [0, 1]``, such as ``dataset.x[:1]``; the logits are compared on them
            and on random ones.

    Raises:
        CompressionError: without torch-pruning, for a network that it cannot follow, one with reparametrised weights,
            or if the logits were others.
    """
    return shrunk(model, inputs)[0]


def shrunk(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, Structure]:
    """What :func:`shrink` returns, and what it took out: first the blocks, then the channels of what is left."""
    computed = reparametrised(model)
    if computed:
        raise CompressionError(
            f"{type(model).__name__} computes the weight of {computed!r} from other tensors: make it plain before it "
            "is shrunk, such as by torch.nn.utils.prune.remove"
        )
    if inputs.ndim < 2 or len(inputs) == 0:
        raise CompressionError(f"shrink needs example inputs (N, C, H, W), received the shape {tuple(inputs.shape)}")
    whole = copy.deepcopy(model).eval()
    probes = _probes(whole, inputs)
    wanted = _logits(whole, probes)
    shape = tuple(inputs.shape[1:])
    gone = _idle(whole)
    narrow = without_blocks(whole, gone)
    channels = _removable(narrow, elements(narrow, inputs=shape), shape)  # type: ignore[arg-type]
    if channels:
        narrow = without_channels(narrow, channels, inputs=shape)  # type: ignore[arg-type]
    found = _logits(narrow, probes)
    if not _same(found, wanted):  # by rounding? Not in float64, which is slow
        exact = [copy.deepcopy(one).double() for one in (narrow, whole)]
        found, wanted = (_logits(one, probes.double()) for one in exact)
    if not _same(found, wanted):
        raise CompressionError(
            f"{type(model).__name__} without what is zero in it has other logits, off by "
            f"{float((found - wanted).abs().max()):.3g}: keep the masked network"
        )
    return narrow, Structure(channels, gone)


def _idle(model: nn.Module) -> tuple[str, ...]:
    """The residual blocks to replace, none where torch.fx cannot see them; of a ``Model`` those of its network."""
    with suppress(CompressionError):
        if isinstance(model, Model):
            return tuple(f"module.{name}" for name in idle(model.module))
        return idle(model)
    return ()


def _removable(
    model: nn.Module, groups: Sequence[Sequence[Element]], shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """By layer the output channels that no layer needs; one stays where all could go."""
    unused = _unused_inputs(model, shape)
    going = [
        element
        for group in groups
        for element in group
        if element.reads
        and all(name in unused and bool(unused[name][list(own)].all()) for name, own in element.reads.items())
    ]
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    gone: dict[str, set[int]] = {}
    for element in going:
        left = (_width(layers[name]) - len(gone.get(name, set()) | set(own)) for name, own in element.writes.items())
        if all(rest > 0 for rest in left):
            for name, own in element.writes.items():
                gone.setdefault(name, set()).update(own)
    return {name: tuple(sorted(own)) for name, own in gone.items()}


def _width(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _unused_inputs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """By layer which input channels are zero for every input of the network, or meet weights of zero alone: bool (I,).

    The network is run on NaN, which stands for "may be anything": it survives every operation, except that a layer does
    not pass it on through weights that are zero. So what comes out as a number is the same for every input.
    """
    unused: dict[str, Tensor] = {}
    names = {module: name for name, module in model.named_modules()}

    @_undecided
    def layer(module: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(module, Layer)
        dim = 1 if isinstance(module, _ConvNd) else -1
        x, read = args[0], _reading(module)
        channels = x.detach().movedim(dim, 0).flatten(1)
        free = (channels == 0).all(dim=1) | ~read.any(dim=0)
        unused[names[module]] = free & unused.get(names[module], torch.ones_like(free))
        open_ = (read & channels.isnan().any(dim=1)).any(dim=1)
        out: Tensor = module.forward(x.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf))
        return out.movedim(dim, -1).masked_fill(open_, torch.nan).movedim(-1, dim)

    @_undecided
    def norm(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> Tensor:
        assert isinstance(module, _BatchNorm)
        if not module.affine:
            return out
        return torch.where(module.weight == 0, module.bias, out.movedim(1, -1)).movedim(-1, 1)

    with torch.no_grad(), _hooked(model, layer, norm), _Decisions(model):
        model(torch.full((1, *shape), torch.nan, device=next(model.parameters()).device))
    return unused


class _Decisions(TorchFunctionMode):
    """Refuses the functions that make a number of NaN within this context: comparisons, ranks, whole numbers.

    Behind one of them a number no longer means that it is the same for every input.
    """

    own = False  # whether a hook of ours is running

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` unless it decides by numbers."""
        name = str(getattr(func, "__name__", "")).strip("_")
        if not _Decisions.own and name in DECIDES:
            raise CompressionError(
                f"shrink follows what is zero for every input, and {type(self.model).__name__} decides by its numbers "
                f"({name}); allowed are networks without comparisons, such as those of this package"
            )
        return func(*args, **(kwargs or {}))


def _undecided(hook: Hook) -> Hook:
    """``hook`` may compare: it knows what NaN means."""

    @wraps(hook)
    def quiet(*args: Any) -> Tensor:
        _Decisions.own = True
        try:
            return hook(*args)
        finally:
            _Decisions.own = False

    return quiet


def _reading(layer: Layer) -> Tensor:
    """Which output channels have a weight for which input channels: bool (O, I)."""
    nonzero = layer.weight.detach() != 0
    if isinstance(layer, nn.Linear):
        return nonzero
    kernels = nonzero.flatten(2).any(dim=2).chunk(layer.groups)
    if isinstance(layer, _ConvTransposeNd):
        kernels = tuple(kernel.T for kernel in kernels)
    read: Tensor = torch.block_diag(*kernels)  # type: ignore[no-untyped-call]
    return read


@contextmanager
def _hooked(model: nn.Module, layer: Hook, norm: Hook) -> Iterator[None]:
    """Within this context ``layer`` replaces what convolutions and linear layers return, ``norm`` what batch norm does.

    Both are forward hooks.
    """
    hooks = [module.register_forward_hook(layer) for module in model.modules() if isinstance(module, Layer)]
    hooks += [module.register_forward_hook(norm) for module in model.modules() if isinstance(module, _BatchNorm)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _probes(model: nn.Module, inputs: Tensor) -> Tensor:
    """The first inputs of the caller and random ones of the same shape, on the device of ``model``."""
    drawn = torch.rand((PROBES, *inputs.shape[1:]), generator=torch.Generator().manual_seed(0))
    given = inputs[:PROBES].detach().to(drawn)
    # Dim and bright ones too, and the ends of the range.
    ends = torch.stack([torch.zeros_like(drawn[0]), torch.ones_like(drawn[0])])
    return torch.cat([given, drawn, drawn / 8, 1 - drawn / 8, ends]).to(next(model.parameters()))


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    """The logits (N, K) of ``x``."""
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor):
        raise CompressionError(
            f"{type(model).__name__} returns a {type(logits).__name__}: wrap it, Model(network, logits=...)"
        )
    return logits


def _same(found: Tensor, wanted: Tensor) -> bool:
    return float((found - wanted).abs().max()) <= TOLERANCE * float(wanted.abs().max())
