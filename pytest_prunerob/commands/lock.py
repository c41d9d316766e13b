"""``prunerob lock``: write down what is expected of each claim of a run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report import results as results_file

HELP = "write to stdout what is expected of each claim of a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, metavar="RESULTS")


def run(given: argparse.Namespace) -> int:
    """Print the lock of a complete run."""
    print(json.dumps(lock_of(results_file.read(given.results)), indent=1, ensure_ascii=False))  # noqa: T201
    return 0


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


def _require_complete(results: Mapping[str, Any]) -> None:
    if results["status"] != "complete":
        raise ResultsError(f"the run is {results['status']}: lock a complete one")
