"""``prunerob diff``: what changed between two runs, and whether a claim that was supported no longer is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_prunerob.report import results as results_file
from pytest_prunerob.report.numbers import plural

if TYPE_CHECKING:
    from pytest_prunerob.store import Store

HELP = "what changed between two runs; exit code 1 if a supported claim is no longer supported"
ENVIRONMENT = ("python", "platform", "device", "device_name", "threads", "seed")
OUTPUTS = ("results", "report", "summary", "store")
"""The options that say where a run writes, which change no verdict."""

Change = tuple[object, object]


@dataclass(frozen=True)
class Pair:
    """The same samples under both: ``gained`` survive only in the new run, ``lost`` only in the old one.

    ``low`` and ``high`` bound new − old of the population that the ``n`` samples were drawn from.
    """

    n: int
    gained: int
    lost: int
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Number:
    """A quantity of a claim in both runs; a value or an interval is ``None`` where it is not exactly known."""

    claim: str
    text: str
    subject: str
    old: float | str | None
    new: float | str | None
    old_interval: Mapping[str, float] | None
    new_interval: Mapping[str, float] | None
    pair: Pair | None = None


@dataclass(frozen=True)
class Difference:
    """Everything that changed, by claim, old before new; a text that changed makes another claim of it."""

    lost: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, Change] = field(default_factory=dict)
    texts: dict[str, Change] = field(default_factory=dict)
    samples: dict[str, Change] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()
    environment: dict[str, Change] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="a store with the outcomes of both: compare sample by sample"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(given: argparse.Namespace) -> int:
    """Print what changed; 1 if a claim that was supported no longer is."""
    old, new = results_file.read(given.old), results_file.read(given.new)
    store: Store | None = None
    if given.store is not None:
        from pytest_prunerob.store import Store as Opened

        store = Opened(given.store, "ro")
    found = difference(old, new, store)
    if given.json:
        print(json.dumps(asdict(found), indent=1, ensure_ascii=False))  # noqa: T201 - the product
    else:
        for line in lines(found):
            print(line)  # noqa: T201 - the product
    return 1 if found.lost else 0


def difference(old: Mapping[str, Any], new: Mapping[str, Any], store: Store | None = None) -> Difference:
    """What changed from ``old`` to ``new``; ``store`` has the outcomes of both, where they are at hand."""
    before, after = ({claim["id"]: claim for claim in document["claims"]} for document in (old, new))
    both = [(claim, after[name]) for name, claim in before.items() if name in after]
    return Difference(
        lost=dict(_lost(before, after)),
        verdicts={a["id"]: (a["verdict"], b["verdict"]) for a, b in both if a["verdict"] != b["verdict"]},
        texts={a["id"]: (a["text"], b["text"]) for a, b in both if a["text"] != b["text"]},
        samples={a["id"]: (a["n"], b["n"]) for a, b in both if a["n"] != b["n"]},
        added={name: claim["verdict"] for name, claim in after.items() if name not in before},
        removed={name: claim["verdict"] for name, claim in before.items() if name not in after},
        numbers=tuple(number for a, b in both for number in _numbers(a, b, store)),
        environment=dict(_environment(old, new)),
    )


def _lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The claims that were supported and are not any more, with what became of them."""
    for name, old in before.items():
        new = after.get(name)
        if old["verdict"] != "supported":
            continue
        if new is None:
            yield name, "it is not there"
        elif new["text"] != old["text"]:
            yield name, f"it claims '{new['text']}' instead"
        elif new["verdict"] != "supported":
            yield name, new["verdict"] + (f": {new['reason']}" if new["reason"] else "")


def _numbers(old: Mapping[str, Any], new: Mapping[str, Any], store: Store | None) -> Iterator[Number]:
    """The quantities of a claim that changed; what is no exact number in both is told as far as it is known."""
    after = {(term["text"], term["subject"]): term for term in new["terms"]}
    for a in old["terms"]:
        b = after.get((a["text"], a["subject"]))
        if b is None or _shown(a) == _shown(b):
            continue
        pair = None if store is None else _pair(store, a["measurement"], b["measurement"], new["confidence"])
        yield Number(new["id"], a["text"], a["subject"], _shown(a), _shown(b), a["interval"], b["interval"], pair)


def _shown(term: Mapping[str, Any]) -> float | str | None:
    value = term["value"]
    if value is None and term["low"] != term["high"]:
        return f"{_short(term['low'])} to {_short(term['high'])}"
    found: float | str | None = term["low"] if value is None else value
    return found


def _pair(store: Store, first: str | None, second: str | None, confidence: float) -> Pair | None:
    """Both measurements sample by sample, where the store holds them complete and on the same samples."""
    from pytest_prunerob.statistics import paired_lower_bound

    ledgers = [_survived(store, key) for key in (first, second) if key is not None]
    if len(ledgers) != 2 or None in ledgers:
        return None
    (old_data, n, old), (new_data, _, new) = (ledger for ledger in ledgers if ledger is not None)
    if old_data != new_data or n == 0:
        return None
    gained, lost = len(new - old), len(old - new)
    level = (1 + confidence) / 2  # two one-sided bounds make an interval
    low = paired_lower_bound(gained, lost, n, level)
    high = -paired_lower_bound(lost, gained, n, level)
    return Pair(n, gained, lost, low, high, confidence)


def _survived(store: Store, key: str) -> tuple[str, int, frozenset[int]] | None:
    """Data set, number of samples and survivors of a complete measurement at fixed ε; ``None`` where it is none."""
    from pytest_prunerob.ledger import empty_ledger

    content = store.manifest(key)
    if content is None or content.get("kind") not in ("decide", "returned"):
        return None
    ledger = empty_ledger(key, content.get("shape"))
    for segment in store.segments(key).values():
        if not ledger.misfit(segment):
            ledger.add(segment)
    if not ledger.complete or ledger.errors:
        return None
    return str(content["dataset"]), ledger.n, ledger.survived


def _environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Change]]:
    a, b = old["environment"], new["environment"]
    tables = {
        "": ({name: a[name] for name in ENVIRONMENT}, {name: b[name] for name in ENVIRONMENT}),
        "package ": (a["packages"], b["packages"]),
        "precision ": (a["precision"], b["precision"]),
        "git ": (a["git"], b["git"]),
        "option ": tuple(
            {name: value for name, value in document["options"].items() if name not in OUTPUTS}
            for document in (old, new)
        ),
    }
    for prefix, (before, after) in tables.items():
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield f"{prefix}{name}", (before.get(name), after.get(name))


def lines(found: Difference) -> Iterator[str]:
    """The difference in words, what matters most first."""
    if found.lost:
        yield f"{plural(len(found.lost), 'claim')} no longer supported:"
        yield from (f"  ✗ {name}: {what}" for name, what in found.lost.items())
    others = {name: change for name, change in found.verdicts.items() if name not in found.lost}
    for title, changes in (("other verdicts", others), ("other texts", found.texts), ("samples", found.samples)):
        if changes:
            yield f"{title}:"
            yield from (f"  {name}: {_short(old)} → {_short(new)}" for name, (old, new) in changes.items())
    for title, claims in (("new claims", found.added), ("claims that are gone", found.removed)):
        if claims:
            yield f"{title}:"
            yield from (f"  {name}: {verdict}" for name, verdict in claims.items())
    if found.numbers:
        yield "numbers:"
        for number in found.numbers:
            yield from _number_lines(number)
    if found.environment:
        yield "environment:"
        yield from (f"  {name}: {_short(old)} → {_short(new)}" for name, (old, new) in found.environment.items())
    if found == Difference():
        yield "nothing changed"


def _number_lines(number: Number) -> Iterator[str]:
    intervals = [_interval(each) for each in (number.old_interval, number.new_interval)]
    yield f"  {number.claim}: {number.text}"
    yield f"    {_short(number.old)}{intervals[0]} → {_short(number.new)}{intervals[1]}"
    pair = number.pair
    if pair is not None:
        yield (
            f"    sample by sample: {pair.gained} gained, {pair.lost} lost of {pair.n}; "
            f"new − old in [{pair.low:+.4f}, {pair.high:+.4f}] at {pair.confidence:.0%}"
        )


def _interval(interval: Mapping[str, float] | None) -> str:
    return "" if interval is None else f" [{interval['low']:.4f}, {interval['high']:.4f}]"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)
