"""The command ``prunerob``: lock what is expected of each claim, and verify results against the lock."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import PrunerobError, ResultsError, unknown
from pytest_prunerob.report import results as results_file

# pytest's own numbers, so that a CI job reads both commands alike.
OK, FAILED, USAGE = 0, 1, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 as expected, 1 not as expected, 4 bad input."""
    parser = argparse.ArgumentParser(prog="prunerob", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lock = commands.add_parser("lock", help="write to stdout what is expected of each claim of a run")
    lock.add_argument("results", type=Path, metavar="RESULTS")
    verify = commands.add_parser(
        "verify", help="check that a run is complete and every locked claim came out as expected"
    )
    verify.add_argument("results", type=Path, metavar="RESULTS")
    verify.add_argument("--lock", type=Path, required=True, metavar="LOCK", help="the file that 'prunerob lock' wrote")
    verify.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the weights that the subject NAME (dense, pruned, …) must have had: .safetensors or .pt",
    )
    given = parser.parse_args(arguments)
    try:
        return _lock(given.results) if given.command == "lock" else _verify(given.results, given.lock, given.model)
    except PrunerobError as error:
        print(f"prunerob {given.command}: {error}", file=sys.stderr)  # noqa: T201 - this is the terminal
        return USAGE


def lock_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """The lock that expects of every claim what the suite expects and what it came out as.

    Raises:
        ResultsError: where the run is not complete, or a claim did not come out as the suite expects.
    """
    _require_complete(results)
    claims = {}
    for claim in results["claims"]:
        if claim["verdict"] != claim["expected"]:
            raise ResultsError(
                f"{claim['id']} is {claim['verdict']} and the suite expects {claim['expected']}: "
                f"mend the model or the claim, or mark the cell xfail, before locking"
            )
        entry = {"text": claim["text"], "expected": claim["verdict"], "n": claim["n"], "waiver": None}
        claims[claim["id"]] = entry
    if not claims:
        raise ResultsError("the results hold no claim")
    settings = {(claim["population"], claim["confidence"]) for claim in results["claims"]}
    if len(settings) > 1:
        raise ResultsError(f"the claims have different populations or confidences: {sorted(settings)}")
    ((population, confidence),) = settings
    return {
        "schema": results_file.LOCK_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "population": population,
        "confidence": confidence,
        "claims": claims,
    }


def deviations(results: Mapping[str, Any], lock: Mapping[str, Any], today: date) -> list[str]:
    """Why ``results`` are not as locked, a sentence each; empty if they are."""
    found = []
    if results["status"] != "complete":
        found.append(f"the run is {results['status']}")
    claims = {claim["id"]: claim for claim in results["claims"]}
    for name, expected in lock["claims"].items():
        waiver = expected["waiver"]
        if waiver is not None and date.fromisoformat(waiver["expires"]) >= today:
            continue
        expired = f" (its waiver expired on {waiver['expires']})" if waiver is not None else ""
        claim = claims.get(name)
        if claim is None:
            found.append(f"{name} was not judged{expired}")
        elif claim["text"] != expected["text"]:
            found.append(f"{name} claims '{claim['text']}', locked is '{expected['text']}'{expired}")
        elif claim["n"] != expected.get("n", claim["n"]):
            found.append(f"{name} is about {claim['n']} samples, locked are {expected['n']}{expired}")
        elif claim["verdict"] != expected["expected"]:
            found.append(f"{name} is {claim['verdict']}, expected {expected['expected']}{expired}")
        elif (claim["population"], claim["confidence"]) != (lock["population"], lock["confidence"]):
            found.append(
                f"{name} was judged for population {claim['population']} at confidence {claim['confidence']}, "
                f"locked are {lock['population']} and {lock['confidence']}"
            )
    return found


def _lock(path: Path) -> int:
    print(json.dumps(lock_of(results_file.read(path)), indent=1, ensure_ascii=False))  # noqa: T201 - the product
    return OK


def _verify(path: Path, lock_path: Path, models: Sequence[str]) -> int:
    results, lock = results_file.read(path), results_file.read_lock(lock_path)
    found = deviations(results, lock, datetime.now(UTC).date())
    for model in models:
        found += _other_weights(results, model)
    for sentence in found:
        print(f"✗ {sentence}")  # noqa: T201 - the product
    unlocked = [claim["id"] for claim in results["claims"] if claim["id"] not in lock["claims"]]
    waived = [name for name, expected in lock["claims"].items() if expected["waiver"] is not None]
    for name in waived:
        waiver = lock["claims"][name]["waiver"]
        print(f"  waived until {waiver['expires']}: {name}: {waiver['reason']}")  # noqa: T201
    if unlocked:
        print(f"  {len(unlocked)} claims of the run are not in the lock, such as {unlocked[0]}")  # noqa: T201
    word = "as locked" if not found else f"{len(found)} deviations from the lock"
    print(f"{len(lock['claims'])} locked claims: {word}")  # noqa: T201
    return FAILED if found else OK


def _other_weights(results: Mapping[str, Any], model: str) -> list[str]:
    """Whether the subject NAME of the run had the weights in PATH."""
    name, equals, path = model.partition("=")
    if not equals or not name or not path:
        raise ResultsError(f"--model {model!r} is not NAME=PATH")
    roles = {role for subject in results["subjects"].values() for role in subject["roles"]}
    if name not in roles:
        raise ResultsError(unknown("subject", name, roles))
    from pytest_prunerob.checkpoints import read_state
    from pytest_prunerob.fingerprint import weights_digest

    weights = weights_digest(read_state(path))
    others = [s["digest"] for s in results["subjects"].values() if name in s["roles"] and s["weights"] != weights]
    return [f"the {name} model {digest[:12]} of the run does not have the weights in {path}" for digest in others]


def _require_complete(results: Mapping[str, Any]) -> None:
    if results["status"] != "complete":
        raise ResultsError(f"the run is {results['status']}: lock a complete one")


if __name__ == "__main__":
    sys.exit(main())
