"""``prunerob merge``: the results of several jobs as one document, or an error where they contradict each other."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report import results as results_file

HELP = "write to stdout the results of several jobs as one"
SAME_OPTIONS = ("profile", "population", "confidence", "seed", "adequacy", "decide", "inconclusive")
"""The options that decide verdicts or which cells there are."""

SAME_CLAIM = ("text", "verdict", "expected", "n", "population", "confidence", "decision")
SAME_CELL = ("test", "parameters", "samples", "reported", "subjects", "dataset")
SAME_MEASUREMENT = ("kind", "digest", "plan", "threat", "n", "clean_errors")
COUNTS = ("broken", "survived", "undecided", "errors")
SAME_SUBJECT = ("weights", "parameters")
LINE = 4000  # the longest line that the schema takes
WORD = 300

Named = tuple[str, Mapping[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS")


def run(given: argparse.Namespace) -> int:
    """Print the merged results."""
    merged = merge([(str(path), results_file.read(path)) for path in given.results])
    print(json.dumps(merged, indent=1, allow_nan=False))  # noqa: T201 - the product
    return 0


def merge(parts: Sequence[Named]) -> dict[str, Any]:
    """The union of ``parts``, each with its name for error messages.

    A cell that one part did not evaluate is taken from another that did; apart from that a part that is not complete
    makes the whole incomplete.

    Raises:
        ResultsError: where two parts contradict each other: other options, packages or revision, another verdict.
    """
    from pytest_prunerob.plugin.collector import adjusted

    documents = [document for _, document in parts]
    for other in parts[1:]:
        _same_run(parts[0], other)
    cells, claims = _cells(parts)
    complete = all(document["status"] == "complete" for document in documents)
    merged = {
        "schema": results_file.RESULTS_SCHEMA,
        "status": "complete" if complete else "incomplete",
        "started": min((d["started"] for d in documents), key=_time),
        "finished": max((d["finished"] for d in documents if d["finished"]), key=_time, default=None),
        "environment": _environment(documents),
        "options": dict(documents[0]["options"]),
        "selection": _selection(documents, len(cells)),
        "exit_status": _exit_status(documents),
        "cells": [cells[name] for name in sorted(cells)],
        # Adjusted anew: the family of a test function may be spread over the parts.
        "claims": adjusted([claim for name in sorted(cells) for claim in claims[name]]),
        "measurements": _measurements(parts),
        "subjects": _subjects(parts),
        "store": _store(documents),
        "budget": {
            "seconds": max((d["budget"]["seconds"] for d in documents if d["budget"]["seconds"]), default=None),
            "exhausted": any(document["budget"]["exhausted"] for document in documents),
        },
        "cost": {name: sum(d["cost"][name] for d in documents) for name in ("forward", "backward", "seconds")},
    }
    results_file.validate(merged)
    return merged


def _same_run(first: Named, other: Named) -> None:
    if "running" in (first[1]["status"], other[1]["status"]):
        name = first[0] if first[1]["status"] == "running" else other[0]
        raise ResultsError(f"{name}: the run is running, or was killed: there is nothing in it to merge")
    for option in SAME_OPTIONS:
        _agree(f"the option {option!r}", first, other, *(part[1]["options"].get(option) for part in (first, other)))
    for field in ("packages", "precision", "seed"):
        _agree(f"the {field}", first, other, *(part[1]["environment"][field] for part in (first, other)))
    revisions = (part[1]["environment"]["git"]["revision"] for part in (first, other))
    _agree("the git revision", first, other, *revisions)


def _agree(what: str, first: Named, other: Named, one: object, two: object) -> None:
    if one != two:
        raise ResultsError(f"{first[0]} and {other[0]} disagree on {what}: {_show(one)} and {_show(two)}")


def _cells(parts: Sequence[Named]) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Cells by id, and the claims of each: both from the same part."""
    cells: dict[str, dict[str, Any]] = {}
    claims: dict[str, list[dict[str, Any]]] = {}
    origin: dict[str, Named] = {}
    for part in parts:
        of_part = {claim["id"]: claim for claim in part[1]["claims"]}
        for cell in part[1]["cells"]:
            known = cells.get(cell["id"])
            if known is not None and "not evaluated" not in (known["status"], cell["status"]):
                _agree_on_cell(known, claims[cell["id"]], cell, of_part, origin[cell["id"]], part)
            elif known is None or known["status"] == "not evaluated":
                cells[cell["id"]], origin[cell["id"]] = dict(cell), part
                claims[cell["id"]] = [dict(of_part[name]) for name in cell["claims"]]
    return cells, claims


def _agree_on_cell(
    known: Mapping[str, Any],
    known_claims: Iterable[Mapping[str, Any]],
    cell: Mapping[str, Any],
    claims: Mapping[str, Mapping[str, Any]],
    first: Named,
    other: Named,
) -> None:
    for field in SAME_CELL:
        _agree(f"the {field} of {cell['id']}", first, other, known[field], cell[field])
    for claim in known_claims:
        if claim["id"] in claims:
            for field in SAME_CLAIM:
                _agree(f"the {field} of {claim['id']}", first, other, claim[field], claims[claim["id"]][field])
    for field in ("status", "claims"):  # last: what the claims say explains it
        _agree(f"the {field} of {cell['id']}", first, other, known[field], cell[field])


def _measurements(parts: Sequence[Named]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    origin: dict[str, Named] = {}
    for part in parts:
        for key, measurement in part[1]["measurements"].items():
            known = found.get(key)
            if known is not None:
                counted = known["complete"] and measurement["complete"]
                for field in (*SAME_MEASUREMENT, *(COUNTS if counted else ())):
                    what = f"the {field} of measurement {key[:12]}"
                    _agree(what, origin[key], part, known[field], measurement[field])
            if known is None or _done(measurement) > _done(known):
                found[key], origin[key] = measurement, part
    return dict(sorted(found.items()))


def _subjects(parts: Sequence[Named]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    origin: dict[str, Named] = {}
    for part in parts:
        for digest, subject in part[1]["subjects"].items():
            if digest not in found:
                found[digest], origin[digest] = {**subject}, part
                continue
            known = found[digest]
            for field in SAME_SUBJECT:
                _agree(f"the {field} of model {digest[:12]}", origin[digest], part, known[field], subject[field])
            known["roles"] = sorted({*known["roles"], *subject["roles"]})
            known["checks"] = max(known["checks"], subject["checks"], key=len)
    return dict(sorted(found.items()))


def _environment(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    environments = [document["environment"] for document in documents]
    words = {
        name: " + ".join(dict.fromkeys(each[name] for each in environments if each[name]))[:WORD]
        for name in ("python", "platform", "device", "device_name")
    }
    dirty = [each["git"]["dirty"] for each in environments]
    return {
        **environments[0],
        **words,
        "threads": max(each["threads"] for each in environments),
        "git": {
            "revision": environments[0]["git"]["revision"],
            "dirty": None if None in dirty else any(dirty),
        },
    }


def _selection(documents: Sequence[Mapping[str, Any]], planned: int) -> dict[str, Any]:
    """What each part selected, in the order given: its arguments as one line; tests left out are counted each time."""
    each = [document["selection"] for document in documents]
    return {
        "args": [shlex.join(selection["args"])[:LINE] for selection in each],
        "keyword": " | ".join(dict.fromkeys(s["keyword"] for s in each if s["keyword"]))[:LINE],
        "markexpr": " | ".join(dict.fromkeys(s["markexpr"] for s in each if s["markexpr"]))[:LINE],
        "maxfail": max(selection["maxfail"] for selection in each),
        "deselected": sum(selection["deselected"] for selection in each),
        "stopped_early": any(selection["stopped_early"] for selection in each),
        "planned": planned,
    }


def _exit_status(documents: Sequence[Mapping[str, Any]]) -> int | None:
    """The worst of all; a part in which nothing was selected is no failure beside others."""
    statuses = [document["exit_status"] for document in documents]
    if None in statuses:
        return None
    if set(statuses) == {5}:
        return 5
    return int(max(status for status in (*statuses, 0) if status != 5))


def _store(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stores = [document["store"] for document in documents]
    modes = [store["mode"] for store in stores]
    return {
        "path": " + ".join(dict.fromkeys(store["path"] for store in stores))[:LINE],
        "mode": modes[0] if len(set(modes)) == 1 else "rw",
        "hits": sum(store["hits"] for store in stores),
        "misses": sum(store["misses"] for store in stores),
        "quarantined": sorted({sentence for store in stores for sentence in store["quarantined"]}),
    }


def _done(measurement: Mapping[str, Any]) -> int:
    return sum(stage["done"] for stage in measurement["stages"])


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}…"
