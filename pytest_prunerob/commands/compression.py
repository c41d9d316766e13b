"""``prunerob compression``: methods, what follows pruning, networks and trainings, as in ``docs/compression.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import chain

from pytest_prunerob.errors import CompressionError, unknown

HELP = "list the compression methods, what follows pruning, networks and trainings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("part", nargs="?", metavar="PART", help=f"only this: {', '.join(PARTS)}")


def run(given: argparse.Namespace) -> int:
    """Print the tables.

    Raises:
        CompressionError: for a part that there is not.
    """
    if given.part is not None and given.part not in PARTS:
        raise CompressionError(unknown("part", given.part, PARTS))
    parts = [PARTS[given.part]] if given.part is not None else list(PARTS.values())
    lines = chain.from_iterable((*part(), "") for part in parts)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def methods() -> Iterator[str]:
    """A row for each method of ``METHODS``: ``amount`` is in its unit, of the whole network or of each layer."""
    from pytest_prunerob.compression import METHODS

    yield "| method | unit | amount of | needs | `iterations` | source |"
    yield "|---|---|---|---|---|---|"
    for method in METHODS.values():
        needs = [text for text, needed in (("training samples", method.data), ("training", method.trains)) if needed]
        needs += [f"`{method.library}`"] if method.library is not None else []
        scope = {"global": "the network", "local": "each layer"}[method.scope]
        taken = "yes" if method.iterations else "–"
        yield f"| {method.name} | {method.unit} | {scope} | {', '.join(needs) or '–'} | {taken} | {method.source} |"


def after() -> Iterator[str]:
    """A row for each scheme of ``AFTER``."""
    from pytest_prunerob.compression import AFTER

    yield "| after | after each step | at the end | source |"
    yield "|---|---|---|---|"
    for scheme in AFTER.values():
        steps = {"fine-tuning": "fine-tuning", "adversarial": "PGD training", "none": "–"}[scheme.steps]
        yield f"| {scheme.name} | {steps} | {'yes' if scheme.finish is not None else '–'} | {scheme.source} |"


PARTS: dict[str, Callable[[], Iterator[str]]] = {"methods": methods, "after": after}
