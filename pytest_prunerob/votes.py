"""What a randomised subject makes of an input, judged by votes: repeated forwards with fresh draws.

One forward of such a subject that is wrong is no witness, and one that is right is no survival. An input is *broken*
where the subject gets it wrong more often than not, it *holds* where it gets it right more often than not; both are
called by the exact binomial test, and in between nothing is called. So neither a verdict that leans on survival nor one
that leans on breaks rests on a draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb
from typing import Any

import torch
from torch import Tensor

from pytest_prunerob.oracle import NOT_FINITE, PositionsLostError, Watch, distances, projected
from pytest_prunerob.randomness import seeded

# Forwards after which an input may be called; what is not clear yet gets the rest of the next number (ours). Sixteen
# settle what always or never breaks, 512 all whose share of wrong forwards is outside of 42 to 58 %.
LOOKS = (16, 64, 512)
# Chance to call an input broken that breaks in at most half of all forwards, and the same for one that holds: that of
# randomised smoothing (Cohen et al. 2019, arXiv:1902.02918, Section 5). The looks share it (Bonferroni).
ERROR = Fraction(1, 1000)
# Inputs that an attack proposes for a sample in each of its runs: the last one that was wrong once, the best one.
CANDIDATES = 2

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ballot:
    """The votes on N inputs: ``wrong`` of ``forwards`` (N,) misclassify; ``finite`` (N,): all outputs were numbers."""

    wrong: Tensor
    forwards: Tensor
    finite: Tensor

    @property
    def broken(self) -> Tensor:
        """Which inputs are misclassified more often than not (N,)."""
        return (self.wrong >= _fewest(self.forwards)) & self.finite

    @property
    def holds(self) -> Tensor:
        """Which inputs are classified correctly more often than not (N,)."""
        return (self.forwards - self.wrong >= _fewest(self.forwards)) & self.finite

    def reason(self, place: int) -> str:
        """Why input number ``place`` is neither."""
        if not bool(self.finite[place]):
            return "the output is not finite in one of its forwards"
        many = int(self.forwards[place])
        return f"{int(self.wrong[place])} of {many} forwards misclassify it, which is too near to half of them to call"


def vote(forward: Forward, z: Tensor, y: Tensor, *, seed: int) -> Ballot:
    """The votes on the inputs ``z`` (N, C, H, W) with labels ``y`` (N,).

    The draws follow ``seed``, but are others than an attack under this seed makes.
    """
    wrong = torch.zeros(len(z), dtype=torch.long, device=z.device)
    forwards, finite = wrong.clone(), torch.ones_like(wrong, dtype=torch.bool)
    left, done = torch.arange(len(z), device=z.device), 0
    with seeded(_of_votes(seed)), torch.no_grad():
        for look in LOOKS:
            if not len(left):
                break
            for _ in range(look - done):
                logits = forward(z[left])
                finite[left] &= logits.isfinite().all(1)
                wrong[left] += (logits.argmax(1) != y[left]).long()
            forwards[left], done = look, look
            ballot = Ballot(wrong, forwards, finite)
            left = left[~(ballot.broken | ballot.holds | ~finite)[left]]
    return Ballot(wrong, forwards, finite)


def called(forward: Forward, z: Tensor, y: Tensor, classes: int, *, seed: int) -> Tensor:
    """The votes on ``z`` (N, C, H, W) in the place of logits (N, ``classes``), for readers of logits.

    That of the label ``y`` (N,) is the largest where an input holds and the smallest where it is broken; all are 0
    where votes call neither, and NaN where an output is not finite.
    """
    ballot = vote(forward, z, y, seed=seed)
    sides = torch.full((len(z), classes), -1.0).scatter(1, y[:, None], 1.0)
    found = torch.where(ballot.holds[:, None], sides, torch.where(ballot.broken[:, None], -sides, 0.0))
    return found.masked_fill(~ballot.finite[:, None], float("nan"))


def judges(plan: Mapping[str, Any]) -> bool:
    """Whether votes judge under the ``plan`` of a manifest (``plans.Plan.randomised``)."""
    return any("eot" in params for _, params in plan["stages"])


@cache
def fewest_votes(forwards: int) -> int:
    """How many of ``forwards`` votes show that more than half of all forwards would agree."""
    most, tail, votes = 2**forwards * ERROR / len(LOOKS), 0, forwards + 1
    while tail + comb(forwards, votes - 1) <= most:
        votes -= 1
        tail += comb(forwards, votes)
    return votes


def _fewest(forwards: Tensor) -> Tensor:
    needed = torch.full_like(forwards, torch.iinfo(forwards.dtype).max)
    for look in LOOKS:
        needed[forwards == look] = fewest_votes(look)
    return needed


def _of_votes(seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"votes {seed}".encode()).digest()[:7], "big")


class Jury:
    """Judges by votes what an attack proposes for one micro-batch; the attack itself sees the subject as it is.

    ``x``: (N, C, H, W) in [0, 1]; ``y``: (N,) labels; ``eps``: radius. After the attack ``broken``, ``witness``,
    ``distance`` and :meth:`undecided` hold the outcome per sample. ``watch`` is told of every forward of the attack.
    """

    def __init__(
        self, forward: Forward, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int, watch: Watch | None = None
    ) -> None:
        self.forward = forward
        self.x, self.y = x, y
        self.norm, self.eps, self.seed = norm, eps, seed
        self.watch = watch
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.witness = x.clone()
        self.distance = torch.full((len(x),), float("inf"), dtype=torch.float64, device=x.device)
        self._reasons: dict[int, str] = {}
        self._rows: Tensor | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """Logits of ``z``, one forward; nothing is judged, but an output that is not finite is noted."""
        logits, rows = self.forward(z), self._rows
        if rows is not None:
            if len(z) != len(rows):
                raise PositionsLostError(f"the attack forwarded {len(z)} inputs for {len(rows)} samples")
            for position in rows[~logits.detach().isfinite().all(1)].tolist():
                self._reasons[position] = NOT_FINITE
        if self.watch is not None:
            self.watch(z, logits, rows, None if rows is None else torch.ones_like(rows, dtype=torch.bool))
        return logits

    @contextmanager
    def call(self, rows: Tensor) -> Iterator[None]:
        """Within this context row i of every forward is sample ``rows[i]``."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    def survivors(self) -> Tensor:
        """Positions of the samples without a witness."""
        return (~self.broken).nonzero().squeeze(1)

    def submit(self, z: Tensor, rows: Tensor) -> None:
        """Judge the inputs ``z`` for the samples ``rows``, each named once, moved into ball and box."""
        if not len(rows):
            return
        copy = projected(self.x[rows], z.detach(), self.norm, self.eps)
        length = distances(self.x[rows], copy, self.norm)
        ballot = vote(self.forward, copy, self.y[rows], seed=self.seed)
        hit = ballot.broken & (length <= self.eps)
        for place in (~hit & ~ballot.holds).nonzero().flatten().tolist():
            self._reasons.setdefault(int(rows[place]), ballot.reason(place))
        better = hit & (length < self.distance[rows])
        self.witness[rows[better]], self.distance[rows[better]] = copy[better], length[better]
        self.broken[rows[hit]] = True

    def fail(self, reason: str) -> None:
        """Record ``reason`` for every sample that has no witness."""
        self._reasons.update(dict.fromkeys(self.survivors().tolist(), reason))

    def undecided(self) -> dict[int, str]:
        """Why samples without a witness have no outcome."""
        return {position: reason for position, reason in self._reasons.items() if not self.broken[position]}
