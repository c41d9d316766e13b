"""How much is to go: exact shares from what people write."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.errors import CompressionError


def parse_amount(value: object) -> Fraction:
    """The exact sparsity that ``value`` (a string, number or ``Fraction``) names, 0 ≤ sparsity < 1.

    Floats count as they print (0.9 is 9/10). Raises ``CompressionError`` for everything else.
    """
    parsed = _fraction(value)
    if parsed is not None and 0 <= parsed < 1:
        return parsed
    hint = _nearest(value, parsed)
    raise CompressionError(
        f"sparsity {value!r}: allowed is the share that is pruned, from 0 up to but not including 1"
        + (f"; did you mean {hint}?" if hint else "")
    )


def _fraction(value: object) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Fraction):
        return None
    try:
        return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError):
        return None


def _nearest(value: object, parsed: Fraction | None) -> str | None:
    """What was probably meant by a percentage, a decimal comma or a stray minus sign."""
    if parsed is None and isinstance(value, str):
        text = value.strip().replace(",", ".")
        parsed = _fraction(text.removesuffix("%").strip())
        if parsed is not None and text.endswith("%"):
            parsed /= 100
    if parsed is None:
        return None
    size = abs(parsed)
    if 1 < size < 100:
        size /= 100
    if not 0 < size < 1:
        return None
    digits = f"{float(size):.4f}".rstrip("0")
    return digits.ljust(4, "0")
