"""Features that say little about the class in the latent space of Partial Least Squares are unimportant."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob.compression.criteria.criterion import Criterion
from pytest_prunerob.compression.feature_maps import block_outputs, convolved, maximum
from pytest_prunerob.compression.residual_blocks import Block
from pytest_prunerob.datasets import Dataset

COMPONENTS = 2  # the authors' code


def filters(model: nn.Module, sample: Dataset | None) -> dict[str, Tensor]:
    """The VIP of each filter's map as the convolution gives it, max-pooled to one feature; one PLS of all filters."""
    assert sample is not None
    return _scores(convolved(model, sample.x, maximum), sample.y)


def blocks(model: nn.Module, blocks: Sequence[Block], sample: Dataset | None) -> Tensor:
    """The mean VIP of the channels of each block's sum, max-pooled to one feature each; one PLS of all blocks."""
    assert sample is not None
    found = _scores(block_outputs(model, blocks, sample.x, maximum, rectified=False), sample.y)
    return torch.stack([found[block.name].mean() for block in blocks])


def vip(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Variable Importance in Projection of ``features: (N, M)`` for the classes ``labels: (N,)``: (M,).

    ``VIP_j = sqrt(M · Σ_a s_a · w_ja² / Σ_a s_a)`` with the unit weights ``w_a`` of the a-th of 2 components and the
    variance ``s_a = t_aᵀt_a · q_aᵀq_a`` of the labels that it explains, from scikit-learn's ``PLSRegression``. The
    squares of all VIP have the mean 1. Where the features explain nothing at all every VIP is 0.
    """
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.exceptions import ConvergenceWarning

    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    if not np.ptp(features, axis=0).any() or not np.ptp(targets, axis=0).any():
        return np.zeros(features.shape[1])
    count = min(COMPONENTS, *features.shape)
    with warnings.catch_warnings():
        # What is left of the labels may be constant before the last component: its weights are zero then.
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        warnings.filterwarnings("ignore", message=".*residual is constant", category=UserWarning)
        found = PLSRegression(n_components=count, scale=True).fit(features.astype(np.float64), targets)
    explained = (found.x_scores_**2).sum(axis=0) * (found.y_loadings_**2).sum(axis=0)
    weights = np.nan_to_num(found.x_weights_) ** 2
    explained = np.nan_to_num(explained)
    total = explained.sum()
    return np.sqrt(len(weights) * (weights @ explained) / total) if total > 0 else np.zeros(len(weights))


def _scores(features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """The VIP of every feature among all features, by the layer that they come from."""
    found = torch.from_numpy(vip(torch.cat(list(features.values()), dim=1).numpy(), labels.numpy()))
    parts = torch.split(found, [part.shape[1] for part in features.values()])
    return dict(zip(features, parts, strict=True))


CRITERION = Criterion(
    "pls",
    filters,
    blocks,
    "Jordao, Yamada & Schwartz 2020, Neurocomputing 406: VIP of Partial Least Squares on max-pooled feature maps",
    samples=1000,  # ours: the authors' code takes the whole training set
    library="scikit-learn",
)
