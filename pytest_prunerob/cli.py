"""The command ``prunerob``: what a release gate does with results, locks and the store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_prunerob.commands import COMMANDS
from pytest_prunerob.errors import PrunerobError

USAGE = 4  # pytest's own number for bad input, so that a CI job reads both commands alike


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 as expected, 1 not as expected, 4 bad input."""
    parser = argparse.ArgumentParser(prog="prunerob", description=__doc__)
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(parsers.add_parser(name, help=command.HELP))
    given, others = parser.parse_known_args(arguments)
    if others and not hasattr(given, "pytest_arguments"):  # only a command that runs pytest passes arguments on
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    given.pytest_arguments = others
    try:
        return int(COMMANDS[given.command].run(given))
    except PrunerobError as error:
        print(f"prunerob {given.command}: {error}", file=sys.stderr)  # noqa: T201 - this is the terminal
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
