"""The claims of a results document as CSV, a row each, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_prunerob.report import view
from pytest_prunerob.report.results import write_text

COLUMNS = (
    "claim", "text", "verdict", "expected", "reason", "settle", "n", "complete", "population", "confidence", "decision",
    "margin_low", "margin_high", "p_value", "holm", "attack", "stands_on", "reported", "re_evaluated", "difference",
)  # fmt: skip


def render_csv(results: Mapping[str, Any]) -> str:
    """The claims of a valid results document as CSV with a heading (RFC 4180); what is not known is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for claim in results["claims"]:
        margin, comparison = claim["margin"] or {}, claim["comparison"] or {}
        row = {
            **claim,
            "claim": claim["id"],
            "margin_low": margin.get("low"),
            "margin_high": margin.get("high"),
            "reported": comparison.get("reported", {}).get("text"),
            "re_evaluated": comparison.get("value"),
            "difference": comparison.get("difference"),
        }
        writer.writerow([_plain(row[column]) for column in COLUMNS])
    return buffer.getvalue()


def write_csv(path: Path, results: Mapping[str, Any]) -> None:
    """Render ``results`` and put the table in the place of ``path`` in one step.

    Raises:
        ResultsError: one sentence; the folder is missing or not writable, or the disk is full.
    """
    write_text(path, render_csv(results))


def _plain(value: object) -> object:
    """A value that no spreadsheet takes for a formula."""
    if not isinstance(value, str) or value in ("inf", "-inf"):
        return value
    text = str(view.visible(value))
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text
