"""The claims of the quickstart over every compression method and everything that follows pruning, on the digits.

Without a profile over the methods that a plain network takes; ``--prunerob-profile`` names the others.

A survey: which claims hold is its result, so refuted ones are no surprise. The README beside this file says more, and
``python -m benchmarks.methods`` runs the first claim and prints the table of docs/compression.md.
"""

from __future__ import annotations

from pytest_prunerob import autoattack, cells, flips, fmn, pgd, within

EPS = "0.2"
STANDARD = autoattack("standard", norm="linf", eps=EPS)
FIRST_TWO = autoattack(["apgd-ce", "apgd-t"], norm="linf", eps=EPS)  # of its four stages: a quarter of the time
PGD_10 = pgd(norm="linf", eps=EPS, steps=10, step_size="0.05")

WEIGHTS = [
    "dynamic-network-surgery",
    "global-magnitude",
    "local-magnitude",
    "local-random",
    "lottery-ticket",
    "lottery-ticket-rewinding",
    "progressive-pruning",
    "sparsity-aware-adversarial-training",
]
KERNELS = ["kernel-global-magnitude", "kernel-local-magnitude", "kernel-local-random"]
FILTERS = [
    "filter-l1",
    "filter-local-magnitude",
    "filter-local-random",
    "filters-expected-abs",
    "filters-hrank",
    "filters-kl",
    "filters-l1",
    "filters-pls",
    "single-filter",
]
NNCF = ["nncf-geometric-median", "nncf-l1", "nncf-l2"]  # the first convolution is exempt
SCALED = ["network-slimming", "sss-filters"]  # by the scales of batch normalisation
LAYERS = ["layers-expected-abs", "layers-hrank", "layers-kl", "layers-l1", "layers-pls", "single-layer", "sss-layers"]
BOTH = ["both-expected-abs", "both-hrank", "both-kl", "both-l1", "both-pls"]
OTHERS = ["activation-pruning", "compact"]
AFTER = [
    "adversarial-retraining",
    "fine-tuning",
    "inverse-weights-inheritance",
    "none",
    "scratch-b",
    "scratch-e",
    "winning-ticket",
]

DIGITS = {"dataset": "digits", "training": "pgd", "sparsity": ["0.50", "0.90"]}
PLAIN = {**DIGITS, "network": "cnn", "method": [*WEIGHTS, *KERNELS, *FILTERS, *NNCF, *OTHERS]}
PROFILES = {
    "plain": PLAIN,
    "normalised": {**DIGITS, "network": "preact-resnet8", "method": SCALED},
    # Its residual blocks with an identity shortcut can go.
    "deep": {**DIGITS, "network": "resnet32", "method": [*LAYERS, *BOTH]},
    "after": {**DIGITS, "network": "cnn", "method": "global-magnitude", "after": AFTER},
    "recalibrated": {
        **DIGITS,
        "network": "preact-resnet8",
        "method": "filter-l1",
        "after": ["bn-recalibration", "none"],
    },
}


def attack(cell):
    """AutoAttack; in full where survival needs a stage without gradients, because the network jumps."""
    return STANDARD if cell.method == "activation-pruning" else FIRST_TWO


@cells(**PLAIN, profiles=PROFILES, samples=50)
def test_compression_keeps_robustness(cell, dense, pruned):
    plan = attack(cell)
    # The whole measurements, since the table states the numbers.
    float(dense.robust_accuracy(plan))
    float(pruned.robust_accuracy(plan))
    assert pruned.robust_accuracy(plan) >= dense.robust_accuracy(plan) - 0.10


@cells(**PLAIN, profiles=PROFILES)
def test_flipped_samples_are_on_thin_ice(dense, pruned):
    assert flips(dense, pruned).auc_s10(by=fmn(norm="linf")) > 0.85


@cells(**PLAIN, profiles=PROFILES, samples=50)
def test_pgd_overestimates(cell, pruned):
    plan = attack(cell)
    assert pruned.accuracy_under(PGD_10) - pruned.robust_accuracy(plan) >= 0.02


@cells(**{**PLAIN, "method": [*WEIGHTS, *KERNELS, *FILTERS]})
def test_sparsity_is_as_stated(cell, pruned):
    unit = "weights" if cell.method in WEIGHTS else "kernels" if cell.method in KERNELS else "filters"
    # One unit of each of the layers, four with weights and three with filters.
    tolerance = {"weights": 0.0002, "kernels": 0.002, "filters": 0.03}[unit]
    assert within(pruned.sparsity(unit), cell.sparsity, tolerance)
