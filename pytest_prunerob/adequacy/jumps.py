"""Does the output jump? Networks that keep their largest activations, and other discontinuous ones.

Between its jumps such a network has the gradients of a smooth one, so that no comparison of gradients with differences
tells; gradient attacks still miss what lies behind a jump: k-winners-take-all (Xiao et al. 2020, arXiv:1905.10510) was
broken by another attack (Tramèr et al. 2020, arXiv:2002.08347, Sec. 5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pytest_prunerob.adequacy.discrete import ROUNDING_ULPS, _coarsest, _doubled
from pytest_prunerob.randomness import seeded
from pytest_prunerob.subjects import as_logits

__all__ = ["JUMP", "jump"]

# A change within one step that is this share of all the change on the way is a jump. Ours: with 30 halvings continuous
# networks stay below 1e-10 in float64; networks that keep half of their activations show 1e-3 and more.
JUMP = 1e-4
# Probes compared, and equal parts of the way to each. Ours.
COMPARED = 16
PARTS = 16
# Halvings of the part that bends most, by the precision of the forward. Ours: as far as rounding leaves differences.
HALVINGS = {torch.float64: 30, torch.float32: 14}


def jump(module: nn.Module, x: Tensor, far: Tensor) -> float:
    """The largest jump of the logits between ``x`` and ``far: (N, C, H, W)``, as a share of all their change there.

    The part of the straight way to each of up to 16 inputs on which the logits bend most is halved, and again the half
    on which they change more: a continuous function changes by ever less, a jump stays as large as it is. What changes
    by less than ``JUMP`` is left. Computed in float64 on a copy of the module; on the module itself where it does not
    take float64, and not at all (0) where it computes in less than float32, whose rounding is one of steps.
    """
    x, far = x[:COMPARED].detach(), far[:COMPARED].detach()
    try:
        return _jump(module, x, far)
    except torch.OutOfMemoryError:
        if len(x) == 1:
            raise
        half = len(x) // 2
        return jump(module, x[:half], far[:half])


def _jump(module: nn.Module, x: Tensor, far: Tensor) -> float:
    doubled = _doubled(module, x)
    net, dtype = (module, x.dtype) if doubled is None else (doubled, torch.float64)
    if doubled is None and _coarsest(module, x) not in HALVINGS:
        return 0.0
    start, way = x.to(dtype), (far - x).to(dtype)

    def at(rows: Tensor, shares: Tensor) -> Tensor:
        with torch.no_grad(), seeded(0):
            z = start[rows] + shares.view(-1, *[1] * (x.ndim - 1)) * way[rows]
            return as_logits(net(z), samples=len(z)).double()

    everyone = torch.arange(len(x), device=x.device)
    shares = torch.linspace(0, 1, PARTS + 1, dtype=dtype, device=x.device)
    values = torch.stack([at(everyone, share.expand(len(x))) for share in shares])
    changes = values.diff(dim=0)
    whole = changes.norm(dim=2).sum(0)
    bends = changes.diff(dim=0).norm(dim=2)
    bent = torch.zeros_like(changes[:, :, 0])
    bent[1:] += bends
    bent[:-1] += bends
    part = bent.argmax(0)
    low, high = shares[part], shares[part + 1]
    below, above = values[part, everyone], values[part + 1, everyone]
    # A change that rounding explains is none.
    least = ROUNDING_ULPS * torch.finfo(dtype).eps * values.abs().amax()
    rows = everyone
    for _ in range(HALVINGS[dtype]):
        change = (above - below).norm(dim=1)
        going = (change > JUMP * whole[rows]) & (change > least)
        if not bool(going.any()):
            return 0.0
        rows, low, high, below, above = (value[going] for value in (rows, low, high, below, above))
        middle = (low + high) / 2
        value = at(rows, middle)
        first = (value - below).norm(dim=1) >= (above - value).norm(dim=1)
        low, high = torch.where(first, low, middle), torch.where(first, middle, high)
        below, above = (torch.where(first[:, None], one, other) for one, other in ((below, value), (value, above)))
    change = (above - below).norm(dim=1)
    share = torch.where(change > least, change / whole[rows], 0.0)
    return float(share.max().nan_to_num(0.0))
