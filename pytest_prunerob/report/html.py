"""The HTML report: one self-contained file, rendered from a results document alone.

Everything that comes from the document is untrusted text: Jinja2 escapes all of it, and a content security policy
forbids scripts, images and network access, and every style but the one whose hash it names.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pytest_prunerob.report import numbers
from pytest_prunerob.report.numbers import plural
from pytest_prunerob.report.results import VERDICTS, write_text

Entry = Mapping[str, Any]

MARKS = {"supported": "✓", "refuted": "✕", "inconclusive": "?", "error": "!"}
KINDS = {
    "decide": "witnesses at fixed ε",
    "returned": "accuracy on the inputs that the attack returns",
    "minimise": "smallest distance",
    "clean": "clean inputs",
}
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


def render(results: Mapping[str, Any]) -> str:
    """The report of a results document that :func:`~pytest_prunerob.report.results.validate` accepts, as HTML."""
    css = resources.files("pytest_prunerob.report").joinpath("templates/style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    notices = attention(results)
    return str(
        _template().render(
            style=css,
            style_hash=digest,
            results=results,
            outcome=outcome(results),
            calm=not notices and _finished_well(results),
            banner=_banner(results),
            notices=notices,
            verdicts=_verdict_rows(results["claims"]),
            statuses=_statuses(results),
            compared=_compared(results),
            uncompared=_uncompared(results),
            tests=_by_test(results),
            users=_users(results),
        )
    )


def write_html(path: Path, results: Mapping[str, Any]) -> None:
    """Render ``results`` and put the report in the place of ``path`` in one step.

    Raises:
        ResultsError: one sentence; the folder is missing or not writable, or the disk is full.
    """
    write_text(path, render(results))


def outcome(results: Mapping[str, Any]) -> str:
    """The run in one sentence, such as "12 of 13 claims came out as expected; 1 refuted; 0 cells not evaluated"."""
    claims = results["claims"]
    odd = [claim["verdict"] for claim in claims if not _as_expected(claim)]
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


def attention(results: Mapping[str, Any]) -> list[Notice]:
    """What a reader must see first, the gravest first; empty where everything came out as expected."""
    cells = {cell["id"]: cell for cell in results["cells"]}
    notices: list[Notice] = []
    explained = set()
    order = {"refuted": 0, "supported": 1, "inconclusive": 2, "error": 3}
    for claim in sorted(results["claims"], key=lambda claim: order[claim["verdict"]]):
        if _as_expected(claim):
            continue
        explained.add(claim["cell"])
        cell = cells.get(claim["cell"])
        label = claim["verdict"]
        if label in ("supported", "refuted"):
            label += f", expected {claim['expected']}"
        notices.append(Notice(label, claim["text"], anchor("claim", claim["id"]), claim["reason"], _where(cell)))
    for status in TROUBLE:
        for cell in results["cells"]:
            if cell["status"] == status and (cell["id"] not in explained or status == "crashed"):
                first, _, rest = cell["message"].partition("\n")
                notices.append(Notice(status, cell["id"], anchor("cell", cell["id"]), first, _ran(cell), rest))
    lost = results["selection"]["planned"] - len(results["cells"])
    if lost > 0 and results["status"] != "running":
        notices.append(Notice("not evaluated", f"{plural(lost, 'planned cell')} without a record", "selection", ""))
    for entry in results["store"]["quarantined"]:
        notices.append(Notice("quarantined", entry, "store", "Set aside and measured again; nothing rests on it."))
    return notices


def anchor(kind: str, identity: str) -> str:
    """A stable fragment name for a claim, cell or measurement: readable, with a hash that keeps it unique."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity.rpartition("::")[2]).strip("-")[:80]
    return f"{kind}-{readable}-{digest}"


def _as_expected(claim: Entry) -> bool:
    return bool(claim["verdict"] == claim["expected"])


def _not_evaluated(results: Mapping[str, Any]) -> int:
    marked: int = sum(cell["status"] == "not evaluated" for cell in results["cells"])
    planned: int = results["selection"]["planned"]
    return marked + max(planned - len(results["cells"]), 0)


def _finished_well(results: Mapping[str, Any]) -> bool:
    return bool(results["status"] == "complete" and results["exit_status"] == 0 and results["claims"])


def _banner(results: Mapping[str, Any]) -> str:
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


def _where(cell: Entry | None) -> str:
    """The cell of a claim, and what it ran on."""
    return "" if cell is None else ", ".join(part for part in (cell["id"], _ran(cell)) if part)


def _ran(cell: Entry) -> str:
    return ", ".join(part for part in (cell["worker"], cell["device"]) if part)


def _verdict_rows(claims: Sequence[Entry]) -> list[tuple[str, int, int]]:
    """Per verdict: how many claims were expected to get it, and how many got it against expectation."""
    return [
        (
            verdict,
            sum(claim["verdict"] == verdict == claim["expected"] for claim in claims),
            sum(claim["verdict"] == verdict != claim["expected"] for claim in claims),
        )
        for verdict in VERDICTS
    ]


def _statuses(results: Mapping[str, Any]) -> list[tuple[str, int]]:
    statuses = [cell["status"] for cell in results["cells"]]
    return [(status, statuses.count(status)) for status in dict.fromkeys(statuses)]


def _compared(results: Mapping[str, Any]) -> list[dict[str, Any]]:
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


def _uncompared(results: Mapping[str, Any]) -> list[Entry]:
    """Cells with a published number that no claim of theirs sets beside a measurement."""
    compared = {claim["cell"] for claim in results["claims"] if claim["comparison"] is not None}
    return [cell for cell in results["cells"] if cell["reported"] is not None and cell["id"] not in compared]


def _by_test(results: Mapping[str, Any]) -> dict[str, list[Entry]]:
    """The claims under the test that made them, in the order of the document."""
    tests: dict[str, list[Entry]] = {}
    test_of = {cell["id"]: cell["test"] for cell in results["cells"]}
    for claim in results["claims"]:
        tests.setdefault(test_of.get(claim["cell"], claim["cell"]), []).append(claim)
    return tests


def _users(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Per measurement the claims that rest on it."""
    users: dict[str, list[str]] = {}
    for claim in results["claims"]:
        for key in dict.fromkeys(term["measurement"] for term in claim["terms"]):
            if key is not None:
                users.setdefault(key, []).append(claim["id"])
    return users


def _factor(coefficient: float) -> str:
    """The sign and weight with which a quantity enters its claim."""
    sign = numbers.MINUS if coefficient < 0 else "+"
    return sign if abs(coefficient) == 1 else f"{sign} {abs(coefficient):.6g} ×"


def _visible(value: object) -> object:
    """Text in which nothing acts: control and reordering characters are written as their names."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _ACTING.sub(lambda match: f"[U+{ord(match[0]):04X}]", value)


def _moment(text: str | None) -> str:
    """An ISO 8601 time without the letter and the fraction, in the time zone it was written in."""
    if text is None:
        return "not finished"
    return re.sub(r"\+00:00$|Z$", " UTC", re.sub(r"\.\d+", "", text.replace("T", " ")))


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_prunerob.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=numbers.count, seconds=numbers.seconds, moment=_moment, factor=_factor)
    environment.globals.update(
        anchor=anchor,
        marks=MARKS,
        kinds=KINDS,
        dash=numbers.NONE,
        unit_of=lambda term, others: numbers.UNITS.get(term["metric"], numbers.common_unit(others)),
        common_unit=numbers.common_unit,
        value=numbers.value,
        span=numbers.span,
        difference=numbers.difference,
        interval=numbers.interval,
        interval_heading=numbers.interval_heading,
        percent=numbers.percent,
        plural=plural,
        as_expected=_as_expected,
    )
    return environment.get_template("report.html.j2")
