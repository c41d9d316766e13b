"""How the amount grows from step to step of iterative pruning; the last step always lands on the target."""

from __future__ import annotations

from fractions import Fraction


def halving(amount: Fraction) -> tuple[Fraction, ...]:
    """1/2, 3/4, 7/8, … below ``amount`` and then ``amount`` itself; empty for 0.

    Each step halves what is left (Merkle, Samsinger & Schöttle 2021, Sec. 3.3).
    """
    steps = []
    left = Fraction(1, 2)
    while 1 - left < amount:
        steps.append(1 - left)
        left /= 2
    return (*steps, amount) if amount else ()
