"""Which part of the package may import which, read from the import statements (design, section 5)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_prunerob

ROOT = Path(pytest_prunerob.__file__).parent
HEAVY = ("torch", "torchvision", "numpy", "scipy", "sklearn", "jinja2", "jsonschema", "foolbox", "pyautoattack", "art")
# What each part may import of the package; the plugin and the command line may import everything.
ALLOWED = {
    "__init__": {
        "cells", "checkpoints", "claims", "curves", "datasets", "flips", "latency", "plans", "reported", "subjects",
        "transfer",
    },
    "checkpoints": {"errors", "subjects"},
    "curves": {"claims", "decimals", "errors", "plans"},
    "decimals": set(),
    "latency": {"claims", "errors"},
    "transfer": {"claims", "errors", "plans"},
    "scores": {"claims", "decimals", "errors", "plans"},
    "flips": {"claims", "errors", "plans"},
    "errors": set(),
    "budget": {"errors"},
    "estimates": {"attacks", "ledger", "plans", "votes"},
    "planned": {"adequacy", "attacks", "datasets", "estimates", "fingerprint", "ledger", "plans", "votes"},
    "reported": {"errors"},
    "cells": {"errors", "reported"},
    "plans": {"errors"},
    "grammar": {"claims", "errors", "flips", "latency", "plans", "reported", "scores", "transfer"},
    "toml_places": set(),
    "claims_file": {"cells", "errors", "grammar", "plans", "reported", "toml_places"},
    "claims": {"curves", "decimals", "errors", "latency", "plans", "reported", "scores"},
    "statistics": {"errors"},
    "inference": {"errors", "statistics"},
    "sequential": {"errors"},
    "known": {"claims"},
    "verdicts": {"claims", "errors", "inference", "known", "sequential", "statistics"},
    "ledger": {"errors"},
    "metrics": {"inference", "known", "ledger", "statistics"},
    "store": {"errors", "ledger"},
    "oracle": {"errors"},
    "corruptions": {"errors"},
    "attacks": {"randomness", "votes", "corruptions", "errors", "oracle", "plans"},
    "threads": set(),
    "randomness": set(),
    "votes": {"oracle", "randomness"},
    "probes": {"store"},
    "engine": {"randomness", "votes", "attacks", "errors", "ledger", "oracle", "plans", "threads"},
    "fingerprint": {"errors"},
    "subjects": {"errors", "fingerprint"},
    "datasets": {"errors"},
    "facts": {"errors"},
    "speed": {"errors", "randomness"},
    "factsheet": {"claims", "facts", "known", "ledger", "measurement", "speed", "statistics"},
    "adequacy": {"randomness", "attacks", "engine", "errors", "ledger", "oracle", "plans", "subjects"},
    "networks": {"errors"},
    "training": {"compression", "datasets", "errors", "fingerprint", "threads"},
    "trainers": {"compression", "datasets", "errors", "training"},
    "compression": {"datasets", "errors", "facts", "subjects"},
    "resuming": {"store", "training"},
    "models": {
        "budget", "cells", "compression", "datasets", "errors", "facts", "fingerprint", "networks", "resuming", "store",
        "subjects", "threads", "trainers", "training",
    },
    "material": {
        "attacks", "corruptions", "datasets", "engine", "fingerprint", "oracle", "plans", "randomness", "subjects",
        "votes",
    },
    "measurement": {
        "adequacy", "attacks", "budget", "datasets", "engine", "errors", "fingerprint", "ledger", "material", "plans",
        "probes", "store", "subjects",
    },
    "auditing": {"adequacy", "attacks", "engine", "fingerprint", "ledger", "measurement"},
    "scheduling": {"claims", "known", "measurement"},
    "evaluation": {"adequacy",
        "auditing", "claims", "datasets", "errors", "factsheet", "known", "ledger", "measurement", "metrics",
        "reported", "scheduling", "verdicts",
    },
    "report": {"budget", "errors"},
}  # fmt: skip


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports when it runs, wherever the statement stands."""
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_in_one_direction(path: Path) -> None:
    own = part(path)
    names = list(imported(path))
    inside = {name.split(".")[1] for name in names if name.startswith("pytest_prunerob.")} - {own}
    outside = {name.split(".")[0] for name in names} - {"pytest_prunerob"}
    if own in ("plugin", "cli", "commands", "__main__"):
        assert inside <= ALLOWED.keys() | {"cli", "commands", "plugin"}
    else:
        assert own in ALLOWED, f"{own} is new: say here what it may import"
        assert inside <= ALLOWED[own]
        assert not outside & {"pytest", "_pytest", "xdist", "pluggy"}
    if own in ("cells", "plans", "reported", "claims", "claims_file", "decimals", "errors", "grammar", "ledger",
               "toml_places"):  # fmt: skip
        assert outside <= sys.stdlib_module_names
    if own == "report":
        assert not outside & {"torch", "numpy", "foolbox", "pyautoattack", "safetensors"}


@pytest.mark.parametrize("name", ["pytest_prunerob", "pytest_prunerob.plugin", "pytest_prunerob.verdicts"])
def test_importing_the_plugin_loads_nothing_heavy(name: str) -> None:
    script = f"import sys, {name}; print(*sorted({{m.split('.')[0] for m in sys.modules}} & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert done.stderr == ""
