"""Adversarial retraining: PGD fine-tuning after every pruning step, whatever the dense model was trained by."""

from __future__ import annotations

from pytest_prunerob.compression.after.scheme import Scheme

SCHEME = Scheme(
    "adversarial-retraining",
    "adversarial",
    "Madry et al. 2018, arXiv:1706.06083 (the training); Sehwag et al. 2020, HYDRA, arXiv:2002.10509 (after pruning)",
    data=True,
    trains=True,
)
