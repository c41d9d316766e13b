"""Batch normalisation recalibrated: its running statistics are those of the pruned network."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pytest_prunerob.compression.after.scheme import Scheme
from pytest_prunerob.compression.method import CompressedModel, Trainer
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

BATCH = 256  # ours: large enough for the variance of a batch to be near that of the data


def finish(
    compressed: CompressedModel,
    *,
    dense: nn.Module,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None,
) -> CompressedModel:
    """Estimate mean and variance of every batch normalisation anew over the training half; no weight changes.

    They are averages over batches of nearly equal size, at most 256 samples each; dropout and everything else stays in
    eval mode meanwhile.

    Raises:
        CompressionError: without training samples, or for a network without running statistics.
    """
    if data is None:
        raise CompressionError(f"{SCHEME.name} needs training samples and was given none: name a dataset")
    model = compressed.model
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        raise CompressionError(f"{SCHEME.name} needs batch normalisation, {type(model).__name__} has none")
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # all batches count alike
            norm.train()
        with torch.no_grad():
            for x in torch.tensor_split(data.x, math.ceil(len(data) / BATCH)):
                model(x.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
    return compressed


SCHEME = Scheme(
    "bn-recalibration",
    "none",
    "Li et al. 2020, EagleEye, arXiv:2007.02491, Sec. 3.3 (adaptive batch normalisation)",
    finish,
    data=True,
)
