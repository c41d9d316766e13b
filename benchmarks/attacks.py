"""What the witness oracle saves of each attack that keeps its batch positions, in counted samples.

    python -m benchmarks.attacks [--samples N] [--cifar]

Each attack runs twice on the same micro-batch and seed: by itself, as its library runs it, and under the oracle, which
does not forward again what has its witness. Forward and backward samples are exact and the same on every machine.
``broken`` counts the samples that either run broke; what the library breaks is always among ours. Minimum-norm attacks
are not listed: nothing is frozen in them, so they cost what the library costs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from fixtures.cifar_resnet18 import load_images, load_model
from pytest_prunerob import Dataset
from pytest_prunerob.attacks import ATTACKS, Attack, Settings
from pytest_prunerob.cells import Cell
from pytest_prunerob.engine import Engine
from pytest_prunerob.models import Builder
from pytest_prunerob.oracle import Meter, Network
from pytest_prunerob.plans import Plan, resolve
from pytest_prunerob.plans.examples import example
from pytest_prunerob.store import Store

SEED = 0
# Radii at which the adversarially trained digits network loses about half of its samples, and the usual ones of CIFAR.
EPS = {"digits": {"linf": "0.2", "l2": "1", "l1": "4"}, "cifar": {"linf": "8/255", "l2": "0.5", "l1": "12"}}


def digits(samples: int) -> tuple[nn.Module, Dataset]:
    """The digits network trained by PGD (kept in the store) and the first test samples."""
    builder = Builder(Store(Path(".prunerob")), "cpu", sys.stderr.isatty(), print, Path.cwd())
    cell = Cell("benchmark", {"dataset": "digits", "network": "cnn", "training": "pgd"})
    return builder.dense(cell), builder.splits("digits").test.first(samples)


def by_itself(attack: Attack, plan: Plan, module: nn.Module, data: Dataset) -> tuple[Meter, set[int]]:
    """What the library costs by itself on the correctly classified samples, and what it breaks."""
    meter = Meter()
    settings = Settings(plan.stages[0], plan.threat.norm, float(plan.threat.radius), SEED, data.classes)
    with torch.random.fork_rng():
        z = attack.perturb(Network(module, chunk=250, meter=meter), data.x, data.y, settings).detach()
    with torch.no_grad():
        wrong = module(z).argmax(1) != data.y
    return meter, set(wrong.nonzero().flatten().tolist())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100, help="samples of the digits (default 100)")
    parser.add_argument("--cifar", action="store_true", help="the packaged CIFAR-10 ResNet-18 on eight images instead")
    parser.add_argument("attacks", nargs="*", help="only these")
    given = parser.parse_args()
    name = "cifar" if given.cifar else "digits"
    module, whole = (load_model(), load_images().first(8)) if given.cifar else digits(given.samples)
    with torch.no_grad():
        right = (module(whole.x).argmax(1) == whole.y).nonzero().flatten().tolist()
    data = whole.take(right)
    print(f"{name}, {len(data)} correctly classified samples")
    print(f"{'attack':14} {'norm':5} {'broken':>9} {'forward':>19} {'saved':>6} {'backward':>19} {'saved':>6}")
    engine = Engine("cpu", 250, SEED)
    for attack in ATTACKS.values():
        if attack.exits:  # neither network has several
            continue
        if not attack.keeps_positions or attack.kind != "fixed" or (given.attacks and attack.name not in given.attacks):
            continue
        for norm in attack.norms:
            if norm not in EPS[name]:
                continue
            plan = resolve(example(attack.name, norm, EPS[name][norm]), data.classes)
            meter, broken = by_itself(attack, plan, module, data)
            ours = engine.run("decide", module, plan, 0, data.x, data.y, data.classes)
            if broken - ours.broken.keys():
                raise SystemExit(f"{attack.name}, {norm}: the library alone broke {broken - ours.broken.keys()}")
            print(
                f"{attack.name:14} {norm:5} {f'{len(ours.broken)}/{len(broken)}':>9} "
                f"{f'{ours.cost.forward:,}/{meter.forward:,}':>19} {1 - ours.cost.forward / meter.forward:6.0%} "
                f"{f'{ours.cost.backward:,}/{meter.backward:,}':>19} {1 - ours.cost.backward / meter.backward:6.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
