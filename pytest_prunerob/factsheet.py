"""What is known of the facts that claims ask for: counted on the network, or timed on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf

import torch

from pytest_prunerob import facts, speed
from pytest_prunerob.claims import Measure
from pytest_prunerob.known import Bound, Known
from pytest_prunerob.ledger import Cost
from pytest_prunerob.measurement import Bench, Prepared
from pytest_prunerob.statistics import median_interval, next_interval


@dataclass
class Factsheet:
    """The facts of one test. Each is measured once and kept, so that a timing is the same number in all its claims.

    A timing is known as a two-sided interval at ``confidence``, and a claim that the interval does not settle is open.
    Timings of one series hang together: a latency is known as the interval of one more forward, a ratio as that of the
    median of its pairs, which another process may see elsewhere. Nothing is stored: another run, on another machine,
    takes its own times.
    """

    bench: Bench
    confidence: float
    clock: Callable[[], float] = time.perf_counter
    _known: dict[Measure, Known] = field(default_factory=dict)

    def known(self, measure: Measure, prepared: Sequence[Prepared]) -> Known:
        """What is known of the fact ``measure`` about its subjects ``prepared``.

        Raises:
            ModelError: where the network has nothing to count, or its forward cannot be timed.
            BudgetSpentError: for a timing, where no time is left.
        """
        if measure not in self._known:
            timed = {"latency": self._latency, "latency_ratio": self._ratio}.get(measure.metric)
            self._known[measure] = self._counted(measure, prepared[0]) if timed is None else timed(measure, prepared)
        return self._known[measure]

    def _counted(self, measure: Measure, prepared: Prepared) -> Known:
        module, options = prepared.loaded.module, dict(measure.options)
        counts: dict[str, Callable[[], Fraction | int]] = {
            "sparsity": lambda: facts.sparsity(module, **options),  # type: ignore[arg-type]
            "parameters": lambda: facts.parameters(module),
            "nonzeros": lambda: facts.nonzeros(module),
            "size_bytes": lambda: facts.size_bytes(module, **options),  # type: ignore[arg-type]
            "flops": lambda: speed.flops(module, prepared.data.x[:1].to(self.bench.engine.device)),
        }
        value = Fraction(counts[measure.metric]())
        return Known(value, value)

    def _latency(self, measure: Measure, prepared: Sequence[Prepared]) -> Known:
        size, runs = (int(number) for _, number in measure.options)
        (seconds,) = self._times(measure, prepared, size, runs)
        mean, deviation, low, high = next_interval([1000 * one for one in seconds], self.confidence)
        note = (
            f"{measure.text}: {mean:.4g} ± {deviation:.2g} ms (mean ± sd of {runs} runs of {size} samples), "
            f"{100 * self.confidence:g} % interval of one more [{low:.4g}, {high:.4g}] ms, {self._conditions}"
        )
        more = "a machine on which forwards take a time that varies less"
        return _timed(mean, max(low, 0.0), high, note, more)

    def _ratio(self, measure: Measure, prepared: Sequence[Prepared]) -> Known:
        size, pairs = (int(number) for _, number in measure.options)
        dense, pruned = self._times(measure, prepared, size, pairs)
        found, low, high = median_interval([one / two for one, two in zip(dense, pruned, strict=True)], self.confidence)
        note = (
            f"{measure.text}: {found:.4g} (median of {pairs} pairs of {size} samples), "
            f"{100 * self.confidence:g} % interval [{max(low, 0.0):.4g}, {high:.4g}], {self._conditions}"
        )
        roles = ", ".join(subject.role for subject in measure.subjects)
        more = f"more pairs, such as latency_ratio({roles}, {size}, {4 * pairs}), or an idle machine"
        return _timed(found, max(low, 0.0), high, note, more)

    def _times(self, measure: Measure, prepared: Sequence[Prepared], size: int, runs: int) -> list[tuple[float, ...]]:
        """The seconds of each subject's forwards."""
        self.bench.budget.require(f"the timing {measure.text}")
        self.bench.report(f"{measure.text}: {runs} times {size} samples")
        x = speed.batch(prepared[0].data.x, size).to(self.bench.engine.device)
        models = [one.loaded.module for one in prepared]
        start = time.perf_counter()
        found = speed.times(models, x, runs=runs, clock=self.clock)
        forwards = len(models) * (speed.WARM_UP + runs) * size
        self.bench.spent(Cost(forwards, 0, time.perf_counter() - start))
        return found

    @property
    def _conditions(self) -> str:
        device = self.bench.engine.device
        threads = torch.get_num_threads()
        where = device if device.startswith("cuda") else f"{device}, {threads} thread{'s' * (threads > 1)}"
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        return f"{where}, with {workers - 1} other workers of pytest-xdist beside it" if workers > 1 else where


def _timed(value: float, low: float, high: float, note: str, settle: str) -> Known:
    ends: list[Bound] = [end if abs(end) == inf else Fraction(repr(end)) for end in (low, high)]
    return Known(ends[0], ends[1], note=note, timed=True, value=Fraction(repr(value)), settle=settle)
