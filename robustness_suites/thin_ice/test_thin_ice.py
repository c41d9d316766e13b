"""Claims of Piras et al., "Samples on Thin Ice" (2023), in the direction in which they can be asked of digits.

The published numbers are for CIFAR-10 and larger networks: the report shows them beside ours and says so. No claim
here compares the two.
"""

from __future__ import annotations

from pytest_prunerob import autoattack, axis, cells, flips, fmn, pgd, table

ELSEWHERE = "CIFAR-10 and VGG-16, pruned by HYDRA: another data set, network and method"
PRINTED = {"0.90": "90", "0.95": "95"}
ROW = {"method": "HYDRA", "network": "VGG-16", "sparsity_pct": axis("sparsity", PRINTED)}
DIGITS = {"dataset": "digits", "network": "cnn", "training": "pgd", "method": "global-magnitude"}
PLUS = autoattack("plus", norm="linf", eps="0.25")
PGD_10 = pgd(norm="linf", eps="0.25", steps=10, step_size="0.0625")
FMN = fmn(norm="linf")


@cells(
    **DIGITS,
    sparsity=["0.90", "0.95"],
    samples=50,
    reported=table("table1.csv", key=ROW, column="aa_rob_pct", note=ELSEWHERE),
)
def test_pgd_overestimates_robustness(pruned):
    """Claims 1 and 2: what was reported under PGD was too high."""
    assert pruned.accuracy_under(PGD_10) - pruned.robust_accuracy(PLUS) > 0


@cells(
    **DIGITS,
    sparsity="0.95",
    reported=table(
        "table2.csv", key=ROW, column="auc_eps10_lt_eps11", unit="fraction", metric="auc_s10", note=ELSEWHERE
    ),
)
def test_newly_wrong_samples_are_on_thin_ice(dense, pruned):
    """Claims 13 and 14: samples that pruning breaks lie close to the dense model's decision boundary."""
    assert flips(dense, pruned).auc_s10(by=FMN) > 0.5
    assert flips(dense, pruned).p_s10(by=FMN) < 0.05
