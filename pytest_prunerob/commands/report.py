"""``prunerob report``: render a results file, with the waivers of a lock."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_prunerob.errors import ResultsError
from pytest_prunerob.report import results as results_file

HELP = "render results.json as HTML, Markdown or CSV"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report here, a page that needs no network")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a short summary here, for a CI job page")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the claims here, a row each")
    parser.add_argument("--lock", type=Path, metavar="LOCK", help="show the waivers of this lock")


def run(given: argparse.Namespace) -> int:
    """Write what was asked for.

    Raises:
        ResultsError: where nothing was asked for, or a file cannot be read or written.
    """
    if given.html is None and given.markdown is None and given.csv is None:
        raise ResultsError("name what to write: --html FILE, --markdown FILE or --csv FILE")
    results = results_file.read(given.results)
    lock = None if given.lock is None else results_file.read_lock(given.lock)
    if given.html is not None:
        from pytest_prunerob.report.html import write_html

        write_html(given.html, results, lock)
    if given.markdown is not None:
        from pytest_prunerob.report.markdown import write_markdown

        write_markdown(given.markdown, results, lock)
    if given.csv is not None:
        from pytest_prunerob.report.spreadsheet import write_csv

        write_csv(given.csv, results)
    return 0
