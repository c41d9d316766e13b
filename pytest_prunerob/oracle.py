"""The witness oracle: the one module between an attack and a network, which alone decides what is broken.

An attack proposes inputs by forwarding them; the oracle verifies them on the subject itself. In mode *decide* (fixed ε)
a sample with a witness is not forwarded again; in mode *minimise* nothing is frozen and the smallest witness is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pytest_prunerob.errors import ModelError, PrunerobError

# What lies further out than this is no rounding: L1 AutoAttack works at 3ε and 2ε on purpose (ours).
OVERSHOOT = 1.05
# Relative error of a sum of a million squares or moduli in float64, with room (ours).
SUMMATION = 1e-9
NOT_FINITE = "the output is not finite inside the ball"
# Only the attack was there; but an attack that is shown NaN goes no further, so the sample did not survive it.
NOT_FINITE_OUTSIDE = "the output is not finite at an input outside the ball that the attack went through"


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
        return self._computed(self.module, x)

    def exits(self, x: Tensor) -> Tensor:
        """Logits (N, E, K) of all E exits for ``x`` (N, C, H, W), counted as one pass of each sample.

        Raises:
            ModelError: where the network has no exits, or what they give cannot be stacked.
        """
        return self._computed(partial(_stacked, exits_of(self.module)), x)

    def _computed(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        while True:
            try:
                return self._forward(function, x)
            except torch.OutOfMemoryError:
                if self.chunk == 1 or len(x) == 1:
                    raise
                self.chunk = max(1, min(self.chunk, len(x)) // 2)
                torch.cuda.empty_cache()

    def _forward(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        counted = partial(self._counted, function)
        if len(x) <= self.chunk:
            return counted(x)
        graph = torch.is_grad_enabled() and x.requires_grad
        parts = []
        for piece in torch.split(x, self.chunk):
            # Without recomputation the graphs of all chunks would be alive together, which is what did not fit.
            part = checkpoint(counted, piece, use_reentrant=False) if graph else counted(piece)
            parts.append(part)
        return torch.cat(parts)

    def _counted(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        self.prepare(len(x))
        self.meter.forward += len(x)
        logits = function(x)
        if logits.requires_grad:
            logits.register_hook(partial(self._count_backward, len(x)))  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, n: int, _: Tensor) -> None:
        self.meter.backward += n


def exits_of(module: object) -> Callable[[Tensor], Sequence[Tensor]]:
    """The method ``exits(x)`` of ``module``, which gives the logits (N, K) of each of its exits.

    Raises:
        ModelError: where it has none.
    """
    found = getattr(module, "exits", None)
    if not callable(found) or isinstance(found, nn.Module):
        has = "no method exits(x)" if found is None else f"no method exits(x) (its attribute exits is a {_kind(found)})"
        raise ModelError(f"the model has {has}: an attack on several exits needs one that returns the logits of each")
    method: Callable[[Tensor], Sequence[Tensor]] = found
    return method


def _kind(value: object) -> str:
    return type(value).__name__


def _stacked(exits: Callable[[Tensor], Sequence[Tensor]], x: Tensor) -> Tensor:
    given = list(exits(x))
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else _kind(part) for part in given]
    if not given or len(set(shapes)) > 1 or not isinstance(given[0], Tensor) or given[0].shape[:-1] != x.shape[:1]:
        raise ModelError(f"exits(x) gives {shapes}: it must give logits (N, K) with N = {len(x)} for each exit")
    return torch.stack(given, dim=1)


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


# Told of a forward: inputs, logits, and where positions are kept the sample of each row and which rows are not frozen.
Watch = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], None]


class Oracle:
    """Verifies what an attack proposes for one micro-batch.

    ``x``: (N, C, H, W) in [0, 1]; ``y``: (N,) labels the adversary moves away from; ``clean``: (N, K) clean logits;
    ``eps``: radius (``None`` in mode minimise). After the attack ``broken``, ``witness``, ``distance`` and ``errors``
    hold the outcome per sample. ``watch`` is told of every forward of the attack. With ``target`` (N,) a witness is an
    input of that class, without it one of any other class than ``y``.
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
        watch: Watch | None = None,
        target: Tensor | None = None,
    ) -> None:
        self.network = network
        self.watch = watch
        self.target = target
        self.x, self.y, self.clean = x, y, clean
        self.norm, self.eps, self.mode = norm, eps, mode
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.witness = x.clone()
        self.distance = torch.full((len(x),), float("inf"), dtype=torch.float64, device=x.device)
        self.errors: dict[int, str] = {}
        self._silent = torch.full_like(self.distance, float("inf"))  # how near an output is not finite
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
        if self.watch is None:
            return self._answer(z)
        call = self._call
        rows, live = (None, None) if call is None else (call.rows, ~call.frozen)
        logits = self._answer(z)
        self.watch(z, logits, rows, live)
        return logits

    def _answer(self, z: Tensor) -> Tensor:
        call = self._call
        if call is None:
            logits = self.network(z)
            self._overhear(z.detach(), logits.detach())
            return logits
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

    def exits(self, z: Tensor) -> Tensor:
        """Logits (N, E, K) of all exits for ``z``, for attacks on networks with several; they break nothing.

        What counts is the output that :meth:`__call__` judges. Within :meth:`call` frozen rows are not forwarded (their
        logits are 0, without a gradient), and a row whose exits are not finite is frozen with that error.
        """
        call = self._call
        if call is None:
            return self.network.exits(z)
        if len(z) != len(call.rows):
            raise PositionsLostError(f"the attack forwarded {len(z)} inputs for {len(call.rows)} samples")
        live = (~call.frozen).nonzero().squeeze(1)
        if len(live) == 0:
            raise Finished
        part = self.network.exits(z[live])
        failed = ~part.detach().isfinite().flatten(1).all(1)
        if bool(failed.any()):
            self._note(z.detach()[live[failed]], call.rows[live[failed]])
            call.frozen[live[failed]] = True
        return part.new_zeros(len(z), *part.shape[1:]).index_copy(0, live, part)

    def submit(self, z: Tensor, rows: Tensor) -> Tensor:
        """Judge inputs that an attack returned for the samples ``rows``; returns which of them are witnesses."""
        with torch.no_grad():
            return self._judge(z, self.network(z), rows)

    def undecided(self) -> dict[int, str]:
        """Why samples have no outcome: an error and no witness, or (mode minimise) a missing output nearer than it."""
        return {
            position: reason
            for position, reason in self.errors.items()
            if not self.broken[position] or (self.eps is None and self._silent[position] < self.distance[position])
        }

    def exclude(self, positions: Tensor, reason: str) -> None:
        """Record ``reason`` as the error of samples that no input can decide."""
        self._silent[positions] = 0
        self.errors.update(dict.fromkeys(positions.tolist(), reason))

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
            self._note(z[~finite], rows[~finite])
        wrong = self._reached(logits, rows) & finite
        if not bool(wrong.any()):
            return wrong
        places = wrong.nonzero().squeeze(1)
        verified = self._verify(z[places], rows[places])
        hit = torch.zeros_like(wrong)
        hit[places[verified]] = True
        return hit

    def _verify(self, z: Tensor, rows: Tensor) -> Tensor:
        """Which of the misclassified ``z`` are witnesses; what overshoots is projected and forwarded once more."""
        distance, inside = self._placed(z, rows)
        near = torch.ones_like(inside) if self.eps is None else distance <= self.eps * OVERSHOOT
        good = inside.clone()
        outside = (~inside & near).nonzero().squeeze(1)
        if len(outside):
            copy, again, holds, finite = self._moved_inside(z[outside], rows[outside])
            z, distance = z.clone(), distance.clone()
            z[outside], distance[outside], good[outside] = copy, again, holds
            self._mark(rows[outside][~finite], again[~finite])
        places = good.nonzero().squeeze(1)
        self._record(z[places], rows[places], distance[places])
        return good

    def _placed(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of ``z`` from its samples, and which of ``z`` are inside ball and box."""
        distance = distances(self.x[rows], z, self.norm)
        inside = z.isfinite().flatten(1).all(1) & (z.flatten(1).amin(1) >= 0) & (z.flatten(1).amax(1) <= 1)
        return distance, inside if self.eps is None else inside & (distance <= self.eps)

    def _moved_inside(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Projected copies of ``z``, their distances, which are misclassified inside, which have a finite output."""
        copy = projected(self.x[rows], z, self.norm, self.eps)
        with torch.no_grad():
            logits = self.network(copy)
        again, inside = self._placed(copy, rows)
        finite = logits.isfinite().all(1)
        return copy, again, self._reached(logits, rows) & finite & inside, finite

    def _reached(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Whether the adversary's goal is reached."""
        if self.target is None:
            return logits.argmax(1) != self.y[rows]
        return (logits.argmax(1) == self.target[rows]) & (self.target[rows] != self.y[rows])

    def _note(self, z: Tensor, rows: Tensor) -> None:
        """Note inputs without a finite output; those outside the threat model are looked at where they project to."""
        distance, inside = self._placed(z, rows)
        self._mark(rows[inside], distance[inside])
        outside = (~inside).nonzero().squeeze(1)
        if not len(outside):
            return
        copy, again, holds, finite = self._moved_inside(z[outside], rows[outside])
        rows = rows[outside]
        self._mark(rows[~finite], again[~finite])
        self._record(copy[holds], rows[holds], again[holds])
        for position in rows[finite & ~holds].tolist():
            self.errors.setdefault(position, NOT_FINITE_OUTSIDE)

    def _mark(self, rows: Tensor, distance: Tensor) -> None:
        for position, length in zip(rows.tolist(), distance.tolist(), strict=True):
            if self.errors.get(position, NOT_FINITE_OUTSIDE) == NOT_FINITE_OUTSIDE:
                self.errors[position] = NOT_FINITE
            self._silent[position] = min(float(self._silent[position]), length)

    def _overhear(self, z: Tensor, logits: Tensor) -> None:
        """Find the samples of inputs without a finite output, where an attack does not say which row is which."""
        silent = ~logits.isfinite().all(1) & z.isfinite().flatten(1).all(1)
        if not bool(silent.any()) or not len(self.survivors()):
            return
        everywhere = torch.arange(len(self.x), device=z.device)
        for row in z[silent]:
            distance, inside = self._placed(row.expand_as(self.x), everywhere)
            places = inside.nonzero().squeeze(1)
            self._mark(places, distance[places])
            if not len(places):
                self.errors.setdefault(int(distance.argmin()), NOT_FINITE_OUTSIDE)

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
    if norm in ("linf", "none"):  # corruptions have no norm: how far the farthest pixel moved
        return delta.abs().amax(1)
    if norm == "l2":
        return delta.square().sum(1).sqrt()
    if norm == "l1":
        return delta.abs().sum(1)
    return (delta != 0).sum(1).double()


def projected(x: Tensor, z: Tensor, norm: str, eps: float | None) -> Tensor:
    """A copy of ``z`` inside the ball of radius ``eps`` around ``x`` and the box, in the precision of ``x``.

    Computed in float64: for Linf the nearest point, for L1 and L2 the clipped perturbation shortened to ε, for L0 its
    largest changes; without an ε only the box counts. What
    rounding to the precision of the input moves outwards is moved back by one unit in the last place.
    """
    base, target = x.double(), z.double().nan_to_num(0.0).clamp(0, 1)
    if eps is None:
        return target.to(x.dtype)
    if norm == "l0":
        kept = (target - base).abs().flatten(1).argsort(dim=1, descending=True)[:, : int(eps)]
        mask = torch.zeros_like(base.flatten(1)).scatter_(1, kept, 1.0).view_as(base)
        goal = torch.where(mask > 0, target, base)
    elif norm == "linf":
        goal = target.clamp((base - eps).clamp(min=0), (base + eps).clamp(max=1))
    else:
        length = distances(x, target, norm).view(-1, *[1] * (x.ndim - 1))
        shorter = base + (target - base) * (eps / length.clamp(min=eps) * (1 - SUMMATION))
        goal = torch.where(length > eps, shorter, target)
    copy = goal.to(x.dtype)
    outwards = (copy.double() - base).abs() > (goal - base).abs()
    return torch.where(outwards, torch.nextafter(copy, x), copy)
