"""The main job in small: an adversarially trained network for handwritten digits, pruned in two ways.

ε is chosen by Merkle's rule (the README beside this file has the numbers): the weakest ε hardly hurts the dense model,
the strongest breaks more than half of it. The steps of PGD are ε/4 long, so that ten of them can cross the ball.
"""

from __future__ import annotations

from pytest_prunerob import autoattack, cells, flips, fmn, pgd, within

EPS = "0.25"
AUTOATTACK = autoattack("standard", norm="linf", eps=EPS)
PGD_10 = pgd(norm="linf", eps=EPS, steps=10, step_size="0.0625")
DIGITS = {"dataset": "digits", "network": "cnn", "training": "pgd"}
METHODS = ["filter-l1", "global-magnitude"]


@cells(
    **DIGITS,
    method=METHODS,
    sparsity=["0.50", "0.90"],
    samples=200,
    xfail={"*filter-l1-s0.90": "negative control: nine of ten filters cannot go without loss"},
)
def test_pruning_keeps_robustness(dense, pruned):
    assert pruned.robust_accuracy(AUTOATTACK) >= dense.robust_accuracy(AUTOATTACK) - 0.10


@cells(**DIGITS, method=METHODS, sparsity=["0.50", "0.90"])
def test_sparsity_is_as_stated(cell, pruned):
    unit = "filters" if cell.method == "filter-l1" else "weights"
    one_unit = 0.01 if unit == "filters" else 0.0001
    assert within(pruned.sparsity(unit), cell.sparsity, one_unit)


@cells(**DIGITS, method="global-magnitude", sparsity="0.95")
def test_flipped_samples_are_on_thin_ice(dense, pruned):
    assert flips(dense, pruned).auc_s10(by=fmn(norm="linf")) > 0.85


@cells(**DIGITS, method=METHODS, sparsity="0.50", samples=200)
def test_pgd_overestimates(pruned):
    assert pruned.accuracy_under(PGD_10) - pruned.robust_accuracy(AUTOATTACK) >= 0.02
