"""Deciding before all samples are seen: confidence sets that hold at every sample at once (``decide=sequential``).

The samples stand in a random order that the outcomes do not know of (``Dataset.first``: a hash permutation), so a
prefix is drawn without replacement from all of them. A set that covers at all prefixes together with the stated
confidence may be looked at after every sample, which no fixed-sample interval allows: peeking at Clopper-Pearson gives
about 18 % wrong passes. Only the contiguous prefix counts, since the samples that are done first are the ones that
break soonest.

The answer is the one at the *first* prefix that decides, so it does not depend on which samples were finished when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp, log
from typing import TYPE_CHECKING, Any, Literal

from pytest_prunerob.errors import ClaimError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# How much evidence, on the log scale, is disregarded to make up for rounding: lgamma at 10^7 is off by 3e-8 (ours).
GUARD = 1e-6
BETS = 24  # stakes between which a bet is divided; more gain nothing (ours)


@dataclass(frozen=True)
class Stop:
    """The first prefix that decides: ``seen`` of the samples, and the confidence set [``low``, ``high``] of a sum.

    The sum is over all samples: how many survive, or by how many more survive in one of a pair. ``p_value`` is the
    anytime-valid one of the claim's null hypothesis.
    """

    status: Literal["supported", "refuted"]
    seen: int
    low: int
    high: int
    p_value: float


def stop_share(
    outcomes: Sequence[bool], total: int, error: Fraction, least: int, most: int, *, trusted: bool = True
) -> Stop | None:
    """Decide whether between ``least`` and ``most`` of ``total`` samples survive, from those seen first.

    ``outcomes`` are those of the contiguous prefix. The set is that of the prior-posterior ratio under a uniform prior
    (Waudby-Smith & Ramdas 2020, "Confidence sequences for sampling without replacement", theorem 2.1), at ``error``.
    Where survival is not ``trusted``, the set has no lower end.

    Raises:
        ClaimError: for more outcomes than samples, or an error that is no probability.
    """
    import numpy as np

    low, high = share_sets(outcomes, total, error)
    if not trusted:
        low = np.zeros_like(low)
    supported = (low >= least) & (high <= most)
    refuted = (high < least) | (low > most)
    where = np.flatnonzero(supported | refuted)
    if not len(where):
        return None
    seen = int(where[0])
    p_value = _null_probability(outcomes[:seen], total, least, most) if trusted else 1.0
    status: Literal["supported", "refuted"] = "supported" if supported[seen] else "refuted"
    return Stop(status, seen, int(low[seen]), int(high[seen]), p_value)


def share_sets(outcomes: Sequence[bool], total: int, error: Fraction) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ends of the confidence set for the number of survivors among ``total`` after 0, 1, … ``len(outcomes)`` samples.

    K is in the set after n samples with S survivors where posterior(K) > error · prior(K). That ratio rises in K up to
    its mode floor(S (total + 1) / n) and falls after it, so both ends are found by bisection.
    """
    import numpy as np

    _check(len(outcomes), total, error)
    seen = np.arange(len(outcomes) + 1)
    survived = np.concatenate([[0], np.cumsum(np.asarray(outcomes, dtype=np.int64))])
    table = _log_factorials(total)
    bar = log(error) - GUARD

    def inside(k: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(_log_ratio(k, survived, seen, total, table) > bar)

    first, last = survived, total - seen + survived
    mode = np.clip(survived * (total + 1) // np.maximum(seen, 1), first, last)
    return _edge(inside, mode, first), _edge(inside, mode, last)


def stop_difference(
    differences: Sequence[int],
    total: int,
    error: Fraction,
    least: int,
    *,
    may_support: bool = True,
    may_refute: bool = True,
) -> Stop | None:
    """Decide whether the sum of ``total`` paired differences (−1, 0 or 1) is at least ``least``.

    ``differences`` are those of the contiguous prefix. Either way is a test by betting at ``error``: at most one of
    them can be wrong, since one of the two hypotheses holds.
    """
    up = list(differences)
    down = [-difference for difference in up]
    capital_up = wealth(up, total, least - 1)
    found = {
        "supported": _first_above(capital_up, error) if may_support else None,
        "refuted": _first_above(wealth(down, total, -least), error) if may_refute else None,
    }
    reached = {status: seen for status, seen in found.items() if seen is not None}
    if not reached or len(set(reached.values())) < len(reached):
        return None
    status = min(reached, key=reached.__getitem__)
    seen = reached[status]
    low = _lower_end(up[:seen], total, error) if may_support else -total
    high = -_lower_end(down[:seen], total, error) if may_refute else total
    p_value = min(1.0, exp(-max(0.0, float(capital_up[: seen + 1].max())))) if may_support else 1.0
    return Stop("supported" if status == "supported" else "refuted", seen, low, high, p_value)


def wealth(differences: Sequence[int], total: int, most: int) -> NDArray[Any]:
    """Log capital after 0, 1, … samples of bets against "the sum of all ``total`` differences is at most ``most``".

    Under that hypothesis what is left to come has a mean of at most m (what ``most`` leaves, over the samples left), so
    a stake of θ of the capital on more than m multiplies it by 1 − θ + θ x / m, a fair game at best, where x in [0, 1]
    is the next difference on the scale (d + 1) / 2 (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random
    variables by betting", section 5, without replacement). The capital is divided among stakes that lie as the arcsine
    law has them (Cover's universal portfolio), so no variance has to be known. By Ville's inequality it exceeds
    1 / error with a probability of at most ``error``, at any time.
    """
    import numpy as np

    _check(len(differences), total, Fraction(1, 2))
    steps = np.asarray(differences, dtype=np.int64) + 1  # in halves of x
    before = np.concatenate([[0], np.cumsum(steps)])
    left = most + total - before  # halves that the hypothesis leaves for the samples still to come
    to_come = total - np.arange(len(steps) + 1)
    stakes = np.sin(np.pi * (2 * np.arange(BETS) + 1) / (4 * BETS)) ** 2
    # No bet where the hypothesis can no longer fail (m ≥ 1), nor where it leaves nothing (m = 0).
    open_bets = (left[:-1] > 0) & (left[:-1] < 2 * to_come[:-1])
    odds = np.where(open_bets, steps * to_come[:-1] / np.maximum(left[:-1], 1), 1.0)
    logs = np.log(1 - stakes[None] + stakes[None] * odds[:, None])
    capital = np.concatenate([np.zeros((1, BETS)), np.cumsum(logs, axis=0)])
    found = np.logaddexp.reduce(capital, axis=1) - log(BETS)
    return np.asarray(np.where(np.minimum.accumulate(left) < 0, np.inf, found))  # left < 0: it is false for certain


def _lower_end(differences: Sequence[int], total: int, error: Fraction) -> int:
    """The smallest sum of all differences that the bets on these do not reject; they reject all below it."""
    low, high = -total - 1, total  # the first is rejected: no sum is as small
    while high - low > 1:
        middle = (low + high) // 2
        rejected = _first_above(wealth(differences, total, middle), error) is not None
        low, high = (middle, high) if rejected else (low, middle)
    return high


def _first_above(log_capital: NDArray[Any], error: Fraction) -> int | None:
    import numpy as np

    where = np.flatnonzero(log_capital > GUARD - log(error))
    return int(where[0]) if len(where) else None


def _edge(inside: Callable[[NDArray[Any]], NDArray[Any]], mode: NDArray[Any], end: NDArray[Any]) -> NDArray[Any]:
    """The last number from ``mode`` towards ``end`` that is inside, for all places at once."""
    import numpy as np

    good, bad = mode.copy(), end.copy()
    good = np.where(inside(end), end, good)
    while (np.abs(good - bad) > 1).any():
        middle = (good + bad) // 2
        hit = inside(middle)
        good, bad = np.where(hit, middle, good), np.where(hit, bad, middle)
    return np.asarray(good)


def _null_probability(outcomes: Sequence[bool], total: int, least: int, most: int) -> float:
    """The largest posterior-to-prior ratio of a number outside ``least`` … ``most``, at most 1."""
    import numpy as np

    seen, survived = len(outcomes), sum(outcomes)
    k = np.arange(survived, total - seen + survived + 1)
    null = k[(k < least) | (k > most)]
    if not len(null):
        return 0.0
    ratio = _log_ratio(null, np.array(survived), np.array(seen), total, _log_factorials(total))
    return min(1.0, exp(min(0.0, float(ratio.max()))))


def _log_ratio(
    k: NDArray[Any], survived: NDArray[Any], seen: NDArray[Any], total: int, table: NDArray[Any]
) -> NDArray[Any]:
    """Log of posterior over prior of ``k`` survivors among ``total``, of which ``seen`` showed ``survived``.

    (seen + 1) · C(k, survived) · C(total − k, seen − survived) / C(total, seen), with the uniform prior.
    """
    import numpy as np

    def choose(n: Any, r: Any) -> NDArray[Any]:
        return np.asarray(table[n] - table[r] - table[n - r])

    return np.asarray(
        np.log(seen + 1.0) + choose(k, survived) + choose(total - k, seen - survived) - choose(total, seen)
    )


def _log_factorials(total: int) -> NDArray[Any]:
    import numpy as np
    from scipy.special import gammaln

    return np.asarray(gammaln(np.arange(total + 1) + 1.0))


def _check(seen: int, total: int, error: Fraction) -> None:
    if not 0 <= seen <= total or total < 1:
        raise ClaimError(f"{seen} outcomes were seen of {total} samples")
    if not 0 < error < 1:
        raise ClaimError(f"the error probability lies between 0 and 1, received {error}")
