"""Sixty-four workers finish in any order; the verdict is that of one worker that takes the samples in turn."""

from __future__ import annotations

import heapq
from fractions import Fraction

import numpy as np
import pytest

from pytest_prunerob.sequential import Stop, stop_difference, stop_share

ALPHA = Fraction(1, 20)
N, SIZE, WORKERS = 2000, 10, 64  # 200 micro-batches


def completion_order(seconds: list[float]) -> list[int]:
    """The order in which the micro-batches end when each free worker takes the next one."""
    free = [(0.0, -1)] * WORKERS
    ended: list[tuple[float, int]] = []
    for micro_batch, length in enumerate(seconds):
        start, _ = heapq.heappop(free)
        heapq.heappush(free, (start + length, micro_batch))
        ended.append((start + length, micro_batch))
    return [micro_batch for _, micro_batch in sorted(ended)]


@pytest.mark.parametrize("kind", ["supported", "refuted", "pairs"])
def test_17_out_of_order_completion_gives_the_serial_verdict(kind: str) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        survived = rng.random(N) < {"supported": 0.95, "refuted": 0.8, "pairs": 0.9}[kind]
        other = survived ^ (rng.random(N) < 0.02)

        def verdict(prefix: int, first: np.ndarray = survived, second: np.ndarray = other) -> Stop | None:
            if kind == "pairs":
                return stop_difference((first.astype(int) - second)[:prefix].tolist(), N, ALPHA, -60)
            return stop_share(first[:prefix].tolist(), N, ALPHA, 1800, N)

        serial = next(stop for m in range(1, N // SIZE + 1) if (stop := verdict(m * SIZE)) is not None)
        assert serial.status == ("refuted" if kind == "refuted" else "supported")
        # A micro-batch takes the longer, the more of its samples survive.
        seconds = [1 + survived[m * SIZE : (m + 1) * SIZE].sum() * rng.random() for m in range(N // SIZE)]
        done: set[int] = set()
        before, answers = 0, []
        for micro_batch in completion_order(seconds):
            done.add(micro_batch)
            prefix = before
            while prefix in done:
                prefix += 1
            if prefix > before and len(answers) < 3:  # nothing new is known of the prefix otherwise
                stop = verdict(prefix * SIZE)
                answers += [stop] if stop is not None else []
            before = prefix
        assert answers
        assert set(answers) == {serial}
