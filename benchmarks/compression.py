"""What the physical removal of pruned filters saves, of networks that are pruned by ``filter-l1``.

    python -m benchmarks.compression [--pairs N] [--batch N] [NETWORK ...]

Prints a Markdown table: parameters, FLOPs (one sample) and the size of the file, dense and compressed, of the masked
network and of what ``shrink`` makes of it; the largest difference of their logits as a share of the largest logit; and
how many times faster the shrunk network is. Latency is the median over interleaved pairs of forwards with its 95 %
interval, PGD-10 the median ratio of three pairs of attacks, with the samples that each of the last two broke. Times are
of this machine at this moment: read the ratios. The networks are untrained, since weights do not change what a forward
costs; batch normalisation has random statistics, as after a training.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_prunerob import pgd, shrink
from pytest_prunerob.compression import compress
from pytest_prunerob.engine import Engine
from pytest_prunerob.facts import parameters, size_bytes
from pytest_prunerob.networks import NETWORKS, build
from pytest_prunerob.speed import flops, times
from pytest_prunerob.statistics import median_interval

INPUTS = (3, 32, 32)
NAMES = ("resnet18", "vgg16", "preact-resnet8")
ATTACKS = 3  # pairs of attacks
AMOUNTS = ("0.50", "0.90")
PLAN = pgd(norm="linf", eps="8/255", steps=10, step_size="2/255", random_start=False)
HEADINGS = (
    "network", "filters", "parameters", "FLOPs", "bytes", "bytes compressed", "logits", "latency", "PGD-10",
    "broken",
)  # fmt: skip


def network(name: str) -> nn.Module:
    """The network with random statistics of batch normalisation."""
    model = build(name, inputs=INPUTS, classes=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.normal_(norm.running_mean, 0, 0.1, generator=generator)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 1.5, generator=generator)  # type: ignore[arg-type]
            nn.init.normal_(norm.bias, 0, 0.1, generator=generator)
    return model


def row(name: str, amount: str, *, pairs: int, batch: int) -> list[str]:
    """The cells of one line."""
    x = torch.rand((batch, *INPUTS), generator=torch.Generator().manual_seed(1))
    masked = compress(network(name), method="filter-l1", amount=amount).model
    *_, head = (layer for layer in masked.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        head.bias -= masked(x).mean(0)  # an untrained network gives all samples one class, and nothing moves them
    narrow = shrink(masked, x[:1])
    with torch.no_grad():
        before, after = masked(x), narrow(x)
        difference = float((before - after).abs().max() / before.abs().max())
    both = (masked, narrow)
    dense, pruned = times(both, x, runs=pairs)
    faster, low, high = median_interval([one / two for one, two in zip(dense, pruned, strict=True)], 0.95)
    ratio, broken = attacked(both, x, before.argmax(1))
    return [
        name,
        f"{float(amount):.0%}",
        _change([parameters(model) for model in both]),
        _change([flops(model, x[:1]) for model in both]),
        _change([size_bytes(model) for model in both]),
        _change([size_bytes(model, form="compressed") for model in both]),
        f"{difference:.0e}",
        f"{faster:.2f} [{low:.2f}, {high:.2f}]",
        f"{ratio:.2f}",
        broken,
    ]


def attacked(models: tuple[nn.Module, nn.Module], x: Tensor, y: Tensor) -> tuple[float, str]:
    """How many times longer PGD takes on the first of ``models``, and what it breaks on each."""
    engine, ratios = Engine("cpu", len(x), 0), []
    for _ in range(ATTACKS):
        seconds, broken = [], []
        for model in models:
            start = time.perf_counter()
            found = engine.run("decide", model, PLAN, 0, x, y, 10)
            seconds.append(time.perf_counter() - start)
            broken.append(str(len(found.broken)))
        ratios.append(seconds[0] / seconds[1])
    return median(ratios), " / ".join(broken)


def _change(values: list[int]) -> str:
    one, two = values
    return f"{_short(one)} → {_short(two)} ({one / two:.1f}×)"


def _short(value: int) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {sign}"
    return str(value)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of forwards (default 20)")
    parser.add_argument("--batch", type=int, default=32, help="samples of a forward and of the attack (default 32)")
    parser.add_argument("networks", nargs="*", help=f"only these of the catalogue (default {', '.join(NAMES)})")
    given = parser.parse_args()
    if missing := [name for name in given.networks if name not in NETWORKS]:
        parser.error(f"no such network: {', '.join(missing)}")
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for name in given.networks or NAMES:
        for amount in AMOUNTS:
            print(f"| {' | '.join(row(name, amount, pairs=given.pairs, batch=given.batch))} |", flush=True)


if __name__ == "__main__":
    main()
