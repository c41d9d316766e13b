"""``prunerob lock``: write down what is expected of each claim of a run."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report import results as results_file
from pytest_prunerob.report.gate import Waiver, deviations, setting, waivers

HELP = "write to stdout what is expected of each claim of a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--models", action="store_true", help="lock the fingerprints of the models too")
    parser.add_argument(
        "--waive",
        nargs=3,
        action="append",
        default=[],
        metavar=("ID", "REASON", "DATE"),
        help="until the end of DATE (YYYY-MM-DD) the claim ID need not come out as expected",
    )
    parser.add_argument("--from", dest="old", type=Path, metavar="LOCK", help="keep the waivers of this lock")


def run(given: argparse.Namespace) -> int:
    """Print the lock of a complete run; on stderr, what it no longer says of the lock before it."""
    results, today = results_file.read(given.results), datetime.now(UTC).date()
    old = None if given.old is None else results_file.read_lock(given.old)
    asked = [_waiver(*each, today=today) for each in given.waive]
    kept = [] if old is None else _kept(old, results, today)
    lock = lock_of(results, waived=[*kept, *asked], models=given.models, today=today)
    if old is not None:
        for sentence in _changes(old, lock):
            print(f"prunerob lock: {sentence}", file=sys.stderr)  # noqa: T201
    print(json.dumps(lock, indent=1, ensure_ascii=False))  # noqa: T201 - the product
    return 0


def lock_of(
    results: Mapping[str, Any], *, waived: Sequence[Waiver] = (), models: bool = False, today: date | None = None
) -> dict[str, Any]:
    """The lock that expects of every claim what its suite expects, with the ``waived`` ones; ``models`` pins them.

    Raises:
        ResultsError: where the run is not complete, or a claim that is not waived did not come out as the suite
            expects.
    """
    if results["status"] != "complete":
        raise ResultsError(f"the run is {results['status']}: lock a complete one")
    if results["budget"]["exhausted"]:
        raise ResultsError("the time budget was spent before every claim was decided: run again, then lock")
    if not results["claims"]:
        raise ResultsError("the results hold no claim")
    settings = {(claim["population"], claim["confidence"]) for claim in results["claims"]}
    if len(settings) > 1:
        raise ResultsError(f"the claims have different populations or confidences: {sorted(settings)}")
    ((population, confidence),) = settings
    cells = {cell["id"]: cell for cell in results["cells"]}
    exceptions = {waiver.claim: waiver for waiver in waived}
    names = {claim["id"] for claim in results["claims"]}
    for name in exceptions:
        if name not in names:
            raise ResultsError(_unknown_claim(name, names))
    odd = [each for each in results["claims"] if each["verdict"] != each["expected"] and each["id"] not in exceptions]
    if odd:
        more = f" (and {len(odd) - 1} more like it)" if len(odd) > 1 else ""
        raise ResultsError(
            f"{odd[0]['id']} is {odd[0]['verdict']} and the suite expects {odd[0]['expected']}{more}: "
            f"mend the model or the claim, mark the cell xfail, or waive the claim, before locking"
        )
    lock = {
        "schema": results_file.LOCK_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "population": population,
        "confidence": confidence,
        "decide": setting(results, "decide"),
        "adequacy": setting(results, "adequacy"),
        "seed": results["environment"]["seed"],
        "subjects": _subjects(results) if models else {},
        "claims": {
            claim["id"]: _entry(claim, cells[claim["cell"]], exceptions.get(claim["id"]), models)
            for claim in results["claims"]
        },
    }
    # A lock that its own run does not fulfil would expect what nobody has seen.
    for sentence in deviations(results, lock, today or datetime.now(UTC).date()):
        raise ResultsError(sentence)
    return lock


def _entry(claim: Mapping[str, Any], cell: Mapping[str, Any], waiver: Waiver | None, models: bool) -> dict[str, Any]:
    return {
        "text": claim["text"],
        "expected": claim["expected"],
        "n": claim["n"],
        "dataset": None if cell["dataset"] is None else cell["dataset"]["digest"],
        "subjects": sorted(cell["subjects"]) if models else None,
        "waiver": None if waiver is None else {"reason": waiver.reason, "expires": waiver.expires.isoformat()},
    }


def _subjects(results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        digest: {"weights": subject["weights"], "roles": sorted(subject["roles"])}
        for digest, subject in sorted(results["subjects"].items())
    }


def _waiver(claim: str, reason: str, expires: str, *, today: date) -> Waiver:
    try:
        day = date.fromisoformat(expires)
    except ValueError:
        raise ResultsError(f"--waive {claim!r}: {expires!r} is no day such as {today}") from None
    if day < today:
        raise ResultsError(f"--waive {claim!r}: {expires} is over")
    if not reason.strip():
        raise ResultsError(f"--waive {claim!r}: the reason is empty")
    return Waiver(claim, reason, day)


def _kept(old: Mapping[str, Any], results: Mapping[str, Any], today: date) -> list[Waiver]:
    """The waivers that still hold, for claims that still say the same."""
    texts = {claim["id"]: claim["text"] for claim in results["claims"]}
    return [
        waiver
        for waiver in waivers(old)
        if waiver.holds(today) and texts.get(waiver.claim) == old["claims"][waiver.claim]["text"]
    ]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What the new lock no longer asks for, for whoever reviews it."""
    found = []
    for name, before in old["claims"].items():
        now = new["claims"].get(name)
        if now is None:
            found.append(f"no longer locked: {name}")
            continue
        for field in ("expected", "text", "n"):
            if before[field] != now[field]:
                found.append(f"{name}: {field} was {before[field]!r} and is {now[field]!r}")
        if before["waiver"] is not None and now["waiver"] is None:
            found.append(f"{name}: no longer waived (until {before['waiver']['expires']})")
    return found


def _unknown_claim(name: str, names: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown claim {name!r}: it is none of the {len(names)} of the run{hint}"
