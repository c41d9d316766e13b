"""The witness oracle: the one module between an attack and a network, which alone decides what is broken.

An attack proposes inputs by forwarding them; the oracle verifies them on the subject itself. In mode *decide* (fixed ε)
a sample with a witness is not forwarded again; in mode *minimise* nothing is frozen and the smallest witness is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pytest_prunerob.errors import PrunerobError

# What lies further out than this is no rounding: L1 AutoAttack works at 3ε and 2ε on purpose (ours).
OVERSHOOT = 1.05
# Relative error of a sum of a million squares or moduli in float64, with room (ours).
SUMMATION = 1e-9


class Finished(BaseException):
    """Raised inside an attack when none of its samples needs another forward; no attack catches it."""


class PositionsLostError(PrunerobError):
    """An attack that says that it keeps the positions of its batch forwarded a batch of another length."""


@dataclass
class Meter:
    """Counts samples forwarded and samples whose gradient was taken."""

    forward: int = 0
    backward: int = 0


class Network:
    """The subject as attacks see it: logits of a batch, in chunks, counted.

    ``chunk`` is the largest number of samples forwarded at once; it is halved when memory runs out, and never changes
    which samples are forwarded. ``prepare(n)`` is called before n samples are forwarded.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        *,
        chunk: int,
        meter: Meter,
        prepare: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.module = module
        self.chunk = chunk
        self.meter = meter
        self.prepare = prepare

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x`` (N, C, H, W)."""
        while True:
            try:
                return self._forward(x)
            except torch.OutOfMemoryError:
                if self.chunk == 1 or len(x) == 1:
                    raise
                self.chunk = max(1, min(self.chunk, len(x)) // 2)
                torch.cuda.empty_cache()

    def _forward(self, x: Tensor) -> Tensor:
        if len(x) <= self.chunk:
            return self._counted(x)
        graph = torch.is_grad_enabled() and x.requires_grad
        parts = []
        for piece in torch.split(x, self.chunk):
            # Without recomputation the graphs of all chunks would be alive together, which is what did not fit.
            part = checkpoint(self._counted, piece, use_reentrant=False) if graph else self._counted(piece)
            parts.append(part)
        return torch.cat(parts)

    def _counted(self, x: Tensor) -> Tensor:
        self.prepare(len(x))
        self.meter.forward += len(x)
        logits = self.module(x)
        if logits.requires_grad:
            logits.register_hook(partial(self._count_backward, len(x)))  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, n: int, _: Tensor) -> None:
        self.meter.backward += n


@dataclass
class Call:
    """One run of an attack over ``rows`` (sample of each row), with what is frozen within this run.

    ``repeats`` is the number of times that the batch is stacked: in a run over several targets at once, a sample that
    breaks under one target needs none of the later ones.
    """

    rows: Tensor
    frozen: Tensor
    recorded: Tensor
    broken: Tensor
    repeats: int = 1


class Oracle:
    """Verifies what an attack proposes for one micro-batch.

    ``x``: (N, C, H, W) in [0, 1]; ``y``: (N,) labels the adversary moves away from; ``clean``: (N, K) clean logits;
    ``eps``: radius (``None`` in mode minimise). After the attack ``broken``, ``witness``, ``distance`` and ``errors``
    hold the outcome per sample.
    """

    def __init__(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        *,
        clean: Tensor,
        norm: str,
        eps: float | None,
        mode: Literal["decide", "minimise"],
    ) -> None:
        self.network = network
        self.x, self.y, self.clean = x, y, clean
        self.norm, self.eps, self.mode = norm, eps, mode
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.witness = x.clone()
        self.distance = torch.full((len(x),), float("inf"), dtype=torch.float64, device=x.device)
        self.errors: dict[int, str] = {}
        self._call: Call | None = None

    def survivors(self) -> Tensor:
        """Positions of the samples without witness and without error."""
        alive = ~self.broken
        alive[list(self.errors)] = False
        return alive.nonzero().squeeze(1)

    @contextmanager
    def call(self, rows: Tensor, repeats: int = 1, frozen: Tensor | None = None) -> Iterator[Call]:
        """Within this context row i of every forward is sample ``rows[i]``; ends early when all rows are frozen.

        ``frozen`` rows only keep their place: an attack that draws for the whole batch draws the same for the others.
        """
        rows = rows.repeat(repeats)
        nothing = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        done = nothing.clone() if frozen is None else frozen.repeat(repeats)
        self._call = Call(rows, done, self.clean[rows].clone(), nothing, repeats)
        try:
            yield self._call
        except Finished:
            pass
        finally:
            self._call = None

    def __call__(self, z: Tensor) -> Tensor:
        """Logits of ``z``; outside of :meth:`call` they are passed through and nothing is judged."""
        call = self._call
        if call is None:
            return self.network(z)
        if len(z) != len(call.rows):
            raise PositionsLostError(f"the attack forwarded {len(z)} inputs for {len(call.rows)} samples")
        if self.mode == "minimise":
            logits = self.network(z)
            self._judge(z.detach(), logits.detach(), call.rows)
            return logits
        live = (~call.frozen).nonzero().squeeze(1)
        if len(live) == 0:
            raise Finished
        if len(live) == len(z):
            logits = self.network(z)
            part, shown = logits, logits
        else:
            part = self.network(z[live])
            # Frozen rows are answered with what broke them, so that the attack counts them as done.
            shown = call.recorded.index_copy(0, live, part)
        self._freeze(call, live, z.detach()[live], part.detach())
        return shown

    def submit(self, z: Tensor, rows: Tensor) -> Tensor:
        """Judge inputs that an attack returned for the samples ``rows``; returns which of them are witnesses."""
        with torch.no_grad():
            return self._judge(z, self.network(z), rows)

    def fail(self, reason: str) -> None:
        """Record ``reason`` as the error of every sample that has no witness."""
        for position in self.survivors().tolist():
            self.errors[position] = reason

    def _freeze(self, call: Call, live: Tensor, z: Tensor, logits: Tensor) -> None:
        hit = self._judge(z, logits, call.rows[live])
        failed = ~logits.isfinite().all(1)
        if not bool((hit | failed).any()):
            return
        done = live[hit | failed]
        call.frozen[done] = True
        call.broken[live[hit]] = True
        call.recorded[live[hit]] = logits[hit]
        if call.repeats > 1:
            # Only later targets: whether an earlier one breaks the sample too decides which random draws are valid.
            grid = call.frozen.view(call.repeats, -1)
            grid |= call.broken.view(call.repeats, -1).cumsum(0) > 0

    def _judge(self, z: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        finite = logits.isfinite().all(1)
        if not bool(finite.all()):
            for position in rows[~finite].tolist():
                if not self.broken[position]:
                    self.errors.setdefault(position, "the output is not finite inside the ball")
        wrong = (logits.argmax(1) != self.y[rows]) & finite
        if not bool(wrong.any()):
            return wrong
        places = wrong.nonzero().squeeze(1)
        verified = self._verify(z[places], rows[places])
        hit = torch.zeros_like(wrong)
        hit[places[verified]] = True
        return hit

    def _verify(self, z: Tensor, rows: Tensor) -> Tensor:
        """Which of the misclassified ``z`` are witnesses; what overshoots is projected and forwarded once more."""
        x = self.x[rows]
        distance = distances(x, z, self.norm)
        inside = z.isfinite().flatten(1).all(1) & (z.flatten(1).amin(1) >= 0) & (z.flatten(1).amax(1) <= 1)
        near = torch.ones_like(inside)
        if self.eps is not None:
            inside &= distance <= self.eps
            near = distance <= self.eps * OVERSHOOT
        good = inside.clone()
        outside = (~inside & near).nonzero().squeeze(1)
        if len(outside):
            copy = projected(x[outside], z[outside], self.norm, self.eps)
            with torch.no_grad():
                logits = self.network(copy)
            again = distances(x[outside], copy, self.norm)
            holds = (logits.argmax(1) != self.y[rows[outside]]) & logits.isfinite().all(1)
            if self.eps is not None:
                holds &= again <= self.eps
            z, distance = z.clone(), distance.clone()
            z[outside], distance[outside], good[outside] = copy, again, holds
        places = good.nonzero().squeeze(1)
        self._record(z[places], rows[places], distance[places])
        return good

    def _record(self, z: Tensor, rows: Tensor, distance: Tensor) -> Tensor:
        best: dict[int, tuple[float, int]] = {}  # rows may name a sample several times: its smallest distance stays
        for place, (position, length) in enumerate(zip(rows.tolist(), distance.tolist(), strict=True)):
            best[position] = min(best.get(position, (length, place)), (length, place))
        places = torch.tensor([place for _, place in best.values()], dtype=torch.long, device=rows.device)
        places = places[distance[places] < self.distance[rows[places]]]
        self.distance[rows[places]] = distance[places]
        self.witness[rows[places]] = z[places]
        self.broken[rows] = True
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)


def distances(x: Tensor, z: Tensor, norm: str) -> Tensor:
    """Distances (N,) between ``x`` and ``z`` (N, C, H, W), in float64 so that no rounding hides an overshoot."""
    delta = (z.double() - x.double()).flatten(1)
    if norm == "linf":
        return delta.abs().amax(1)
    if norm == "l2":
        return delta.square().sum(1).sqrt()
    if norm == "l1":
        return delta.abs().sum(1)
    return (delta != 0).sum(1).double()


def projected(x: Tensor, z: Tensor, norm: str, eps: float | None) -> Tensor:
    """A copy of ``z`` inside the ball of radius ``eps`` around ``x`` and the box, in the precision of ``x``.

    Computed in float64: for Linf the nearest point, for L1 and L2 the clipped perturbation shortened to ε; what
    rounding to the precision of the input moves outwards is moved back by one unit in the last place.
    """
    base, target = x.double(), z.double().nan_to_num(0.0).clamp(0, 1)
    if eps is None:
        return target.to(x.dtype)
    if norm == "linf":
        goal = target.clamp((base - eps).clamp(min=0), (base + eps).clamp(max=1))
    else:
        length = distances(x, target, norm).view(-1, *[1] * (x.ndim - 1))
        shorter = base + (target - base) * (eps / length.clamp(min=eps) * (1 - SUMMATION))
        goal = torch.where(length > eps, shorter, target)
    copy = goal.to(x.dtype)
    outwards = (copy.double() - base).abs() > (goal - base).abs()
    return torch.where(outwards, torch.nextafter(copy, x), copy)
