"""``prunerob attacks``: the attacks of the catalogue, as the table that stands in ``docs/attacks.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from pytest_prunerob.errors import PlanError, unknown

HELP = "list the attacks: norms, library, parameters, cost, paper"
HEADER = (
    "| attack | written as | norms | gives | library | parameters | forward | backward | paper |",
    "|---|---|---|---|---|---|---:|---:|---|",
)
GIVES = {
    "fixed": "breaks within ε",
    "minimum": "smallest distance",
    "corruption": "corrupted inputs",
    "estimate": "a score",
}
# The costs are those of a sample of CIFAR-10 in a micro-batch of the published size.
SAMPLES, CLASSES, FEATURES = 250, 10, 3 * 32 * 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="*", metavar="ATTACK", help="only these")


def run(given: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        PlanError: for an attack that the catalogue does not have.
    """
    from pytest_prunerob.attacks import ATTACKS

    for name in given.names:
        if name not in ATTACKS:
            raise PlanError(unknown("attack", name, ATTACKS))
    sys.stdout.write("".join(f"{line}\n" for line in table(given.names)))
    return 0


def table(names: list[str] | None = None) -> Iterator[str]:
    """The lines of the table, a row for each attack or for those in ``names``.

    Forward and backward are the most passes of one CIFAR-10 sample through the network, without what the oracle saves
    and without the engine's own (clean logits, judging what is returned).
    """
    from pytest_prunerob.attacks import ATTACKS, OPTIONAL, Load
    from pytest_prunerob.plans.examples import EXAMPLES

    yield from HEADER
    for name, attack in ATTACKS.items():
        if names and name not in names:
            continue
        text, plan = EXAMPLES[name]
        stage = next(stage for stage in plan.stages if stage.attack == name)
        eps = float("inf") if plan.threat.eps is None else float(plan.threat.radius)
        passes = attack.passes(stage, Load(SAMPLES, CLASSES, FEATURES, eps))
        parameters = ", ".join(f"{key} {value}" for key, value in stage.params)
        extra = f" (extra `{OPTIONAL[attack.library]}`)" if attack.library in OPTIONAL else ""
        norms = ", ".join(norm for norm in attack.norms if norm != "none") or "–"
        yield (
            f"| {name} | `{text}` | {norms} | {GIVES[attack.kind]} | {attack.library}{extra} | {parameters} | "
            f"{passes.forward:,} | {passes.backward:,} | {attack.source} |"
        )
