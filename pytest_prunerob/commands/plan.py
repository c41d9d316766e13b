"""``prunerob plan``: what a selection of claim tests would measure, before it does."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_prunerob.errors import OptionError
from pytest_prunerob.report.numbers import count, plural, seconds

if TYPE_CHECKING:
    from pytest_prunerob.planned import PlannedMeasurement
    from pytest_prunerob.plugin.planning import Planner

HELP = "say what pytest with these arguments would measure, and what that costs at most; measures nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; all others go to pytest."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(pytest_arguments=[])
    parser.usage = "prunerob plan [--json] [PYTEST ARGUMENTS]"


def run(given: argparse.Namespace) -> int:
    """Print the plan; 0 whatever it holds, since it is no test.

    Raises:
        OptionError: where pytest cannot collect, with what it printed.
    """
    plan = planned(given.pytest_arguments)
    text = json.dumps(plan, indent=1, allow_nan=False) if given.json else "\n".join(lines(plan))
    print(text)  # noqa: T201 - the product
    return 0


def planned(arguments: list[str]) -> dict[str, Any]:
    """The plan of ``pytest ARGUMENTS`` as plain data.

    Raises:
        OptionError: where pytest cannot collect.
    """
    import pytest

    from pytest_prunerob.plugin.planning import Planner

    planner, output = Planner(), io.StringIO()
    # --collect-only tells every other plugin that this is no test run: none of them writes a result of it. This package
    # is imported before pytest could rewrite its assertions, of which it has none that pytest should explain.
    expected = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"
    with contextlib.redirect_stdout(output):
        status = pytest.main([*arguments, "--collect-only", "-W", expected], plugins=[planner])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(output.getvalue(), file=sys.stderr)  # noqa: T201 - what pytest says about it
        raise OptionError(f"pytest ended with exit status {int(status)} before there was anything to plan")
    return plain(planner)


def plain(planner: Planner) -> dict[str, Any]:
    """What ``planner`` found out, as plain data."""
    from pytest_prunerob.plugin.planning import stages_with_time

    left = list(stages_with_time(planner))
    measurements = [_measurement(planner, planned) for planned in left]
    probes = sum(planner.probed.values())
    times = [entry["at_most"]["seconds"] for entry in measurements]
    return {
        "device": planner.device,
        "cells": [asdict(cell) for cell in planner.cells],
        "other_tests": planner.others,
        "models": sorted(planner.models.values()),
        "measurements": measurements,
        "probes": probes,
        "at_most": {
            "forward": sum(entry["at_most"]["forward"] for entry in measurements) + probes,
            "backward": sum(entry["at_most"]["backward"] for entry in measurements),
            "seconds": None if None in times else sum(times),
        },
        "if_all_break_at_once": {
            "forward": sum(planned.easiest.forward for planned in left) + probes,
            "backward": sum(planned.easiest.backward for planned in left),
        },
        "unknown": list(_unknown(planner, None in times)),
    }


def _measurement(planner: Planner, planned: PlannedMeasurement) -> dict[str, Any]:
    audits = planned.audit.forward * planned.claims
    # An audit runs the gradient stages of the plan once more: it is timed like all of them together.
    times = [stage.seconds for stage in planned.stages if stage.forward]
    times += [planner.seconds(planned.architecture, "", audits)] if audits else []
    known = [time for time in times if time is not None]
    return {
        "key": planned.key,
        "subject": planned.subject,
        "plan": planned.plan,
        "n": planned.n,
        "claims": planned.claims,
        "stages": [asdict(stage) for stage in planned.stages],
        "audits": {"forward": audits, "backward": planned.audit.backward * planned.claims},
        "at_most": {
            "forward": planned.bound.forward,
            "backward": planned.bound.backward,
            "seconds": sum(known) if len(known) == len(times) else None,
        },
    }


def _unknown(planner: Planner, untimed: bool) -> Iterator[str]:
    """What this plan cannot know, a sentence each."""
    yield "how many samples break and when: a break ends the work on a sample, and a claim that is settled ends its own"
    if planner.models:
        yield (
            "the time of training and pruning, and every outcome of a model that is not built yet: "
            "its untrained network stands in for counting"
        )
    if untimed:
        yield f"the time on {planner.device}: the store holds no measurement of such a network on it"
    if planner.adequacy == "full":
        yield "what --prunerob-adequacy=full costs beyond the audit of the level basic"
    if any(cell.note for cell in planner.cells):
        yield "what the tests with a remark measure beyond what is listed"
    yield "how often an audit breaks a survivor: it is made again then"


def lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """The plan as a person reads it."""
    cells = plan["cells"]
    claims, settled = (sum(cell[name] for cell in cells) for name in ("claims", "settled"))
    yield f"{plural(len(cells), 'cell')} with {plural(claims, 'claim')}: {count(settled)} need no measuring"
    for cell in cells:
        if cell["note"]:
            yield f"  {cell['id']}: {cell['note']}"
    if plan["models"]:
        yield f"{plural(len(plan['models']), 'model')} to build:"
        yield from (f"  {model}" for model in plan["models"])
    yield ""
    if plan["measurements"]:
        yield from _table(plan["measurements"])
        yield ""
    most, least = plan["at_most"], plan["if_all_break_at_once"]
    yield (
        f"at most {count(most['forward'])} samples forward and {count(most['backward'])} backward, if every sample "
        f"survives; time {_time(most['seconds'])}"
    )
    yield (
        f"{count(least['forward'])} forward and {count(least['backward'])} backward, if the first input breaks "
        f"every sample"
    )
    yield "not known:"
    yield from (f"  {sentence}" for sentence in plan["unknown"])


def _table(measurements: list[dict[str, Any]]) -> Iterator[str]:
    rows = [("to measure", "n", "micro-batches", "forward ≤", "backward ≤", "time ≲")]
    subject = ""
    for entry in sorted(measurements, key=lambda entry: str(entry["subject"])):
        if entry["subject"] != subject:
            subject = entry["subject"]
            rows.append((subject, "", "", "", "", ""))
        most = entry["at_most"]
        total = (count(most["forward"]), count(most["backward"]), _time(most["seconds"]))
        rows.append((f"  {entry['plan']}", count(entry["n"]), "", *total))
        for stage in entry["stages"] if len(entry["stages"]) > 1 else ():
            costs = (count(stage["forward"]), count(stage["backward"]), _time(stage["seconds"]))
            rows.append((f"    {stage['name']}", "", f"{count(stage['left'])} of {count(stage['of'])}", *costs))
        if entry["audits"]["forward"]:
            costs = (count(entry["audits"]["forward"]), count(entry["audits"]["backward"]), "")
            rows.append((f"    audits for {plural(entry['claims'], 'claim')}", "", "", *costs))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


def _time(number: float | None) -> str:
    return "unknown" if number is None else seconds(number)
