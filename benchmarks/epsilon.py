"""Robust accuracy of the quickstart's dense model over ε, from which its suite chooses ε by Merkle's rule.

    python -m benchmarks.epsilon [EPS ...]

Merkle, Samsinger & Schöttle 2021, section 3.5: the weakest attack hardly hurts the dense model, the strongest fools it
on more than half of its inputs. PGD has 10 steps of ε/4; AutoAttack is standard; 200 samples.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

from pytest_prunerob import autoattack, pgd
from pytest_prunerob.cells import Cell
from pytest_prunerob.engine import Engine
from pytest_prunerob.evaluation import TestEvaluation
from pytest_prunerob.measurement import Bench
from pytest_prunerob.models import Builder
from pytest_prunerob.store import Store

CELL = Cell("epsilon", {"dataset": "digits", "network": "cnn", "training": "pgd"})


def main() -> None:
    """Print a line for each ε; outcomes are kept in the store."""
    store = Store(Path(".prunerob"))
    builder = Builder(store, "cpu", progress=sys.stderr.isatty(), report=lambda status: None, root=Path.cwd())
    evaluation = TestEvaluation(Bench(store, Engine("cpu", 250, 0), lambda status: None), "testset", 0.95)
    dense = evaluation.subject(builder.dense(CELL), builder.splits("digits").test.first(200), "dense")
    print(f"clean accuracy {float(dense.accuracy()):.3f}")
    print("   ε   PGD-10  AutoAttack")
    for eps in sys.argv[1:] or ["0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]:
        weak = pgd(norm="linf", eps=eps, steps=10, step_size=str(Fraction(eps) / 4))
        strong = autoattack("standard", norm="linf", eps=eps)
        under, robust = float(dense.accuracy_under(weak)), float(dense.robust_accuracy(strong))
        print(f"{eps:>5}  {under:.3f}   {robust:.3f}", flush=True)


if __name__ == "__main__":
    main()
