"""The upper end of a distribution from maxima of its samples: the reverse Weibull fit of the CLEVER score."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Maxima that agree to this share are one value: float32 gradients carry 1e-7 (ours).
SAME = 1e-5
# Ends that are tried, in spreads of the maxima beyond the largest (ours); the likelihood is smooth between them.
ENDS = np.geomspace(1e-3, 1e3, 61)
# The likelihood of a far end hardly falls, so that it may have no maximum. Each unit of the shape costs this much of
# the logarithm, which changes nothing where the data tell the end (ours; Coles & Dixon 1999 penalise the same way).
PENALTY = 0.01
# Below it the density is infinite at the end itself and the likelihood has no maximum (Smith 1985).
SMALLEST_SHAPE = 1.0
# Kolmogorov-Smirnov p-value under which a fit counts as none (ours). It is small, since the gradients of piecewise
# linear networks take few values and a sample has a fit for each target.
SIGNIFICANT = 1e-6
STEPS = 30  # bisections of the shape's logarithm: eight digits


def upper_end(maxima: Array) -> float:
    """The location of the reverse Weibull distribution of ``maxima`` (B,), all finite: the largest value there can be.

    For each end the scale and the shape have one solution; the end with the largest likelihood is taken. Where half of
    the maxima are one value it is the end itself. NaN where no such distribution fits.
    """
    top = float(maxima.max())
    if float((maxima >= top * (1 - SAME)).mean()) >= 0.5:
        return top
    spread = float(maxima.std())
    distance = (top - maxima[None, :]) / spread + ENDS[:, None]
    shape = _shapes(distance)
    scale = np.exp(_log_mean_power(distance, shape) / shape)
    logarithm = np.log(distance)
    # At the solution the scaled powers sum to the number of values, which is the last term.
    likelihood = len(maxima) * (np.log(shape) - shape * np.log(scale) - 1) + (shape - 1) * logarithm.sum(1)
    likelihood = np.where(shape >= SMALLEST_SHAPE, likelihood - PENALTY * shape, -np.inf)
    best = int(likelihood.argmax())
    if not np.isfinite(likelihood[best]):
        return float("nan")
    if not _fits(distance[best], float(shape[best]), float(scale[best])):
        return float("nan")
    return top + spread * float(ENDS[best])


def _shapes(distance: Array) -> Array:
    """The shapes (E,) of greatest likelihood for values ``distance`` (E, B) above 0, by bisection."""
    low, high = np.full(len(distance), np.log(1e-2)), np.full(len(distance), np.log(1e5))
    logarithm = np.log(distance)
    mean = logarithm.mean(1)
    for _ in range(STEPS):
        middle = (low + high) / 2
        shape = np.exp(middle)
        power = np.exp(shape[:, None] * (logarithm - logarithm.max(1, keepdims=True)))
        rising = (power * logarithm).sum(1) / power.sum(1) - 1 / shape - mean < 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    found: Array = np.exp((low + high) / 2)
    return found


def _log_mean_power(distance: Array, shape: Array) -> Array:
    """Logarithm of the mean (E,) of ``distance`` (E, B) to the power ``shape``, without overflow."""
    exponent = shape[:, None] * np.log(distance)
    top = exponent.max(1, keepdims=True)
    found: Array = np.log(np.exp(exponent - top).mean(1)) + top[:, 0]
    return found


def _fits(distance: Array, shape: float, scale: float) -> bool:
    from scipy.stats import kstest

    return bool(kstest(distance, lambda d: 1 - np.exp(-((d / scale) ** shape))).pvalue >= SIGNIFICANT)
