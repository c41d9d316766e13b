"""The HTML report: one self-contained file, rendered from a results document alone.

Everything that comes from the document is untrusted text: Jinja2 escapes all of it, and a content security policy
forbids scripts, images and network access, and every style but the one whose hash it names.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from pytest_prunerob.report import numbers, view
from pytest_prunerob.report.results import write_text

MARKS = {"supported": "✓", "refuted": "✕", "inconclusive": "?", "error": "!"}
KINDS = {
    "decide": "witnesses at fixed ε",
    "returned": "accuracy on the inputs that the attack returns",
    "minimise": "smallest distance",
    "crafted": "inputs crafted to be tried on other models",
    "transferred": "accuracy on inputs crafted on another model",
    "estimate": "estimated score",
    "clean": "clean inputs",
    "voted": "clean inputs, by votes",
}


def render(results: Mapping[str, Any], lock: Mapping[str, Any] | None = None, today: date | None = None) -> str:
    """The report of a results document that :func:`~pytest_prunerob.report.results.validate` accepts, as HTML.

    ``lock`` is the lock whose waivers are shown, as they stand on the day ``today`` (in UTC; default: the current one).
    """
    css = resources.files("pytest_prunerob.report").joinpath("templates/style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    waivers = view.waivers_of(lock, today or datetime.now(UTC).date())
    notices = view.attention(results, waivers)
    return str(
        _template().render(
            style=css,
            style_hash=digest,
            results=results,
            outcome=view.outcome(results),
            calm=not notices and view.finished_well(results),
            banner=view.banner(results),
            warnings=view.warnings(results),
            notices=notices,
            verdicts=view.verdict_rows(results["claims"]),
            statuses=view.statuses(results),
            compared=view.compared(results),
            uncompared=view.uncompared(results),
            tests=view.by_test(results),
            users=view.users(results),
            checked=view.checked(results),
            waivers=waivers,
            waived={waiver.claim: waiver for waiver in waivers},
            judged={claim["id"] for claim in results["claims"]},
        )
    )


def write_html(path: Path, results: Mapping[str, Any], lock: Mapping[str, Any] | None = None) -> None:
    """Render ``results`` and put the report in the place of ``path`` in one step.

    Raises:
        ResultsError: one sentence; the folder is missing or not writable, or the disk is full.
    """
    write_text(path, render(results, lock))


def _decision(claim: view.Entry) -> str:
    """How a claim was decided, in words."""
    if claim["verdict"] not in ("supported", "refuted"):
        return "none"
    if not claim["n"]:
        return "exact"
    if claim["decision"] == "bound":
        return "by exact bounds, all samples measured"
    if claim["decision"] == "sequential":
        return f"sequential, at {numbers.percent(claim['confidence'])}"
    return "exact, all samples measured" if claim["complete"] else "exact and early, before every sample was measured"


def _factor(coefficient: float) -> str:
    """The sign and weight with which a quantity enters its claim."""
    sign = numbers.MINUS if coefficient < 0 else "+"
    return sign if abs(coefficient) == 1 else f"{sign} {abs(coefficient):.6g} ×"


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
        finalize=view.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=numbers.count, seconds=numbers.seconds, moment=_moment, factor=_factor)
    environment.globals.update(
        anchor=view.anchor,
        marks=MARKS,
        kinds=KINDS,
        dash=numbers.NONE,
        decision=_decision,
        unit_of=lambda term, others: numbers.UNITS.get(term["metric"], numbers.common_unit(others)),
        common_unit=numbers.common_unit,
        value=numbers.value,
        span=numbers.span,
        difference=numbers.difference,
        interval=numbers.interval,
        interval_heading=numbers.interval_heading,
        percent=numbers.percent,
        plural=numbers.plural,
        as_expected=view.as_expected,
    )
    return environment.get_template("report.html.j2")
