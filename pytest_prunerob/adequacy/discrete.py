"""Are the gradients those of the function? Quantised and binarised networks, straight-through and detached gradients.

A network of steps has no useful gradient; where a straight-through estimator puts another one in its place (Bengio et
al. 2013, arXiv:1308.3432), no gradient is zero and white-box attacks still miss what a black-box attack finds.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_prunerob.randomness import seeded
from pytest_prunerob.subjects import as_logits

__all__ = ["MISMATCH", "discrete", "gradient_mismatch"]

# Mismatch from which on the gradients are not those of the function. Ours: ordinary networks stay below 1e-3 in float64
# and below 0.05 in float32, sign networks with straight-through gradients are near 1.
MISMATCH = 0.1
# Probes compared. Ours: a backward and five forwards of each.
COMPARED = 16
# How far inputs are moved off the probes and off the box, in units of the box. Ours: images have flat regions, where
# the maximum of equal numbers has no gradient.
GENERIC = 0.01
# Steps of the differences by the precision of the forward. Ours: in float64 so small that no unit of a large network
# passes a step or a kink by chance; below it as small as rounding allows.
STEPS = {torch.float64: (1e-8, 1e-9), torch.float32: (1e-5, 1e-4), torch.float16: (1e-3, 1e-2)}
# A change of a logit below this many units of rounding of the largest logit is no change. Ours.
ROUNDING_ULPS = 1000


def discrete(module: nn.Module) -> str:
    """What in ``module`` says by its name that it computes in steps: quantised or fake-quantised parts; else empty."""
    found = []
    for part in module.modules():
        kind = type(part)
        if kind.__module__.startswith(
            ("torch.ao.", "torch.nn.quantized", "torch.nn.intrinsic.q", "torch.quantization")
        ):
            found.append(kind.__name__)
        elif isinstance(part, torch.fx.GraphModule):
            found += [str(node.target) for node in part.graph.nodes if _of_steps(str(node.target))]
    found += [str(tensor.dtype) for tensor in (*module.parameters(), *module.buffers()) if tensor.is_quantized]
    return ", ".join(dict.fromkeys(found))


def _of_steps(operator: str) -> bool:
    name = operator.removeprefix("aten.").partition(".")[0]
    return "quantize" in name or name in ("sign", "round", "sgn", "floor", "ceil", "trunc", "heaviside")


def gradient_mismatch(module: nn.Module, x: Tensor) -> float:
    """How far gradients are from the differences they stand for: 0 where they agree, 1 where they say nothing.

    On up to 16 of the probes ``x: (N, C, H, W) in [0, 1]``: the mean of |D − g| / (|D| + |g|), where g is autograd's
    derivative of a weighted sum of the logits along the sign of its gradient, and D the central difference along it.
    Computed in float64 on a copy of the module; on the module itself where it does not take float64, which sees fine
    steps less surely, and none that rounding to half precision would make too. Probes whose logits nothing moves are
    left out; the result is 0 where these are all.
    """
    x = x[:COMPARED].detach()
    try:
        return _mismatch(module, x)
    except torch.OutOfMemoryError:
        if len(x) == 1:
            raise
        return gradient_mismatch(module, x[: len(x) // 2])


def _mismatch(module: nn.Module, x: Tensor) -> float:
    doubled = _doubled(module, x)
    net, dtype = (module, x.dtype) if doubled is None else (doubled, torch.float64)
    precision = dtype if doubled is not None else _coarsest(module, x)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(x.shape, generator=generator).to(x) - 0.5
    z = (GENERIC + (1 - 2 * GENERIC) * x + GENERIC * noise).to(dtype)
    value, gradient = _derivative(net, z)
    coin = torch.randint(0, 2, z.shape, generator=generator).to(z) * 2 - 1
    direction = torch.where(gradient == 0, coin, gradient.sign())
    slope = (gradient * direction).flatten(1).sum(1)
    least = ROUNDING_ULPS * torch.finfo(dtype).eps * value.abs().amax().clamp(min=torch.finfo(dtype).tiny)
    found = []
    for step in STEPS[precision]:
        with torch.no_grad():
            ends = [_weighted(net, z + sign * step * direction) for sign in (1, -1)]
        difference = ((ends[0] - ends[1]) / (2 * step)).to(dtype)
        size = difference.abs() + slope.abs()
        moved = size * step > least
        share = torch.where(moved, (difference - slope).abs() / size, 0.0)
        if bool(moved.any()):
            found.append(float(share[moved].nan_to_num(1.0).mean()))
    return min(found, default=0.0)


def _derivative(net: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_(True)
    with torch.enable_grad():
        value = _weighted(net, z)
        (gradient,) = torch.autograd.grad(value.sum(), z, allow_unused=True) if value.requires_grad else (None,)
    return value.detach(), torch.zeros_like(z) if gradient is None else gradient


def _weighted(net: nn.Module, z: Tensor) -> Tensor:
    """A weighted sum of the logits of each sample: the plain sum of probabilities would not move.

    What the network draws is the same in every call, so that differences are those of the inputs.
    """
    with seeded(0):
        logits = as_logits(net(z), samples=len(z))
    return (logits * torch.linspace(1, 2, logits.shape[1], device=logits.device, dtype=logits.dtype)).sum(1)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the coarsest floating type that a forward computes in."""

    coarsest = torch.float64

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for value in (*args, out):
            wide = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0
            if wide and torch.finfo(value.dtype).eps > torch.finfo(self.coarsest).eps:
                self.coarsest = value.dtype
        return out


def _coarsest(module: nn.Module, x: Tensor) -> torch.dtype:
    watch = _Watch()  # type: ignore[no-untyped-call]
    with torch.no_grad(), watch:
        as_logits(module(x), samples=len(x))
    if x.is_cuda and watch.coarsest == torch.float32:
        return torch.float16  # TF32 has as few bits
    return watch.coarsest if watch.coarsest in (torch.float64, torch.float32) else torch.float16


def _doubled(module: nn.Module, x: Tensor) -> nn.Module | None:
    """A copy of ``module`` that computes in float64 from end to end, if it can be had."""
    try:
        double = copy.deepcopy(module).double()
        return double if _coarsest(double, x.double()) == torch.float64 else None
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever the module raises when it is asked for what it was not made for
        return None
