"""``prunerob verify``: check a run against the lock; this decides a release."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import ResultsError, unknown
from pytest_prunerob.report import results as results_file

HELP = "check that a run is complete and every locked claim came out as expected"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--lock", type=Path, required=True, metavar="LOCK", help="the file that 'prunerob lock' wrote")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the weights that the subject NAME (dense, pruned, …) must have had: .safetensors or .pt",
    )


def run(given: argparse.Namespace) -> int:
    """Print every deviation from the lock; 0 if there is none."""
    results, lock = results_file.read(given.results), results_file.read_lock(given.lock)
    found = deviations(results, lock, datetime.now(UTC).date())
    for model in given.model:
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
    return 1 if found else 0


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
