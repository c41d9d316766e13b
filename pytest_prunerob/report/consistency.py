"""Whether the parts of a results document agree with each other.

Results are not signed, and whoever can write the file can write all of it. What is checked here is what a slip of ours,
a merge or an edit of one field by hand would leave behind: a verdict that its own margin, its test's outcome or the
counts of its measurement contradict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

ROUNDING = 1e-9
"""Largest difference of two shares that are the same number (ours; shares are fractions of whole samples)."""


def contradictions(results: Mapping[str, Any]) -> list[str]:
    """What in ``results`` cannot be true at the same time, a sentence each."""
    found: list[str] = []
    for key, measurement in results["measurements"].items():
        found += (f"measurement {key[:12]}: {problem}" for problem in _of_measurement(measurement))
    claims = {claim["id"]: claim for claim in results["claims"]}
    for claim in claims.values():
        found += (f"{claim['id']}: {problem}" for problem in _of_claim(claim, results["measurements"]))
    for cell in results["cells"]:
        found += (f"{cell['id']}: {problem}" for problem in _of_cell(cell, [claims[name] for name in cell["claims"]]))
    if results["status"] == "complete":
        if results["exit_status"] not in (0, 1, 5):
            found.append(f"the run is complete and its exit status is {results['exit_status']}")
        if results["selection"]["planned"] != len(results["cells"]):
            found.append(f"{results['selection']['planned']} cells were planned and {len(results['cells'])} are there")
    return found


def _of_measurement(measurement: Mapping[str, Any]) -> Iterator[str]:
    parts = ["broken", "survived", "undecided", "errors"]
    if measurement["kind"] == "decide":  # the other kinds attack the clean errors too
        parts.append("clean_errors")
    total = sum(measurement[name] for name in parts)
    if total != measurement["n"]:
        yield f"{' + '.join(parts)} is {total}, of {measurement['n']} samples"
    if measurement["complete"] and measurement["undecided"]:
        yield f"it is complete with {measurement['undecided']} samples undecided"


def _of_claim(claim: Mapping[str, Any], measurements: Mapping[str, Any]) -> Iterator[str]:
    margin, verdict = claim["margin"], claim["verdict"]
    if verdict in ("supported", "refuted"):
        if margin is None:
            yield f"it is {verdict} without a margin"
        else:
            low, high = _number(margin["low"], -inf), _number(margin["high"])
            # A sequential decision comes when its whole confidence set, which is its margin, is on one side.
            if low > high + ROUNDING:
                yield f"its margin reaches from {low:g} to {high:g}"
            if verdict == "supported" and low < -ROUNDING:
                yield f"it is supported with a margin of {low:g}"
            if verdict == "refuted" and high > ROUNDING:
                yield f"it is refuted with a margin of {high:g}"
    for term in claim["terms"]:
        yield from _of_term(term, measurements)
    if claim["complete"] and not all(term["complete"] for term in claim["terms"]):
        yield "it is complete and a term of it is not"


def _of_term(term: Mapping[str, Any], measurements: Mapping[str, Any]) -> Iterator[str]:
    low, high = _number(term["low"], -inf), _number(term["high"])
    if low > high + ROUNDING:
        yield f"{term['text']} lies between {low:g} and {high:g}"
    measurement = measurements.get(term["measurement"])
    if term["metric"] != "robust_accuracy" or measurement is None or not measurement["n"]:
        return
    if measurement["kind"] != "decide":
        yield f"{term['text']} rests on a measurement of kind {measurement['kind']}"
        return
    # A ledger only grows, and what one worker knows of it another may not know yet; but both must be possible.
    share = measurement["survived"] / measurement["n"]
    most = share + (measurement["undecided"] + measurement["errors"]) / measurement["n"]
    if low > most + ROUNDING or share > high + ROUNDING:
        yield f"{term['text']} lies between {low:g} and {high:g}, its measurement between {share:g} and {most:g}"
    value = _number(term["value"])
    if term["value"] is not None and measurement["complete"] and abs(value - share) > ROUNDING:
        yield f"{term['text']} is {value:g}, and {share:g} of the samples of its measurement survived"


def _of_cell(cell: Mapping[str, Any], claims: list[Mapping[str, Any]]) -> Iterator[str]:
    verdicts = {claim["verdict"] for claim in claims}
    if cell["status"] == "passed" and verdicts != {"supported"}:
        found = ", ".join(sorted(verdicts)) or "absent"
        yield f"the test passed and its claims are {found}"
    if cell["status"] == "xfailed" and "refuted" not in verdicts:
        yield "the test failed as expected and no claim of it is refuted"


def _number(value: float | str | None, unknown: float = inf) -> float:
    return unknown if value is None else float(value)
