"""Fine-tuning after every pruning step with the weights that are left, and nothing at all."""

from __future__ import annotations

from pytest_prunerob.compression.after.scheme import Scheme

SCHEME = Scheme(
    "fine-tuning",
    "fine-tuning",
    "Han et al. 2015, arXiv:1506.02626; Merkle, Samsinger & Schöttle 2021, Sec. 3.3",
    data=True,
    trains=True,
)
NONE = Scheme("none", "none", "this package: the pruned network as it is, the control that the reviews ask for")
