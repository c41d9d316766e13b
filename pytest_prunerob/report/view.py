"""What a report shows of a results document, in whatever format: the outcome, what needs attention, the rows.

Nothing is escaped here: every string of the document is untrusted, and each renderer writes it in its own safe way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pytest_prunerob.budget import duration
from pytest_prunerob.report import numbers
from pytest_prunerob.report.numbers import plural
from pytest_prunerob.report.results import VERDICTS

Entry = Mapping[str, Any]

TROUBLE = ("crashed", "error", "not evaluated", "failed", "inconclusive", "xpassed", "skipped")
"""Statuses of a cell that need a reader's attention unless one of its claims already says why."""

# Characters that a terminal or browser would act on: controls, surrogates, and the marks that reorder text.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Notice:
    """One thing that needs attention: a label in words, what it is about, and why."""

    label: str
    title: str
    anchor: str
    detail: str
    where: str = ""
    message: str = ""


@dataclass(frozen=True)
class Waiver:
    """A claim that a lock lets pass until a day although it does not come out as locked."""

    claim: str
    reason: str
    expires: str
    expired: bool


@dataclass(frozen=True)
class Checked:
    """The indicators of adequacy about one subject or one measurement: what failed, what is worth a look, the rest."""

    kind: str
    key: str
    title: str
    aside: str
    failed: tuple[Entry, ...]
    others: tuple[Entry, ...]
    blocked: tuple[str, ...]

    @property
    def counts(self) -> str:
        """The outcomes of the others, such as "7 passed, 2 not run"."""
        found = [check["outcome"] for check in self.others]
        return ", ".join(f"{numbers.count(found.count(outcome))} {outcome}" for outcome in dict.fromkeys(found))


def outcome(results: Mapping[str, Any]) -> str:
    """The run in one sentence, such as "12 of 13 claims came out as expected; 1 refuted; 0 cells not evaluated"."""
    claims = results["claims"]
    odd = [claim["verdict"] for claim in claims if not as_expected(claim)]
    if not claims:
        parts = ["No claim was judged"]
    else:
        parts = [f"{len(claims) - len(odd)} of {plural(len(claims), 'claim')} came out as expected"]
        parts.append(f"{odd.count('refuted')} refuted")
    for verdict, words in (
        ("supported", "supported against expectation"),
        ("inconclusive", "inconclusive"),
        ("error", "in error"),
    ):
        if verdict in odd:
            parts.append(f"{odd.count(verdict)} {words}")
    statuses = [cell["status"] for cell in results["cells"]]
    if "crashed" in statuses:
        parts.append(f"{plural(statuses.count('crashed'), 'cell')} crashed")
    parts.append(f"{plural(_not_evaluated(results), 'cell')} not evaluated")
    return "; ".join(parts) + "."


def attention(results: Mapping[str, Any], waivers: Sequence[Waiver] = ()) -> list[Notice]:
    """What a reader must see first, the gravest first; empty where everything came out as expected."""
    cells = {cell["id"]: cell for cell in results["cells"]}
    notices: list[Notice] = []
    explained = set()
    order = {"refuted": 0, "supported": 1, "inconclusive": 2, "error": 3}
    waived = {waiver.claim: waiver for waiver in waivers if not waiver.expired}
    for claim in sorted(results["claims"], key=lambda claim: (claim["id"] in waived, order[claim["verdict"]])):
        if as_expected(claim):
            continue
        explained.add(claim["cell"])
        cell = cells.get(claim["cell"])
        label, detail = claim["verdict"], claim["reason"]
        if claim["id"] in waived:
            label += f", waived until {waived[claim['id']].expires}"
            detail = "; ".join(text for text in (f"waived: {waived[claim['id']].reason}", detail) if text)
        elif label in ("supported", "refuted"):
            label += f", expected {claim['expected']}"
        notices.append(Notice(label, claim["text"], anchor("claim", claim["id"]), detail, _where(cell)))
    notices += _failed_checks(results)
    for status in TROUBLE:
        for cell in results["cells"]:
            if cell["status"] == status and (cell["id"] not in explained or status == "crashed"):
                first, _, rest = cell["message"].partition("\n")
                notices.append(Notice(status, cell["id"], anchor("cell", cell["id"]), first, _ran(cell), rest))
    lost = results["selection"]["planned"] - len(results["cells"])
    if lost > 0 and results["status"] != "running":
        notices.append(Notice("not evaluated", f"{plural(lost, 'planned cell')} without a record", "selection", ""))
    for entry in results["store"]["quarantined"]:
        notices.append(Notice("quarantined", entry, "store", "Not used and measured again; nothing rests on it."))
    return notices


def _failed_checks(results: Mapping[str, Any]) -> Iterator[Notice]:
    """The indicators that stood in the way of a verdict."""
    for holder in checked(results):
        for check in holder.failed:
            if holder.blocked and check["level"] != "information":
                about = f"{check['indicator']}, {check['stage']}" if check["stage"] else check["indicator"]
                claims = f"leaves {plural(len(holder.blocked), 'claim')} without a verdict"
                title = f"{about}: {holder.title}"
                yield Notice("failed check", title, anchor("checks", holder.key), check["message"], claims)


def checked(results: Mapping[str, Any]) -> list[Checked]:
    """The indicators of every subject and measurement that has any."""
    found = []
    open_claims = [claim for claim in results["claims"] if claim["verdict"] in ("inconclusive", "error")]
    subjects_of = {cell["id"]: cell["subjects"] for cell in results["cells"]}
    for key, it in results["subjects"].items():
        blocked = [claim["id"] for claim in open_claims if key in subjects_of.get(claim["cell"], ())]
        title = f"{', '.join(it['roles'])} {it['digest'][:12]}"
        found.append(_checked("subject", key, title, "the model itself", it["checks"], blocked))
    for key, it in results["measurements"].items():
        keys = {claim["id"]: {term["measurement"] for term in claim["terms"]} for claim in open_claims}
        blocked = [claim for claim, used in keys.items() if key in used]
        title = f"{it['subject']} {it['digest'][:12]}"
        found.append(_checked("measurement", key, title, it["plan"], it["checks"], blocked))
    return [holder for holder in found if holder.failed or holder.others]


def _checked(kind: str, key: str, title: str, aside: str, checks: Sequence[Entry], blocked: Sequence[str]) -> Checked:
    failed = tuple(check for check in checks if check["outcome"] == "failed")
    others = tuple(check for check in checks if check["outcome"] != "failed")
    return Checked(kind, key, title, aside, failed, others, tuple(blocked))


def waivers_of(lock: Mapping[str, Any] | None, today: date) -> list[Waiver]:
    """The waivers of a lock, those that have expired first."""
    if lock is None:
        return []
    found = [
        Waiver(name, entry["waiver"]["reason"], entry["waiver"]["expires"], _over(entry["waiver"]["expires"], today))
        for name, entry in lock["claims"].items()
        if entry["waiver"] is not None
    ]
    return sorted(found, key=lambda waiver: (not waiver.expired, waiver.expires, waiver.claim))


def _over(day: str, today: date) -> bool:
    return date.fromisoformat(day) < today


def anchor(kind: str, identity: str) -> str:
    """A stable fragment name for a claim, cell or measurement: readable, with a hash that keeps it unique."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity.rpartition("::")[2]).strip("-")[:80]
    return f"{kind}-{readable}-{digest}"


def as_expected(claim: Entry) -> bool:
    """Whether a claim got the verdict that its test asked for."""
    return bool(claim["verdict"] == claim["expected"])


def _not_evaluated(results: Mapping[str, Any]) -> int:
    marked: int = sum(cell["status"] == "not evaluated" for cell in results["cells"])
    planned: int = results["selection"]["planned"]
    return marked + max(planned - len(results["cells"]), 0)


def finished_well(results: Mapping[str, Any]) -> bool:
    """Whether the run is complete, judged something, and pytest ended with 0."""
    return bool(results["status"] == "complete" and results["exit_status"] == 0 and results["claims"])


def banner(results: Mapping[str, Any]) -> str:
    """The sentence above everything else where the run cannot speak for the whole selection."""
    if results["status"] == "running":
        return "This run has not finished: what follows is not a result."
    if results["status"] == "incomplete":
        missing = plural(_not_evaluated(results), "planned cell")
        return f"This run is incomplete: {missing} came to no result. It supports no release."
    if not results["claims"]:
        return "This run judged no claim. It supports no release."
    if results["exit_status"] != 0 and not attention(results):
        return f"pytest ended with exit status {results['exit_status']} although every claim came out as expected."
    return ""


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What the run left out on purpose, a sentence each."""
    found = []
    selection, budget = results["selection"], results["budget"]
    if budget["exhausted"]:
        limit = f" of {duration(budget['seconds'])}" if budget["seconds"] else ""
        found.append(f"The time budget{limit} was spent before every claim was decided: run again to go on.")
    if selection["stopped_early"]:
        found.append("The run was stopped early, by -x, --maxfail or an interruption: what came later is not here.")
    if selection["deselected"]:
        left_out = plural(selection["deselected"], "test")
        were = "was" if selection["deselected"] == 1 else "were"
        found.append(f"{left_out} {were} left out by -k, -m or a plugin: this report says nothing about them.")
    return found


def _where(cell: Entry | None) -> str:
    """The cell of a claim, and what it ran on."""
    return "" if cell is None else ", ".join(part for part in (cell["id"], _ran(cell)) if part)


def _ran(cell: Entry) -> str:
    return ", ".join(part for part in (cell["worker"], cell["device"]) if part)


def verdict_rows(claims: Sequence[Entry]) -> list[tuple[str, int, int]]:
    """Per verdict: how many claims were expected to get it, and how many got it against expectation."""
    return [
        (
            verdict,
            sum(claim["verdict"] == verdict == claim["expected"] for claim in claims),
            sum(claim["verdict"] == verdict != claim["expected"] for claim in claims),
        )
        for verdict in VERDICTS
    ]


def statuses(results: Mapping[str, Any]) -> list[tuple[str, int]]:
    """How many cells have each status."""
    statuses = [cell["status"] for cell in results["cells"]]
    return [(status, statuses.count(status)) for status in dict.fromkeys(statuses)]


def compared(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of "reported and re-evaluated" that have both sides."""
    rows = []
    for claim in results["claims"]:
        comparison = claim["comparison"]
        if comparison is None:
            continue
        reported = comparison["reported"]
        unit = _comparison_unit(claim)
        percent = unit == "share" and "%" not in reported["text"]
        rows.append(
            {
                "claim": claim,
                "comparison": comparison,
                "unit": unit,
                "reported": reported["text"] + (f"{numbers.SPACE}%" if percent else ""),
            }
        )
    return rows


def _comparison_unit(claim: Entry) -> numbers.Unit:
    """Percent where the printed number is a hundred times the share it stands for, else the unit of the claim."""
    reported = claim["comparison"]["reported"]
    try:
        printed = float(reported["text"].rstrip("% ").replace(numbers.MINUS, "-"))
    except ValueError:
        return numbers.common_unit(claim["terms"])
    if printed != reported["value"] and abs(printed / 100 - reported["value"]) < 1e-9:
        return "share"
    unit = numbers.common_unit(claim["terms"])
    return "number" if unit == "share" and printed else unit


def uncompared(results: Mapping[str, Any]) -> list[Entry]:
    """Cells with a published number that no claim of theirs sets beside a measurement."""
    compared = {claim["cell"] for claim in results["claims"] if claim["comparison"] is not None}
    return [cell for cell in results["cells"] if cell["reported"] is not None and cell["id"] not in compared]


def by_test(results: Mapping[str, Any]) -> dict[str, list[Entry]]:
    """The claims under the test that made them, in the order of the document."""
    tests: dict[str, list[Entry]] = {}
    test_of = {cell["id"]: cell["test"] for cell in results["cells"]}
    for claim in results["claims"]:
        tests.setdefault(test_of.get(claim["cell"], claim["cell"]), []).append(claim)
    return tests


def users(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Per measurement the claims that rest on it."""
    users: dict[str, list[str]] = {}
    for claim in results["claims"]:
        for key in dict.fromkeys(term["measurement"] for term in claim["terms"]):
            if key is not None:
                users.setdefault(key, []).append(claim["id"])
    return users


def visible(value: object) -> object:
    """Text in which nothing acts: control and reordering characters are written as their names."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _ACTING.sub(lambda match: f"[U+{ord(match[0]):04X}]", value)
