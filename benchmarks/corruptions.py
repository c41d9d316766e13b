"""Seconds that each corruption takes, and what it does to the images.

    python -m benchmarks.corruptions [--images N] [--side PIXELS] [--severity S]

Prints a table: seconds of the clock, seconds of the processor (all threads together; the same on a busy machine), and
how far a value moves on average. The images are smooth random ones, handed over in micro-batches as the engine does.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pytest_prunerob.corruptions import CORRUPTIONS, corrupt, occlude
from pytest_prunerob.plans import MICRO_BATCH


def images(n: int, side: int) -> Tensor:
    """Random images (n, 3, side, side) in [0, 1] without detail."""
    generator = torch.Generator().manual_seed(0)
    return interpolate(torch.rand(n, 3, 8, 8, generator=generator), size=(side, side), mode="bilinear")


def corrupted(name: str, x: Tensor, severity: int) -> Tensor:
    """``x`` corrupted micro-batch by micro-batch."""
    if name == "occlusion":
        return torch.cat([occlude(part, part.shape[-1] // 2) for part in x.split(MICRO_BATCH)])
    textures = [images(1, 5 * x.shape[-1] + 5)[0]]
    return torch.cat(
        [corrupt(part, CORRUPTIONS[name], severity, seed=0, textures=textures) for part in x.split(MICRO_BATCH)]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Seconds that each corruption takes.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--severity", type=int, default=5)
    given = parser.parse_args()
    x = images(given.images, given.side)
    shape = "×".join(map(str, x.shape))
    print(f"{shape}, severity {given.severity}, {torch.get_num_threads()} threads")
    print(f"{'corruption':20} {'seconds':>8} {'processor':>10} {'moved':>7}")
    for name in (*CORRUPTIONS, "occlusion"):
        start, processor = time.perf_counter(), time.process_time()
        z = corrupted(name, x, given.severity)
        clock, processor = time.perf_counter() - start, time.process_time() - processor
        print(f"{name:20} {clock:8.2f} {processor:10.2f} {float((z - x).abs().mean()):7.3f}", flush=True)


if __name__ == "__main__":
    main()
