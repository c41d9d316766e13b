"""The loops over features in foolbox's solver for the steps of Brendel & Bethge's L0 attack, as array operations.

A step δ from the iterate ``x`` towards the sample ``x0`` (both (F,), in the box [low, high]) solves: change as few
features of ``x0`` as possible, on the linearised boundary b·δ = c and no farther than r (Brendel et al. 2019, Eq. 2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
EPS = 1e-10  # foolbox's guard of its divisions
BISECTIONS = 200  # foolbox goes on for ever; float64 has no more halves than 64 between two numbers of one scale (ours)


class Loops:
    """Methods of foolbox's ``Optimizer`` and ``L0Optimizer`` under their own names; see there for their meaning."""

    def solve(self, x0: Array, x: Array, b: Array, low: float, high: float, c: float, r: float) -> Array:
        """The step δ (F,); none where there is no boundary to go along, which foolbox would look for without end."""
        if not (np.isfinite(b).all() and np.isfinite(c)):
            return np.zeros_like(x)
        step: Array = super().solve(x0, x, b, low, high, c, r)  # type: ignore[misc]
        return step

    def _max_logit_diff(self, x: Array, b: Array, low: float, high: float, c: float) -> tuple[float, float]:
        step = np.where((b > 0) == (c > 0), high - x, low - x)
        return float(b @ step), float(np.linalg.norm(step))

    def _minimum_norm_to_boundary(self, x: Array, b: Array, low: float, high: float, c: float, bnorm: float) -> float:
        least, most = 2 * c / (bnorm**2 + EPS), np.sign(c) * np.inf
        factor, norm = least, np.inf
        for _ in range(BISECTIONS):
            step = (factor * b / 2).clip(low - x, high - x)
            reached, norm = abs(b @ step), float(np.linalg.norm(step))
            if 0.999 * abs(c) - EPS < reached < 1.001 * abs(c) + EPS:
                break
            if reached < abs(c):
                least = factor
                factor = 2 * factor if np.isinf(most) else (least + most) / 2
            else:
                most = factor
                factor = (least + most) / 2
        return norm

    def optimize_boundary_s_t_trustregion_fun_and_jac(
        self, params: Array, x0: Array, x: Array, b: Array, low: float, high: float, c: float, r: float
    ) -> tuple[float, Array]:
        """The negative dual of the largest step towards the boundary, and its derivative."""
        mu = params[0]
        wanted = np.sign(c) * b / (2 * mu + EPS)
        step = wanted.clip(low - x, high - x)
        free = step == wanted
        slope = ((b + 2 * mu * step) * b)[free].sum() / (2 * mu**2 + EPS) + step @ step - r**2
        return -float((b + mu * step) @ step - mu * r**2), -np.array([slope])

    def optimize_boundary_s_t_trustregion(
        self, x0: Array, x: Array, b: Array, low: float, high: float, c: float, r: float
    ) -> Array:
        """The largest step towards the boundary."""
        dual = self.optimize_boundary_s_t_trustregion_fun_and_jac
        bounds = np.array([(0, np.inf)])
        found = self.bfgsb.solve(dual, np.array([1.0]), bounds, (x0, x, b, low, high, c, r))  # type: ignore[attr-defined]
        step: Array = (-b / max(2 * found[0], EPS)).clip(low - x, high - x)
        return step

    def minimize_without_trustregion(
        self, x0: Array, x: Array, b: Array, c: float, r: float, low: float, high: float
    ) -> tuple[Array, float]:
        """Back to the sample, then the features that bring most to the end of the box, until the boundary is there."""
        step = x0 - x
        rest = c - b @ step
        whole = np.where((b > 0) == (rest > 0), high - x0, low - x0)
        gain = np.abs(whole * b)
        order = np.argsort(gain)[::-1]
        last = int(np.searchsorted(gain[order].cumsum(), abs(rest)))
        step[order[:last]] += whole[order[:last]]
        if last < len(order):
            step[order[last]] += (c - b @ step) / (b[order[last]] + 1e-20)
        return step, float(np.linalg.norm(step))

    def fun(self, params: Array, x0: Array, x: Array, b: Array, low: float, high: float, c: float, r: float) -> float:
        """The dual of the whole problem."""
        lam, mu = params
        _, costs = _choices(lam, mu, x0, x, b, low, high)
        return float(costs.min(0).sum() - mu * r**2 - lam * c)

    def _L0Optimizer__get_final_delta(
        self,
        lam: float,
        mu: float,
        x0: Array,
        x: Array,
        b: Array,
        low: float,
        high: float,
        c: float,
        r: float,
        touchup: bool = True,
    ) -> Array | None:
        """The step of the dual's solution, moved onto the boundary in the one feature where that changes fewest."""
        steps, costs = _choices(lam, mu, x0, x, b, low, high)
        step: Array = np.take_along_axis(steps, costs.argmin(0)[None], 0)[0]
        if not touchup:
            return step
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = step + (c - b @ step) / (b + np.sign(b) * EPS)
        norm = step @ step - step**2 + moved**2
        fits = (b != 0) & (x + moved <= high) & (x + moved >= low) & (norm <= r**2)
        if not fits.any():
            return None
        changes = (np.abs(moved - (x0 - x)) > EPS).astype(float) - (np.abs(step - (x0 - x)) > EPS)
        places = fits.nonzero()[0]
        best = places[np.lexsort((norm[places], changes[places]))[0]]
        step[best] = moved[best]
        return step


def _choices(lam: float, mu: float, x0: Array, x: Array, b: Array, low: float, high: float) -> tuple[Array, Array]:
    """What each feature may do, first of all back to the sample, and what that costs: two arrays (choices, F)."""
    back, slope = x0 - x, lam * b
    if mu > 0:
        other = (-slope / (2 * mu + EPS)).clip(low - x, high - x)
        return np.stack([back, other]), np.stack([slope * back + mu * back**2, 1 + slope * other + mu * other**2])
    steps = np.stack([back, low - x, high - x])
    return steps, slope * steps + np.array([[0.0], [1.0], [1.0]])
