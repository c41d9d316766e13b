"""Whether a run is as locked: plain functions over results and lock documents. This decides a release.

Nothing is trusted that the documents can say otherwise: a claim that is not there, a test that failed although its
claims did not, a run at other settings and a verdict that its own numbers contradict are all deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report.consistency import contradictions

SETTLED = ("passed", "xfailed")
"""The statuses of a cell whose claims may count."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clocks of two machines may be apart (ours)."""


@dataclass(frozen=True)
class Waiver:
    """A locked claim that need not come out as expected until the end of the day ``expires``."""

    claim: str
    reason: str
    expires: date

    def holds(self, today: date) -> bool:
        """Whether it covers ``today``."""
        return self.expires >= today


def waivers(lock: Mapping[str, Any]) -> list[Waiver]:
    """All waivers of a lock, expired ones too, in the order of its claims."""
    return [
        Waiver(name, claim["waiver"]["reason"], date.fromisoformat(claim["waiver"]["expires"]))
        for name, claim in lock["claims"].items()
        if claim["waiver"] is not None
    ]


def setting(results: Mapping[str, Any], name: str) -> str:
    """An option of the run.

    Raises:
        ResultsError: where the results do not say it.
    """
    value = results["options"].get(name)
    if not isinstance(value, str):
        raise ResultsError(f"the results do not say the run's option {name!r}: they were written by another version")
    return value


def deviations(results: Mapping[str, Any], lock: Mapping[str, Any], today: date) -> list[str]:
    """Why ``results`` are not as locked, a sentence each; empty if they are."""
    waived = {waiver.claim for waiver in waivers(lock) if waiver.holds(today)}
    found = [f"the run is {results['status']}"] if results["status"] != "complete" else []
    if results["status"] == "running":  # nothing else is in the file yet
        return found
    found += contradictions(results)
    found += _other_settings(results, lock)
    claims = {claim["id"]: claim for claim in results["claims"]}
    cells = {cell["id"]: cell for cell in results["cells"]}
    explained = {name.rpartition("#")[0] for name in waived}  # cells whose failure is told or waived already
    for name, expected in lock["claims"].items():
        if name in waived:
            continue
        claim = claims.get(name)
        problem = "was not judged" if claim is None else _problem(claim, cells[claim["cell"]], expected, lock)
        if problem:
            expired = expected["waiver"] and f" (its waiver expired on {expected['waiver']['expires']})"
            found.append(f"{name} {problem}{expired or ''}")
            explained.add(name.rpartition("#")[0])
    for claim in results["claims"]:  # a new claim may not fail for the reason that nobody expected anything of it
        if claim["id"] not in lock["claims"] and claim["verdict"] != claim["expected"]:
            found.append(
                f"{claim['id']} is {claim['verdict']}, the suite expects {claim['expected']} (not in the lock)"
            )
            explained.add(claim["cell"])
    found += [_failure(cell) for cell in results["cells"] if cell["id"] not in explained and not _ended_well(cell)]
    return found


def freshness(results: Mapping[str, Any], now: datetime, longest: timedelta | None, revision: str | None) -> list[str]:
    """Why ``results`` may be those of another run: one that began longer ago, or one of another revision.

    Not when it finished: of merged results the oldest part counts.
    """
    found = []
    if longest is not None:
        age = now - datetime.fromisoformat(results["started"])
        if age > longest:
            found.append(f"the run began on {results['started']}, {_age(age)} ago: allowed are {_age(longest)}")
        elif age < -CLOCK_SKEW:
            found.append(f"the run began on {results['started']}, which is {_age(-age)} ahead of this machine's clock")
    if revision is not None:
        git = results["environment"]["git"]
        if git["revision"] is None:
            found.append(f"the results do not say their git revision, expected {revision}")
        elif not git["revision"].startswith(revision):
            found.append(f"the run is of revision {git['revision']}, expected {revision}")
        elif git["dirty"] is not False:
            found.append(f"the run is of revision {git['revision']} with changes that are not committed")
    return found


def _other_settings(results: Mapping[str, Any], lock: Mapping[str, Any]) -> Iterator[str]:
    found = {
        "seed": results["environment"]["seed"],
        "decide": setting(results, "decide"),
        "adequacy": setting(results, "adequacy"),
    }
    for name, value in found.items():
        stricter = name == "adequacy" and value == "full"  # it can only take support away
        if value != lock[name] and not stricter:
            yield f"the run has {name}={value}, locked is {lock[name]}"


def _problem(
    claim: Mapping[str, Any], cell: Mapping[str, Any], expected: Mapping[str, Any], lock: Mapping[str, Any]
) -> str:
    """The predicate of the sentence about a locked claim that was judged."""
    if claim["text"] != expected["text"]:
        return f"claims '{claim['text']}', locked is '{expected['text']}'"
    if claim["n"] != expected["n"]:
        return f"is about {claim['n']} samples, locked are {expected['n']}"
    dataset = None if cell["dataset"] is None else cell["dataset"]["digest"]
    if dataset != expected["dataset"]:
        return f"is about the dataset {_short(dataset)}, locked is {_short(expected['dataset'])}"
    if (claim["population"], claim["confidence"]) != (lock["population"], lock["confidence"]):
        return (
            f"was judged for population {claim['population']} at confidence {claim['confidence']}, "
            f"locked are {lock['population']} and {lock['confidence']}"
        )
    if expected["subjects"] is not None and set(cell["subjects"]) != set(expected["subjects"]):
        found, locked = (", ".join(sorted(map(_short, each))) for each in (cell["subjects"], expected["subjects"]))
        return f"is about the models {found or 'none'}, locked are {locked or 'none'}"
    if claim["verdict"] != expected["expected"]:
        return f"is {claim['verdict']}, expected {expected['expected']}"
    return ""


def _ended_well(cell: Mapping[str, Any]) -> bool:
    """Whether a test failed for no reason of its own; one that is skipped after a claim did not end as it should."""
    return cell["status"] in SETTLED or (cell["status"] == "skipped" and not cell["claims"])


def _failure(cell: Mapping[str, Any]) -> str:
    lines = cell["message"].strip().splitlines()
    return f"{cell['id']} is {cell['status']}" + (f": {lines[0][:200]}" if lines else "")


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def _age(age: timedelta) -> str:
    seconds = round(age.total_seconds())
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds} seconds"
