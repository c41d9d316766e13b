"""What a person reads in the terminal, made from the plain data of ``payload``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SIGNS = {"supported": "✓", "refuted": "✗", "inconclusive": "?", "error": "!"}


def failure(claims: Sequence[Mapping[str, Any]]) -> str:
    """Why a test failed: the first claim that is not supported in at most six lines, and how many others there are."""
    bad = [claim for claim in claims if claim["verdict"] != "supported"]
    text = explanation(bad[0])
    others = len(bad) - 1
    return text if not others else text.replace("\n", f"   (and {others} more of this test)\n", 1)


def explanation(claim: Mapping[str, Any]) -> str:
    """One claim in at most six lines: verdict, margin, measured, reported, attack set, reason."""
    lines = [f"{claim['verdict'].upper()}: {claim['text']}"]
    margin = claim["margin"]
    if claim["verdict"] != "error" and margin is not None:
        how = (
            "complete" if claim["complete"] else "decided early" if claim["verdict"] != "inconclusive" else "incomplete"
        )
        lines.append(f"margin:   {_range(margin['low'], margin['high'], signed=True)}   (n={claim['n']}, {how})")
        lines.append("measured: " + "; ".join(_measured(term) for term in claim["terms"]))
    comparison = claim["comparison"]
    if comparison is not None:
        number = comparison["reported"]
        lines.append(f"reported: {number['text']}   ({number['source']})")
    if claim["attack"]:
        lines.append(f"attack:   {claim['attack']}")
    if claim["reason"]:
        lines.append(f"reason:   {claim['reason']}" + (f"; to settle it: {claim['settle']}" if claim["settle"] else ""))
    return "\n".join(lines)


def line(claim: Mapping[str, Any]) -> str:
    """One claim in one line."""
    verdict = claim["verdict"]
    # Only a claim that is supported and was expected to be goes without saying.
    expected = f" (expected: {claim['expected']})"
    if claim["expected"] == verdict:
        expected = "" if verdict == "supported" else " (as expected)"
    margin = claim["margin"]
    tail = ""
    if margin is not None and verdict != "error":
        tail = f"  margin {_range(margin['low'], margin['high'], signed=True)}"
        tail += f", n={claim['n']}" if claim["n"] else ""
        how = "incomplete" if verdict == "inconclusive" else "early"
        tail += "" if claim["complete"] else f", {how}"
    elif claim["reason"]:
        tail = f"  {claim['reason']}"
    return f"{SIGNS[verdict]} {verdict}{expected}  {claim['id']}  {claim['text']}{tail}"


def _measured(term: Mapping[str, Any]) -> str:
    text = f"{term['subject']}.{term['metric']} {_range(term['low'], term['high'])}"
    if term["value"] is not None and term["low"] != term["high"]:
        # Of a timing the interval counts; of samples it is what an attack that is not trusted found.
        how = "not counted" if term["n"] else _range(term["low"], term["high"])
        text = f"{term['subject']}.{term['metric']} {_number(term['value'])} ({how})"
    return text


def _range(low: object, high: object, *, signed: bool = False) -> str:
    if low == high:
        return _number(low, signed=signed)
    if (low, high) == ("-inf", "inf"):
        return "not known"
    return f"between {_number(low, signed=signed)} and {_number(high, signed=signed)}"


def _number(value: object, *, signed: bool = False) -> str:
    if not isinstance(value, (int, float)):
        return str(value).replace("-", "−")
    plain = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if "e-" in plain and abs(value) > 1e-4:
        plain = f"{value:.4f}"
    return ("+" + plain if signed and value > 0 else plain).replace("-", "−")
