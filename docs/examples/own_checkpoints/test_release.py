"""The release gate: what the pruned model must keep of the dense one."""

from __future__ import annotations

from pytest_prunerob import autoattack, cells

AUTOATTACK = autoattack("standard", norm="linf", eps="8/255")
TEST_SET = "npz:checkpoints/test.npz"


@cells(dataset=TEST_SET)
def test_accuracy(dense, pruned):
    assert pruned.accuracy() >= dense.accuracy() - 0.02


@cells(dataset=TEST_SET, samples=100)
def test_robustness(dense, pruned):
    assert pruned.robust_accuracy(AUTOATTACK) >= dense.robust_accuracy(AUTOATTACK) - 0.05


@cells(dataset=TEST_SET)
def test_it_is_smaller(dense, pruned):
    assert pruned.sparsity() >= 0.2
    assert pruned.parameters() <= dense.parameters()
