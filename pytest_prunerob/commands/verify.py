"""``prunerob verify``: check a run against the lock; this decides a release."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import ResultsError, unknown
from pytest_prunerob.report import results as results_file
from pytest_prunerob.report.gate import deviations, freshness, waivers

HELP = "check that a run is complete and every locked claim came out as expected"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--lock", type=Path, required=True, metavar="LOCK", help="the file that 'prunerob lock' wrote")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=REF",
        help="what the subject NAME (dense, pruned, …) must have been: weights (.safetensors, .pt), an exported "
        "program (.pt2) or pkg.mod:callable",
    )
    parser.add_argument("--max-age", metavar="TIME", help="refuse a run that began longer ago: 90s, 30m, 8h, 2d")
    parser.add_argument("--revision", metavar="SHA", help="refuse a run of another git revision, or of a changed tree")
    parser.add_argument(
        "--deep", action="store_true", help="forward every stored witness again; needs --store and the models"
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="with --deep: the store that the run used")
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="REF",
        help="with --deep: where samples are from, digits, npz:PATH, folder:PATH, torchvision:NAME or pkg.mod:callable",
    )
    parser.add_argument(
        "--allow-hash", action="store_true", help="with --deep: accept witnesses of which only a hash was kept"
    )


def run(given: argparse.Namespace) -> int:
    """Print every deviation from the lock; 0 if there is none."""
    results, lock = results_file.read(given.results), results_file.read_lock(given.lock)
    now = datetime.now(UTC)
    found = freshness(results, now, _duration(given.max_age), _revision(given.revision))
    found += deviations(results, lock, now.date())
    found += _models_and_witnesses(results, [_named(results, model) for model in given.model], given)
    for sentence in found:
        print(f"✗ {sentence}")  # noqa: T201 - the product
    _print_waivers(results, lock, now)
    unlocked = [claim["id"] for claim in results["claims"] if claim["id"] not in lock["claims"]]
    if unlocked:
        print(f"  {len(unlocked)} claims of the run are not in the lock, such as {unlocked[0]}")  # noqa: T201
    word = "as locked" if not found else f"{len(found)} deviation{'s' * (len(found) > 1)} from the lock"
    print(f"{len(lock['claims'])} locked claims: {word}")  # noqa: T201
    return 1 if found else 0


def _print_waivers(results: Mapping[str, Any], lock: Mapping[str, Any], now: datetime) -> None:
    claims = {claim["id"]: claim for claim in results["claims"]}
    for waiver in waivers(lock):
        if waiver.holds(now.date()):
            claim = claims.get(waiver.claim)
            is_now = "not judged" if claim is None else claim["verdict"]
            expected = lock["claims"][waiver.claim]["expected"]
            needed = f"{is_now}, expected {expected}" if is_now != expected else f"{is_now}: no longer needed"
            print(f"  waived until {waiver.expires}: {waiver.claim} ({needed}): {waiver.reason}")  # noqa: T201


def _named(results: Mapping[str, Any], model: str) -> tuple[str, str]:
    name, equals, reference = model.partition("=")
    if not equals or not name or not reference:
        raise ResultsError(f"--model {model!r} is not NAME=REF")
    roles = {role for subject in results["subjects"].values() for role in subject["roles"]}
    if name not in roles:
        raise ResultsError(unknown("subject", name, roles))
    return name, reference


def _models_and_witnesses(
    results: Mapping[str, Any], named: Sequence[tuple[str, str]], given: argparse.Namespace
) -> list[str]:
    if given.deep and given.store is None:
        raise ResultsError("--deep needs --store DIR: the witnesses are there")
    if not named and not given.deep:
        return []
    from pytest_prunerob.commands import deep

    # pkg.mod:callable is looked for in the current folder too, after everything installed, so that nothing is shadowed.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    models = [deep.load(name, reference) for name, reference in named]
    found = list(deep.other_models(results, models))
    if given.deep:
        checked = deep.check(results, given.store, models, given.dataset, allow_hash=given.allow_hash)
        print(f"  {checked.text}")  # noqa: T201 - the product
        found += checked.problems
    return found


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        found = timedelta(seconds=float(number) * UNITS[unit])
    except (ValueError, OverflowError):
        found = timedelta(0)
    if found <= timedelta(0):
        raise ResultsError(f"--max-age {text!r} is not a positive time such as 90, 90s, 30m, 8h or 2d")
    return found


def _revision(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) < 7 or not set(text.lower()) <= set("0123456789abcdef"):
        raise ResultsError(f"--revision {text!r} is no git revision: give at least 7 hexadecimal digits")
    return text.lower()
