"""How the amount grows from step to step of iterative pruning; the last step always lands on the target."""

from __future__ import annotations

from fractions import Fraction


def halving(amount: Fraction) -> tuple[Fraction, ...]:
    """1/2, 3/4, 7/8, … below ``amount`` and then ``amount`` itself; empty for 0.

    Each step halves what is left (Merkle, Samsinger & Schöttle 2021, Sec. 3.3).
    """
    return shrinking(amount, Fraction(1, 2))


def shrinking(amount: Fraction, left: Fraction) -> tuple[Fraction, ...]:
    """``1 - left``, ``1 - left²``, … below ``amount`` and then ``amount`` itself; empty for 0.

    Each step leaves the share ``left`` (0 < left < 1) of what was left before.
    """
    steps = []
    rest = left
    while 1 - rest < amount:
        steps.append(1 - rest)
        rest *= left
    return (*steps, amount) if amount else ()


def exponential(initial: Fraction, target: Fraction, steps: int) -> tuple[Fraction, ...]:
    """``steps`` shares from ``initial`` to ``target`` of which each leaves the same part of what was left before.

    The share left after step i of n is ``(1 - initial) · ((1 - target) / (1 - initial)) ^ (i / (n - 1))``, i from 0
    (NNCF's exponential schedule); the ends are exact, the steps between them rounded to millionths. Where ``target`` is
    not above ``initial``, or there is one step, that step is the target.
    """
    if steps == 1 or target <= initial:
        return (target,)
    left, ratio = float(1 - initial), float((1 - target) / (1 - initial))
    inner = (1 - left * ratio ** (step / (steps - 1)) for step in range(1, steps - 1))
    # Rounding must not lead beyond the target: what is pruned stays pruned.
    return (initial, *(min(max(Fraction(round(share * 10**6), 10**6), initial), target) for share in inner), target)
