"""The controller's side: collects reports, accounts for every planned cell, writes results.json and the report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import platform
from typing import Any

import pytest

from pytest_prunerob.budget import duration
from pytest_prunerob.plugin import notes, texts
from pytest_prunerob.plugin.collection import grid_of
from pytest_prunerob.plugin.devices import MASK
from pytest_prunerob.plugin.items import ATTRIBUTE, PLANNED
from pytest_prunerob.plugin.options import Options
from pytest_prunerob.plugin.stash import DESELECTED
from pytest_prunerob.report import results as results_file
from pytest_prunerob.report.numbers import plural
from pytest_prunerob.statistics import holm

PACKAGES = (
    "pytest-prunerob",
    "pytest",
    "pytest-xdist",
    "torch",
    "torchvision",
    "pyautoattack",
    "foolbox",
    "numpy",
    "scipy",
)


class Collector:
    """One run as the controller sees it. Registered only where tests are reported, never in an xdist worker."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.config = config
        self.options = options
        self.started = _now()
        self.git: dict[str, Any] = {"revision": None, "dirty": None}
        self.planned: set[str] = set()
        self.cells: dict[str, dict[str, Any]] = {}
        self.done: set[str] = set()
        self.crashed: dict[str, dict[str, Any]] = {}
        self.cut: dict[str, dict[str, int]] = {}  # what the time budget left undone, by cell
        self.interrupted = False
        self.claims: dict[str, dict[str, Any]] = {}
        self.measurements: dict[str, dict[str, Any]] = {}
        self.subjects: dict[str, dict[str, Any]] = {}
        self.runtimes: dict[str, dict[str, Any]] = {}
        self.missing: list[str] = []
        self.concerned = False  # whether this run is known to hold claims, or lost what it holds
        if config.option.collectonly:
            return
        if options.results is not None or options.report is not None or options.summary is not None:
            self.git = _git(options.root)  # of the code that is about to run, before this run writes anything
        if options.results is not None:
            results_file.write_atomically(options.results, results_file.empty_running(self.started))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without xdist: the cells of this run."""
        if not self.config.option.collectonly:
            self.planned.update(item.nodeid for item in session.items if grid_of(item) is not None)
            self.concerned |= bool(self.planned)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """With xdist: the cells of this run as the worker notes them; every test where it leaves no note."""
        found = notes.planned(self.config, node.gateway.id)
        if found is None:
            self.planned.update(ids)
            return
        cells, deselected = found
        self.planned.update(cells)
        self.concerned |= bool(cells)
        stash = self.config.stash
        stash[DESELECTED] = max(stash.get(DESELECTED, 0), deselected)  # every worker collects the same

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test says about itself."""
        when: str = report.when  # xdist reports a crashed worker's test with "???"
        if when in ("call", "???") or report.outcome != "passed":
            self.done.add(report.nodeid)
        self.concerned |= getattr(report, PLANNED, False)
        text = getattr(report, ATTRIBUTE, None)
        if isinstance(text, str):
            self._take(json.loads(text), report)
        elif report.nodeid in self.cells and report.when == "teardown" and report.failed:
            self.cells[report.nodeid].update(status="error", message=_message(report))
        elif when == "???" and report.nodeid in self.planned:
            notes.mark_crashed(self.config, report.nodeid)
            cell = _bare_cell(report.nodeid, "crashed", _message(report), _worker(report))
            cell["device"] = (self.runtimes.get(cell["worker"], {}).get("device", "") + _mask(report)).strip()
            self.crashed[report.nodeid] = self.cells[report.nodeid] = cell

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
        """Account for every planned cell, fail a run that lost one, and write the files."""
        if not self.config.option.collectonly:
            self.interrupted |= bool(session.shouldfail or session.shouldstop)
            self._account(session)  # before the others: the terminal names what is missing
        yield
        if self.config.option.collectonly:
            return
        if self.options.results is None and self.options.report is None and self.options.summary is None:
            return
        results = self._results(int(session.exitstatus))
        if self.options.results is not None:
            results_file.write_atomically(self.options.results, results)
        results_file.validate(results)  # after it is written: a long run is not lost to a slip of ours
        if self.options.report is not None:
            from pytest_prunerob.report.html import write_html

            write_html(self.options.report, results)
        if self.options.summary is not None:
            from pytest_prunerob.report.markdown import write_markdown

            write_markdown(self.options.summary, results)

    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C, ``pytest.exit``, or a limit of failures under xdist."""
        self.interrupted = True

    def pytest_internalerror(self) -> None:
        """A worker of xdist that fails inside may leave the exit status at 0 and its tests without a report."""
        self.concerned = True

    def _account(self, session: pytest.Session) -> None:
        """Add the cells that no report came from, and do not let a run that lost one end well."""
        if self.concerned or self.claims or self.cells or (self.options.results is not None and self.planned):
            self.missing = sorted(self.planned - self.done)
            for nodeid in self.missing:
                message = "the run ended without a report of this cell"
                self.cells[nodeid] = _bare_cell(nodeid, "not evaluated", message, "")
        if self.missing and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """``inconclusive`` is a category of its own."""
        if report.failed and isinstance(getattr(report, ATTRIBUTE, None), str) and _status(report) == "inconclusive":
            return "inconclusive", "I", ("INCONCLUSIVE", {"yellow": True})
        return None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A line for each claim; the reasons of inconclusive ones, which pytest's own sections leave out."""
        if not self.claims and not self.missing and not self.cells:
            return
        write = terminalreporter.write_line
        terminalreporter.section("robustness claims")
        for _, claim in sorted(self.claims.items()):
            colour = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "error": "red"}[
                claim["verdict"]
            ]
            write(texts.line(claim), **{"green" if claim["expected"] == claim["verdict"] else colour: True})
        for report in terminalreporter.getreports("inconclusive"):
            write("")
            write(report.nodeid, bold=True)
            write(str(report.longrepr))
        for nodeid in self.missing:
            write(f"NOT EVALUATED  {nodeid}", red=True)
        for nodeid, cell in self.cells.items():
            if cell["status"] == "crashed":
                write(f"CRASHED  {nodeid}  on {cell['worker']} {cell['device']}".rstrip(), red=True)
        for sentence in sorted({s for runtime in self.runtimes.values() for s in runtime["quarantined"]}):
            write(f"store: not used, measured again: {sentence}", yellow=True)
        if sentence := self._left_undone():
            write(sentence, yellow=True)
        for name in ("results", "report", "summary"):
            path = getattr(self.options, name)
            if path is not None:
                write(f"{name}: {path}")

    def _left_undone(self) -> str:
        """What the time budget left undone, in a sentence."""
        claims, tests = (sum(cut[name] for cut in self.cut.values()) for name in ("claims", "tests"))
        if self.options.time_budget is None or not claims + tests:
            return ""
        parts = [f"{plural(claims, 'claim')} undecided"] if claims else []
        parts += [f"{plural(tests, 'test')} not judged"] if tests else []
        return (
            f"prunerob: time budget of {duration(self.options.time_budget)} spent: {', '.join(parts)}; "
            f"run again to go on"
        )

    def _take(self, data: dict[str, Any], report: pytest.TestReport) -> None:
        worker = _worker(report)
        runtime = data.pop("runtime")
        if runtime is not None:
            self.runtimes[worker] = runtime
        cell = {
            **data["cell"],
            "status": _status(report),
            "worker": worker,
            "device": runtime["device"] if runtime is not None else "",
            "seconds": round(report.duration, 3),
            "message": "" if report.passed else _message(report),
        }
        if report.nodeid in self.crashed:  # handed out again by the scheduler: it stays what it is
            return
        self.cells[report.nodeid] = cell
        self.cut[report.nodeid] = data["cut"]
        self.claims = {key: claim for key, claim in self.claims.items() if claim["cell"] != report.nodeid}
        self.claims.update({claim["id"]: claim for claim in data["claims"]})
        for digest, subject in data["subjects"].items():
            entry = self.subjects.setdefault(digest, subject)
            entry["roles"] = sorted({*entry["roles"], *subject["roles"]})
            entry["checks"] = entry["checks"] or subject["checks"]
        for key, measurement in data["measurements"].items():
            known = self.measurements.get(key)
            if known is None or _done(measurement) >= _done(known):
                self.measurements[key] = measurement

    def _results(self, exit_status: int) -> dict[str, Any]:
        runtime = next(iter(self.runtimes.values()), None)
        cells = [self.cells[nodeid] for nodeid in sorted(self.cells)]
        complete = not any(cell["status"] in ("not evaluated", "crashed") for cell in cells)
        cost = {name: sum(cell["cost"][name] for cell in cells) for name in ("forward", "backward", "seconds")}
        return {
            "schema": results_file.RESULTS_SCHEMA,
            "status": "complete" if complete and exit_status in (0, 1, 5) else "incomplete",
            "started": self.started,
            "finished": _now(),
            "environment": {
                "python": sys.version.split()[0],
                "platform": platform(),
                "packages": _versions(),
                "device": runtime["device"] if runtime else "",
                "device_name": runtime["device_name"] if runtime else "",
                "precision": runtime["precision"] if runtime else {},
                "threads": runtime["threads"] if runtime else 0,
                "git": self.git,
                "seed": self.options.seed,
            },
            "options": self.options.shown(),
            "selection": {
                "args": [str(argument) for argument in self.config.invocation_params.args],
                "keyword": str(self.config.option.keyword),
                "markexpr": str(self.config.option.markexpr),
                "maxfail": int(self.config.option.maxfail or 0),
                "deselected": self.config.stash.get(DESELECTED, 0),
                "stopped_early": self.interrupted,
                "planned": len(cells),
            },
            "exit_status": exit_status,
            "budget": {"seconds": self.options.time_budget, "exhausted": bool(self._left_undone())},
            "cells": cells,
            "claims": adjusted(
                [claim for cell in cells for claim in self.claims.values() if claim["cell"] == cell["id"]]
            ),
            "measurements": self.measurements,
            "subjects": self.subjects,
            "store": {
                "path": str(self.options.shown()["store"]),
                "mode": self.options.store_mode,
                "hits": sum(found["hits"] for found in self.runtimes.values()),
                "misses": sum(found["misses"] for found in self.runtimes.values()),
                "quarantined": sorted({s for found in self.runtimes.values() for s in found["quarantined"]}),
            },
            "cost": cost,
        }


def adjusted(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims with Holm's p-values; a family is what one test function claims over its cells."""
    families: dict[str, list[int]] = {}
    for place, claim in enumerate(claims):
        if claim["p_value"] is not None:
            path, _, name = claim["cell"].partition("::")
            families.setdefault(f"{path}::{name.partition('[')[0]}", []).append(place)
    found = [{**claim, "holm": None} for claim in claims]
    for places in families.values():
        for place, value in zip(places, holm([claims[place]["p_value"] for place in places]), strict=True):
            found[place]["holm"] = value
    return found


def _status(report: pytest.TestReport) -> str:
    if not report.passed and json.loads(getattr(report, ATTRIBUTE))["undecided"]:
        return "inconclusive"
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.skipped or report.passed:
        return str(report.outcome)
    return "failed" if report.when == "call" else "error"


def _done(measurement: dict[str, Any]) -> int:
    return sum(int(stage["done"]) for stage in measurement["stages"])


def _worker(report: pytest.TestReport) -> str:
    node = getattr(report, "node", None)
    return str(node.gateway.id) if node is not None else "main"


def _mask(report: pytest.TestReport) -> str:
    """The device that ``plugin.devices`` gave to the worker of a report, which may have crashed before it said so."""
    environment = getattr(report.node.gateway.spec, "env", None) or {}
    return f" ({MASK}={environment[MASK]})" if MASK in environment else ""


def _message(report: pytest.TestReport) -> str:
    # Not longreprtext: xdist puts the path of the interpreter in front of it.
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return results_file.clip(text)


def _bare_cell(nodeid: str, status: str, message: str, worker: str) -> dict[str, Any]:
    name = nodeid.rpartition("::")[2]
    return {
        "id": nodeid,
        "test": name.partition("[")[0],
        "parameters": {},
        "samples": None,
        "compression": None,
        "status": status,
        "worker": worker,
        "device": "",
        "seconds": 0.0,
        "message": message,
        "reported": None,
        "claims": [],
        "subjects": [],
        "dataset": None,
        "cost": {"forward": 0, "backward": 0, "seconds": 0.0},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(root: Path) -> dict[str, Any]:
    try:
        where = ["git", "-C", str(root)]
        revision = subprocess.run([*where, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        dirty = subprocess.run(
            [*where, "status", "--porcelain"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}
    return {"revision": revision.stdout.strip(), "dirty": bool(dirty.stdout.strip())}


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
