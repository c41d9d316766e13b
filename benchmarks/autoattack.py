"""AutoAttack standard through the witness oracle against pyautoattack's own driver, on the same micro-batch and seed.

    python -m benchmarks.autoattack [--case NAME] [--samples N]

Prints a table and, for each case, one JSON object on a line of its own. Seconds are of this machine at this moment:
read the ratio. Forward and backward samples are exact. ``missed`` are samples that only the library broke, ``extra``
those that only we broke (each has its witness, which is forwarded once more here).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from fixtures.cifar_resnet18 import load_images, load_model
from pytest_prunerob import Dataset, autoattack
from pytest_prunerob.cells import Cell
from pytest_prunerob.engine import Engine
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.ledger import Ledger
from pytest_prunerob.measurement import Bench
from pytest_prunerob.models import Builder
from pytest_prunerob.oracle import Meter, Network, distances
from pytest_prunerob.plans import Plan
from pytest_prunerob.store import Store

SEED = 0


@dataclass(frozen=True)
class Row:
    """One case: ours against the reference."""

    case: str
    seconds_ours: float
    seconds_reference: float
    ratio: float
    forward_ours: int
    forward_reference: int
    backward_ours: int
    backward_reference: int
    samples: int
    robust_ours: int
    robust_reference: int
    missed: int
    extra: int


@dataclass(frozen=True)
class Case:
    """A model, its data, ε, and the threshold of a claim if only a claim is to be decided."""

    name: str
    subject: Callable[[], tuple[nn.Module, Dataset]]
    eps: str
    claim: str | None = None


def digits(training: str) -> Callable[[], tuple[nn.Module, Dataset]]:
    """The digits network trained by ``training`` (kept in the store) and the whole test half."""

    def subject() -> tuple[nn.Module, Dataset]:
        builder = Builder(Store(Path(".prunerob")), "cpu", sys.stderr.isatty(), print, Path.cwd())
        cell = Cell("benchmark", {"dataset": "digits", "network": "cnn", "training": training})
        return builder.dense(cell), builder.splits("digits").test

    return subject


CASES = (
    Case("digits undefended", digits("standard"), "0.3"),
    Case("digits adversarially trained", digits("pgd"), "0.25"),
    Case("CIFAR-10 ResNet-18 undefended", lambda: (load_model(), load_images()), "8/255"),
    Case("claim refuted by a wide margin", digits("pgd"), "0.25", claim="0.9"),
)


def ours(
    module: nn.Module, data: Dataset, plan: Plan, claim: str | None
) -> tuple[float, Ledger, Meter, dict[int, Tensor]]:
    """Seconds, ledger, counted work and witnesses of our run from an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Store(Path(folder)), Engine("cpu", 250, SEED), report=lambda status: None)
        evaluation = TestEvaluation(bench, "testset", 0.95)
        start = time.perf_counter()
        subject = evaluation.subject(module, data, "dense")
        if claim is None:
            evaluation.prepared[subject].measurement("decide", plan).finish()
        else:
            bool(subject.robust_accuracy(plan) >= Fraction(claim))
        seconds = time.perf_counter() - start
        ledger = evaluation.prepared[subject].measurement("decide", plan).ledger
        kept = bench.store.witnesses(ledger.key)
        witnesses = {place: torch.from_numpy(found.array) for place, found in kept.items() if found.array is not None}
        return seconds, ledger, Meter(bench.cost.forward, bench.cost.backward), witnesses


def reference(module: nn.Module, data: Dataset, plan: Plan) -> tuple[float, set[int], Meter]:
    """Seconds, robust samples and counted work of the library's own driver, micro-batch by micro-batch."""
    meter, robust = Meter(), set()
    network = Network(module, chunk=plan.micro_batch, meter=meter)
    start = time.perf_counter()
    for first in range(0, len(data), plan.micro_batch):
        x, y = data.x[first : first + plan.micro_batch], data.y[first : first + plan.micro_batch]
        driver = AutoAttack(
            network, norm="Linf", eps=float(plan.threat.radius), seed=SEED, version="standard", device="cpu"
        )
        _, labels = driver.run_standard_evaluation(x, y, batch_size=plan.micro_batch)
        robust.update(first + int(place) for place in (labels == y).nonzero().flatten())
    return time.perf_counter() - start, robust, meter


def run(case: Case, samples: int | None) -> Row:
    """Measure one case."""
    module, whole = case.subject()
    data = whole.first(min(samples, len(whole)) if samples else None)
    plan = autoattack("standard", norm="linf", eps=case.eps)
    seconds, ledger, meter, witnesses = ours(module, data, plan, case.claim)
    seconds_reference, robust_reference, meter_reference = reference(module, data, plan)
    robust = set(ledger.survived)
    missed, extra = sorted(robust - robust_reference), sorted((robust_reference & ledger.start) & set(ledger.broken))
    check_witnesses(module, data, plan, witnesses)
    return Row(
        case.name,
        round(seconds, 3),
        round(seconds_reference, 3),
        round(seconds_reference / seconds, 2),
        meter.forward,
        meter_reference.forward,
        meter.backward,
        meter_reference.backward,
        len(data),
        len(robust),
        len(robust_reference),
        len(missed),
        len(extra),
    )


def check_witnesses(module: nn.Module, data: Dataset, plan: Plan, witnesses: dict[int, Tensor]) -> None:
    """Forward every witness once more: misclassified, inside box and ball."""
    if not witnesses:
        return
    places = sorted(witnesses)
    z = torch.stack([witnesses[place] for place in places])
    with torch.no_grad():
        wrong = torch.cat([module(part).argmax(1) for part in z.split(250)]) != data.y[places]
    inside = distances(data.x[places], z, "linf") <= float(plan.threat.radius)
    if not bool((wrong & inside).all()) or float(z.min()) < 0 or float(z.max()) > 1:
        raise SystemExit("a stored witness is none")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--samples", type=int, help="only the first N samples of the fixed permutation")
    given = parser.parse_args()
    rows = []
    for case in CASES:
        if not given.case or case.name in given.case:
            rows.append(run(case, given.samples))
            print(json.dumps(asdict(rows[-1])), flush=True)
    print()
    names, widths = ("ratio", "ours s", "lib s", "forward", "backward", "robust"), (7, 8, 8, 17, 17, 9)
    print(f"{'case':34} " + " ".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)) + " missed extra")
    for row in rows:
        forward = f"{row.forward_ours}/{row.forward_reference}"
        backward = f"{row.backward_ours}/{row.backward_reference}"
        robust = f"{row.robust_ours}/{row.robust_reference}"
        print(
            f"{row.case:34} {row.ratio:6.1f}x {row.seconds_ours:8.2f} {row.seconds_reference:8.2f} "
            f"{forward:>17} {backward:>17} {robust:>9} {row.missed:6} {row.extra:5}"
        )


if __name__ == "__main__":
    main()
