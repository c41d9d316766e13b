"""How numbers are written in a report: percent with the digits that n carries, real minus signs, no false zero."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Unit = Literal["share", "probability", "count", "bytes", "ms", "number"]
Extended = float | int | str | None

SPACE = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NONE = "–"

UNITS: dict[str, Unit] = {
    "accuracy": "share",
    "robust_accuracy": "share",
    "accuracy_under": "share",
    "transfer": "share",
    "corruption_accuracy": "share",
    "security_curve": "share",
    "sparsity": "share",
    "share": "share",
    "failed": "share",
    "auc_s10": "probability",
    "auc_s01": "probability",
    "parameters": "count",
    "nonzeros": "count",
    "flops": "count",
    "size_bytes": "bytes",
    "latency": "ms",
}
SIGNS: dict[Unit, str] = {"share": "%", "bytes": "B", "ms": "ms"}
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def common_unit(terms: Iterable[Mapping[str, Any]]) -> Unit:
    """The unit that all measured terms of a claim have in common; a published number takes that of the others."""
    units = {UNITS.get(term["metric"], "number") for term in terms if term["metric"] != "reported"}
    return units.pop() if len(units) == 1 else "number"


def value(number: Extended, unit: Unit, n: int = 0) -> str:
    """A number with its unit: ``0.645`` of 200 samples is "64.5 %", an AUC "0.882", an infinite distance "∞"."""
    text = _bare(number, unit, n)
    return f"{text}{SPACE}{SIGNS[unit]}" if unit in SIGNS and text != NONE else text


def span(low: Extended, high: Extended, unit: Unit, n: int = 0) -> str:
    """What is known of a number: one value where both ends agree, else ``[low, high]``."""
    if low == high:
        return value(low, unit, n)
    if (low, high) == ("-inf", "inf"):
        return "not known"
    return f"[{value(low, unit, n)}, {value(high, unit, n)}]"


def difference(low: Extended, high: Extended, unit: Unit, n: int = 0) -> str:
    """A signed difference, or the range it lies in; differences of shares are in percentage points."""
    if low is None and high is None:
        return NONE
    if (low, high) == ("-inf", "inf"):
        return "not known"
    text = _signed(low, unit, n) if low == high else f"[{_signed(low, unit, n)}, {_signed(high, unit, n)}]"
    if unit == "share":
        return f"{text} points"
    return f"{text}{SPACE}{SIGNS[unit]}" if unit in SIGNS else text


def interval(bounds: Mapping[str, Any] | None, unit: Unit, n: int = 0) -> str:
    """A confidence interval as "57.4–71.1 %"."""
    if bounds is None:
        return NONE
    low = _bare(bounds["low"], unit, n)
    high = value(bounds["high"], unit, n)
    return f"{low} to {high}" if MINUS in low + high else f"{low}–{high}"


def interval_heading(holders: Iterable[Mapping[str, Any]]) -> str:
    """The column heading over the intervals of ``holders``, which names their confidence."""
    levels = sorted({holder["interval"]["confidence"] for holder in holders if holder["interval"] is not None})
    return f"{' and '.join(percent(level) for level in levels)} interval".strip().capitalize()


def percent(level: float) -> str:
    """A confidence level: 0.95 is "95 %"."""
    return f"{100 * level:.6g}{SPACE}%"


def count(number: int) -> str:
    """An integer with its digits in groups of three."""
    return f"{number:,}".replace(",", SPACE).replace("-", MINUS)


def seconds(number: float) -> str:
    """A duration: "0.03 s", "4.1 s", "2 min 18 s", "1 h 04 min"."""
    if number < 59.95:
        digits = 2 if 0 < number < 1 else 1
        return f"{number:.{digits}f}{SPACE}s"
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest:02}{SPACE}s"
    return f"{count(minutes // 60)}{SPACE}h {minutes % 60:02}{SPACE}min"


def plural(number: int, noun: str) -> str:
    """A number and its noun: "1 claim", "2 claims"."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def _signed(number: Extended, unit: Unit, n: int) -> str:
    text = _bare(number, unit, n)
    return text if text[0] in MINUS + NONE or number == 0 else f"+{text}"


def _bare(number: Extended, unit: Unit, n: int) -> str:
    """A number without its unit sign."""
    if number is None:
        return NONE
    if isinstance(number, str):
        return f"{MINUS}∞" if number.startswith("-") else "∞"
    if unit == "share" and abs(number) < 1e6:
        # One digit more than steps of 1/n need where n passes a thousand.
        return _fixed(100 * number, max(1, math.ceil(math.log10(n)) - 2) if n else 1, 100)
    if unit == "probability" and abs(number) < 1e6:
        return _fixed(number, 3, 1)
    if unit in ("count", "bytes") and abs(number) < 1e15 and number == int(number):
        return count(int(number))
    return _significant(number)


def _fixed(number: float, digits: int, whole: float) -> str:
    """Fixed digits, more where a value near 0 or the whole would be written as if it were exactly that."""
    for extra in range(7):
        text = f"{number:.{digits + extra}f}"
        if abs(float(text)) not in (0.0, whole) or abs(number - float(text)) < 1e-9:
            break
    return f"{MINUS}{text[1:]}" if text.startswith("-") and float(text) else text.removeprefix("-")


def _significant(number: float) -> str:
    """Four significant digits, with a power of ten where the digits would run long."""
    mantissa, _, exponent = f"{number:.4g}".partition("e")
    text = mantissa.replace("-", MINUS)
    return f"{text}{SPACE}×{SPACE}10{str(int(exponent)).translate(_SUPERSCRIPT)}" if exponent else text
