"""A short summary in Markdown, for the page of a CI job, rendered from a results document alone.

Every string of the document stands in a code span, where Markdown knows neither links nor HTML nor mentions; everything
outside of code spans are this module's own words and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pytest_prunerob.report import numbers, view
from pytest_prunerob.report.numbers import plural
from pytest_prunerob.report.results import write_text

LINES = 20  # of what needs attention; a job page is read at a glance (ours)
ROWS = 50  # of each table (ours)
LENGTH = 300  # characters of one text of the document (ours)


def render_markdown(
    results: Mapping[str, Any], lock: Mapping[str, Any] | None = None, today: date | None = None
) -> str:
    """The summary of a valid results document: verdicts, what needs attention, published numbers, waivers, the run.

    ``lock`` is the lock whose waivers are named, as they stand on the day ``today`` (in UTC; default: the current one).
    """
    waivers = view.waivers_of(lock, today or datetime.now(UTC).date())
    notices = view.attention(results, waivers)
    parts: list[Iterable[str]] = [
        ["## Robustness claims", "", f"**{view.outcome(results)}**", ""],
        *([[f"> **{banner}**", ""]] if (banner := view.banner(results)) else []),
        [line for warning in view.warnings(results) for line in (f"> {warning}", "")],
        _verdicts(results),
        _attention(notices) if notices else ["Everything came out as expected.", ""] if _calm(results) else [],
        _compared(results),
        _waivers(waivers),
        _run(results),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def write_markdown(path: Path, results: Mapping[str, Any], lock: Mapping[str, Any] | None = None) -> None:
    """Render ``results`` and put the summary in the place of ``path`` in one step.

    Raises:
        ResultsError: one sentence; the folder is missing or not writable, or the disk is full.
    """
    write_text(path, render_markdown(results, lock))


def code(text: object, *, cell: bool = False) -> str:
    """``text`` as a code span on one line, clipped; in a table ``cell`` a pipe is shown as a broken bar.

    The fence is longer than any run of backticks inside, so that nothing inside can end it. A pipe would end the cell
    of a table, code span or not, and its escape has no form that is safe behind a backslash.
    """
    line = " ".join(str(view.visible(str(text))).split())
    if len(line) > LENGTH:
        line = f"{line[: LENGTH - 1]}…"
    if not line:
        return numbers.NONE
    if cell:
        line = line.replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}"  # the renderer takes one space off each side


def _calm(results: Mapping[str, Any]) -> bool:
    return view.finished_well(results)


def _verdicts(results: Mapping[str, Any]) -> Iterator[str]:
    yield from _table(("Verdict", "As expected", "Not as expected"), "lrr")
    for verdict, expected, odd in view.verdict_rows(results["claims"]):
        as_expected = numbers.count(expected) if verdict in ("supported", "refuted") else numbers.NONE
        yield _row(verdict, as_expected, f"**{odd}**" if odd else "0")
    yield ""


def _attention(notices: Sequence[view.Notice]) -> Iterator[str]:
    yield "### Needs attention"
    yield ""
    for notice in notices[:LINES]:
        words, _, day = notice.label.partition(" until ")
        label = f"{words} until {code(day)}" if day else words
        detail = f": {code(notice.detail)}" if notice.detail else ""
        yield f"- **{label}** {code(notice.title)}{detail}"
    if len(notices) > LINES:
        yield f"- and {plural(len(notices) - LINES, 'more point')}: see the report"
    yield ""


def _compared(results: Mapping[str, Any]) -> Iterator[str]:
    rows = view.compared(results)
    if not rows:
        return
    yield "### Reported and re-evaluated"
    yield ""
    yield from _table(("Quantity", "Cell", "Reported", "Re-evaluated", "Difference", ""), "llrrrl")
    for row in rows[:ROWS]:
        it, claim = row["comparison"], row["claim"]
        known = numbers.span(it["low"], it["high"], row["unit"], claim["n"])
        yield _row(
            code(it["text"], cell=True),
            code(claim["cell"].rpartition("::")[2], cell=True),
            code(row["reported"], cell=True),
            known if it["value"] is None else numbers.value(it["value"], row["unit"], claim["n"]),
            numbers.difference(it["difference"], it["difference"], row["unit"], claim["n"]),
            "above the reported number" if it["exceeds"] else "" if claim["complete"] else "decided early",
        )
    yield ""
    if len(rows) > ROWS:
        yield f"and {plural(len(rows) - ROWS, 'more row')}: see the report"
        yield ""


def _waivers(waivers: Sequence[view.Waiver]) -> Iterator[str]:
    if not waivers:
        return
    yield "### Waivers"
    yield ""
    for waiver in waivers[:ROWS]:
        until = "**expired on**" if waiver.expired else "until"
        yield f"- {code(waiver.claim)} {until} {code(waiver.expires)}: {code(waiver.reason)}"
    if len(waivers) > ROWS:
        yield f"- and {plural(len(waivers) - ROWS, 'more waiver')}: see the report"
    yield ""


def _run(results: Mapping[str, Any]) -> Iterator[str]:
    environment, cost, store = results["environment"], results["cost"], results["store"]
    cells = ", ".join(f"{numbers.count(many)} {status}" for status, many in view.statuses(results))
    git = environment["git"]
    tree = {True: ", working tree changed", False: ""}.get(git["dirty"], "")
    packages = environment["packages"]
    named = [f"{name} {packages[name]}" for name in ("pytest-prunerob", "torch") if name in packages]
    yield "### Run"
    yield ""
    yield f"- {plural(results['selection']['planned'], 'cell')} planned{': ' + cells if cells else ''}"
    yield (
        f"- {numbers.count(cost['forward'])} samples forward, {numbers.count(cost['backward'])} backward, "
        f"{numbers.seconds(cost['seconds'])} of measuring"
    )
    yield f"- device {code(environment['device_name'] or environment['device'])}, seed {environment['seed']}"
    yield f"- {code(', '.join(named))}, git {code(git['revision'] or 'unknown')}{tree}"
    yield f"- from {code(results['started'])} to {code(results['finished'] or 'not finished')}"
    if store["quarantined"]:
        yield f"- {plural(len(store['quarantined']), 'file')} of the store set aside and measured again"
    yield ""


def _table(headings: Sequence[str], sides: str) -> Iterator[str]:
    yield _row(*headings)
    yield _row(*({"l": "---", "r": "---:"}[side] for side in sides))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
