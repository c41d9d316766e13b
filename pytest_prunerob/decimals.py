"""Numbers as they were written: exact fractions from what a claim gives, and decimals of them."""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from fractions import Fraction

SUPPORTED_FORM = "quantities support + - and * with numbers, such as 'pruned.accuracy() - dense.accuracy() >= -0.02'"


def exact(value: object) -> Fraction:
    """``value`` as an exact number: 0.03 is 3/100, as it was written.

    Raises:
        TypeError: where it is no finite real number.
    """
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        raise TypeError(f"{value!r} is no number; {SUPPORTED_FORM}")
    if isinstance(value, (int, Fraction)):
        return Fraction(value)
    if not math.isfinite(value):
        raise TypeError(f"{value!r} is not finite")
    return Fraction(value) if isinstance(value, Decimal) else Fraction(repr(float(value)))


def decimal(value: Fraction) -> str:
    """``value`` as a decimal where that is exact, else as a fraction."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return str(value)
    # By whole numbers: a Decimal would round to its context's 28 digits.
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    text = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
    return f"-{text}" if value < 0 else text
