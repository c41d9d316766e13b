"""What an attack stage saw while it ran again on some survivors: its loss and the size of its gradients, step by step.

The gradients are those that the attack itself takes, whatever its loss; the loss is one of its family, computed from
the logits it was shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, nan

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pytest_prunerob.adequacy.check import FLAT, ZERO_GRADIENT

Loss = Callable[[Tensor, Tensor], Tensor]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of the best other class minus that of the label (N,): above zero where the sample is broken."""
    z = logits.double()
    label = z.gather(1, y[:, None]).squeeze(1)
    others = z.scatter(1, y[:, None], -inf)
    return others.amax(1) - label


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (N,), Croce & Hein 2020, Eq. 6: the margin over the spread of the best three."""
    ranked = logits.double().sort(dim=1, descending=True).values
    spread = ranked[:, 0] - ranked[:, min(2, ranked.shape[1] - 1)]
    return margin(logits, y) / (spread + 1e-12)


def ce(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy (N,), in the precision of the logits, since that is where it saturates."""
    return cross_entropy(logits, y, reduction="none").double()


LOSSES: dict[str, Loss] = {"ce": ce, "dlr": dlr, "margin": margin}


@dataclass
class Step:
    """One forward of the attack: loss and gradient norm of each row, which rows count, and the sample of each row."""

    run: int
    rows: Tensor | None
    live: Tensor | None
    loss: Tensor | None
    gradient: Tensor | None = None

    def seen(self, gradient: Tensor) -> None:
        """Keep the largest L2 norm: some attacks take a gradient for each class."""
        norm = gradient.detach().flatten(1).double().norm(dim=1).cpu()
        norm = torch.where(gradient.detach().flatten(1).isfinite().all(1).cpu(), norm, torch.full_like(norm, nan))
        self.gradient = norm if self.gradient is None else torch.maximum(self.gradient, norm)


@dataclass
class Watch:
    """Told of every forward of an attack on samples with labels ``y`` (N,); ``loss`` names the family of its loss.

    ``towards`` says that ``y`` are classes to move to, whose loss the attack lowers: it counts with the other sign.
    ``mean_of`` is the number of forwards that each step of the attack takes the mean of.
    """

    y: Tensor
    loss: str
    towards: bool = False
    mean_of: int = 1
    steps: list[Step] = field(default_factory=list)
    _rows: Tensor | None = None

    def __call__(self, z: Tensor, logits: Tensor, rows: Tensor | None, live: Tensor | None) -> None:
        """Record one forward."""
        loss = None
        if rows is not None and self.loss in LOSSES:
            with torch.no_grad():
                loss = LOSSES[self.loss](logits.detach(), self.y[rows]).cpu() * (-1 if self.towards else 1)
        run = self.steps[-1].run if self.steps else 0
        if self.steps and rows is not self._rows:
            run += 1
        self._rows = rows
        step = Step(run, _kept(rows), _kept(live), loss)
        self.steps.append(step)
        if z.requires_grad and torch.is_grad_enabled():
            z.register_hook(step.seen)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Trace:
    """A stage's run on ``n`` samples, sample by sample.

    ``clean``, ``first`` and ``last`` are the gradient norms at the sample itself and at the first and the last point
    where the attack took one (0 where it took none), ``span`` is how far its loss moved relative to its size, ``late``
    the share of what it gained that came in the last quarter of the steps; NaN where a loss or a gradient was not
    finite. Where an attack keeps no positions, ``pooled`` are all gradient norms instead.
    """

    n: int
    clean: Tensor
    first: Tensor
    last: Tensor
    span: Tensor
    late: Tensor
    evaluations: int
    pooled: Tensor

    def zero(self, among: Tensor) -> int:
        """How many of the samples ``among`` had no gradient at the sample itself, at the start or at the end."""
        if len(self.pooled):
            return round(float((self.pooled < ZERO_GRADIENT).double().mean()) * int(among.sum()))
        ends = torch.stack([self.clean, self.first, self.last])
        return int((ends.amin(0) < ZERO_GRADIENT)[among].sum())

    def flat(self, among: Tensor) -> int:
        """How many of the samples ``among`` had a loss that did not move."""
        return int((self.span <= FLAT)[among].sum())

    def bad(self, among: Tensor) -> int:
        """How many of the samples ``among`` had a loss or a gradient that is not finite."""
        wrong = self.first.isnan() | self.last.isnan() | self.span.isnan()
        return int(wrong[among].sum()) + int(self.pooled.isnan().sum())


def at_clean(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, loss: str) -> Tensor:
    """L2 norms (N,) of the gradients of ``loss`` at the samples ``x``: (N, C, H, W)."""
    z = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        total = LOSSES[loss](network(z), y).sum()
        (gradient,) = torch.autograd.grad(total, z, allow_unused=True)
    found: Tensor = torch.zeros_like(x) if gradient is None else gradient
    norms: Tensor = torch.linalg.vector_norm(found.flatten(1).double(), dim=1)
    return norms.cpu()


def trace(watch: Watch, n: int, clean: Tensor | None = None) -> Trace:
    """Sum up what ``watch`` saw of ``n`` samples, with the gradient norms at the samples themselves.

    Of several runs and targets of a sample the best one counts.
    """
    first, last = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    span, late = torch.zeros(n, dtype=torch.float64), torch.full((n,), inf, dtype=torch.float64)
    pooled = [step.gradient for step in watch.steps if step.rows is None and step.gradient is not None]
    asked = sum(step.gradient is not None for step in watch.steps)
    for run in {step.run for step in watch.steps}:
        steps = [step for step in watch.steps if step.run == run and step.rows is not None]
        if not steps:
            continue
        rows = steps[0].rows
        assert rows is not None
        norms = [step.gradient for step in steps if step.gradient is not None]
        if norms:
            _best(first, rows, norms[0])
            _best(last, rows, norms[-1])
        losses = _means([step.loss for step in steps if step.loss is not None], watch.mean_of)
        if len(losses) > 1:
            curve = torch.stack(losses).cummax(0).values
            moved = torch.stack(losses).amax(0) - torch.stack(losses).amin(0)
            _best(span, rows, moved / torch.stack(losses).abs().amax(0).clamp(min=1.0))
            gained = curve[-1] - curve[0]
            share = (curve[-1] - curve[-1 - len(curve) // 4]) / gained.clamp(min=FLAT)
            _best(late, rows, share, min)
        elif losses:
            _best(span, rows, torch.where(losses[0].isfinite(), inf, nan))  # one step moves nothing to be seen
    clean = torch.full((n,), inf, dtype=torch.float64) if clean is None else clean
    return Trace(n, clean, first, last, span, late, asked, torch.cat(pooled) if pooled else torch.zeros(0))


def _means(losses: list[Tensor], of: int) -> list[Tensor]:
    """The means of ``of`` losses (N,) each, in their order; what is left over, where an attack ended early, is not."""
    return [torch.stack(losses[i : i + of]).mean(0) for i in range(0, len(losses) - of + 1, of)]


def _best(into: Tensor, rows: Tensor, values: Tensor, pick: Callable[[float, float], float] = max) -> None:
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        known = float(into[row])
        into[row] = nan if value != value or known != known else pick(known, value)


def _kept(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().cpu().clone()
