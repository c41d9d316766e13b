"""``prunerob compression``: methods, what follows pruning, networks and trainings, as in ``docs/compression.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import chain

from pytest_prunerob.errors import CompressionError, unknown

OPTIONAL = {"torch-pruning": "structured"}  # the extra that brings a library
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
        needs += [f"extra `{OPTIONAL[method.library]}`"] if method.library in OPTIONAL else []
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


def networks() -> Iterator[str]:
    """A row for each network of ``NETWORKS``: the inputs it takes."""
    from pytest_prunerob.networks import NETWORKS

    yield "| network | inputs | source |"
    yield "|---|---|---|"
    for network in NETWORKS.values():
        yield f"| {network.name} | {network.allowed.removeprefix('inputs with ')} | {network.source} |"


def trainings() -> Iterator[str]:
    """A row for each recipe of ``TRAININGS``; in brackets the values on the digits where they are others."""
    from pytest_prunerob.training import TRAININGS, recipe

    yield "| training | epochs | batch | optimizer | learning rate | schedule | adversary | ε | steps | augmentation |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, usual in TRAININGS.items():
        digits = recipe(name, dataset="digits")
        columns = ("epochs", "batch_size", "optimizer", "lr", "schedule", "adversary", "eps", "steps", "augmentation")
        pairs = ((getattr(usual, column), getattr(digits, column)) for column in columns)
        cells = (_shown(one) if one == other else f"{_shown(one)} ({_shown(other)})" for one, other in pairs)
        yield f"| {name} | {' | '.join(cells)} |"


def _shown(value: object) -> str:
    return "–" if value in (None, "none", 0) else str(value)


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "methods": methods,
    "after": after,
    "networks": networks,
    "trainings": trainings,
}
