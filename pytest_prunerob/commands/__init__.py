"""The commands of ``prunerob``: one file each, with HELP, ``add_arguments(parser)`` and ``run(given) -> exit code``."""

from __future__ import annotations

from types import ModuleType

from pytest_prunerob.commands import attacks, compression, diff, lock, merge, plan, report, store, verify

COMMANDS: dict[str, ModuleType] = {
    "attacks": attacks,
    "compression": compression,
    "diff": diff,
    "lock": lock,
    "merge": merge,
    "plan": plan,
    "report": report,
    "store": store,
    "verify": verify,
}
