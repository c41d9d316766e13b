"""``prunerob store``: look into a store, check it, hand its results on, delete from it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_prunerob.errors import InputError, StoreError

HELP = "list, verify, export, import or prune stored results"
DAY = 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", type=Path, default=Path(".prunerob"), metavar="DIR", help="default: .prunerob")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", parents=[common], help="what is stored: models, measurements, findings")
    verify = actions.add_parser("verify", parents=[common], help="hash every file again; exit code 1 on damage")
    verify.add_argument("--quarantine", action="store_true", help="set damaged files aside, to be measured again")
    export = actions.add_parser("export", parents=[common], help="copy every intact result into a directory")
    export.add_argument("directory", type=Path, metavar="DIRECTORY")
    take = actions.add_parser("import", parents=[common], help="unite the store with the results in a directory")
    take.add_argument("directory", type=Path, metavar="DIRECTORY")
    prune = actions.add_parser("prune", parents=[common], help="show what could be deleted; delete it with --yes")
    prune.add_argument("--older-than", type=float, metavar="DAYS", help="what was last written more than DAYS ago")
    prune.add_argument("--incomplete", action="store_true", help="unfinished measurements and files of killed runs")
    prune.add_argument("--quarantine", action="store_true", help="what was set aside")
    prune.add_argument("--other-versions", action="store_true", help="results in a schema that is not read any more")
    prune.add_argument("--yes", action="store_true", help="delete it")


def run(given: argparse.Namespace) -> int:
    """Do what is asked; 0 if all is well, 1 where something is damaged or was refused."""
    action = {"list": _list, "verify": _verify, "export": _export, "import": _import, "prune": _prune}[given.action]
    return action(given)


def _list(given: argparse.Namespace) -> int:
    from pytest_prunerob.store import Store
    from pytest_prunerob.store.inventory import entries

    store, now = Store(given.store, "ro"), time.time()
    found = entries(store)
    rows = [("KEY", "KIND", "SUBJECT", "PLAN", "SAMPLES", "STATE", "SIZE", "AGE")]
    for entry in sorted(found, key=lambda entry: (entry.kind, entry.subject, entry.plan, entry.key)):
        samples = "" if entry.samples is None else str(entry.samples)
        size, age = _size(entry.size), _age(now - entry.written)
        rows.append((entry.key[:12], entry.kind, entry.subject, entry.plan, samples, entry.state, size, age))
    for line in _table(rows):
        _say(line)
    _say(f"{len(found)} entries, {_size(sum(entry.size for entry in found))}")
    for sentence in store.other_versions():
        _say(sentence)
    return 0


def _verify(given: argparse.Namespace) -> int:
    from pytest_prunerob.store import Store
    from pytest_prunerob.store.inventory import check

    store = Store(given.store, "rw" if given.quarantine else "ro")
    count = check(store)
    for sentence in store.quarantined:
        _say(f"✗ {sentence}")
    for sentence in store.other_versions():
        _say(sentence)
    if not store.quarantined:
        _say(f"{count} files, all intact")
        return 0
    done = "set aside: the next run measures them again" if given.quarantine else "nothing was moved: --quarantine does"
    _say(f"{count} files, {len(store.quarantined)} problems; {done}")
    return 1


def _export(given: argparse.Namespace) -> int:
    return _transfer(given.store, given.directory)


def _import(given: argparse.Namespace) -> int:
    return _transfer(given.directory, given.store)


def _transfer(source: Path, target: Path) -> int:
    from pytest_prunerob.store import Store
    from pytest_prunerob.store.transfer import transfer

    if target.resolve() == source.resolve():
        raise InputError(f"{str(source)!r} is both source and target: name another directory")
    if not source.is_dir():
        raise StoreError(f"there is no store {str(source)!r}")
    store = Store(target)
    store.check_writable()
    done = transfer(source, store)
    for sentence in (*done.refused, *store.quarantined):
        _say(f"✗ {sentence}")
    _say(f"{done.files} files ({_size(done.bytes)}) copied, {done.present} were there, {len(done.refused)} refused")
    return 1 if done.refused else 0


def _prune(given: argparse.Namespace) -> int:
    from pytest_prunerob.store import Store
    from pytest_prunerob.store.inventory import delete, prunable

    chosen = {"--incomplete": given.incomplete, "--quarantine": given.quarantine, "other": given.other_versions}
    if given.older_than is None and not any(chosen.values()):
        raise InputError("prune needs to know what: --older-than DAYS, --incomplete, --quarantine or --other-versions")
    if given.older_than is not None and not 0 <= given.older_than < float("inf"):
        raise InputError(f"--older-than={given.older_than} is not a number of days of at least 0")
    found = prunable(
        Store(given.store, "ro"),
        time.time(),
        older_than=None if given.older_than is None else given.older_than * DAY,
        incomplete=given.incomplete,
        quarantine=given.quarantine,
        other_versions=given.other_versions,
    )
    for what in found:
        _say(f"{'deleting' if given.yes else 'would delete'} {what.why} ({_size(what.size)})")
        if given.yes:
            delete(what)
    freed = _size(sum(what.size for what in found))
    _say(f"{freed} freed" if given.yes else f"{freed} would be freed: nothing was deleted, --yes does")
    return 0


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _say(line: str) -> None:
    """Print a line; what a foreign store says cannot steer the terminal."""
    print("".join(c if c.isprintable() else "?" for c in line))  # noqa: T201 - the product


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _age(seconds: float) -> str:
    for unit, length in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
