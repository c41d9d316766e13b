"""All options of the plugin: ``--prunerob-*`` with an ini twin ``prunerob_*``, through one resolver."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from pytest_prunerob.errors import OptionError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """The resolved options of a run. Paths are absolute; ``store`` holds results between runs."""

    profile: str | None
    device: str
    batch_size: int
    store: Path
    store_mode: str
    inconclusive: str
    results: Path | None
    report: Path | None
    population: str
    confidence: float
    seed: int
    adequacy: str
    decide: str
    time_budget: float | None
    witness: str
    summary: Path | None
    root: Path

    def shown(self) -> dict[str, str | int | float | None]:
        """The options as results.json records them; paths relative to the root directory."""
        return {
            name: _relative(value, self.root) if isinstance(value, Path) else value
            for name, value in vars(self).items()
            if name != "root"
        }


@dataclass(frozen=True)
class _Option:
    name: str
    default: str | None
    metavar: str
    help: str


_OPTIONS = (
    _Option("profile", None, "NAME", "use this profile of every cells(...) that has profiles"),
    _Option("device", "auto", "DEVICE", "auto, cpu, cuda, or devices for xdist workers such as cuda:0,cuda:1"),
    _Option("batch-size", "250", "N", "samples forwarded at once; never changes an outcome"),
    _Option("store", ".prunerob", "DIR", "where models and outcomes are kept between runs"),
    _Option("store-mode", "rw", "MODE", "rw; ro (measure nothing, a miss is an error); refresh (measure all again)"),
    _Option("inconclusive", "fail", "OUTCOME", "what an inconclusive claim does: fail, xfail or skip"),
    _Option("results", None, "FILE", "write results.json here"),
    _Option("report", None, "FILE", "write the HTML report here"),
    _Option("population", "testset", "NAME", "what claims are about: testset (these samples) or distribution"),
    _Option("confidence", "0.95", "P", "confidence of intervals and of population=distribution"),
    _Option("seed", "0", "N", "seed of the attacks"),
    _Option("adequacy", "basic", "LEVEL", "how closely attacks are audited where survival counts: basic or full"),
    _Option("decide", "exact", "HOW", "exact, or sequential (stop as soon as the samples seen decide at --confidence)"),
    _Option("time-budget", None, "TIME", "stop measuring after this time (90, 90s, 30m, 8h): the rest is inconclusive"),
    _Option("witness", "keep", "POLICY", "keep the adversarial inputs in the store, or only a hash of each"),
    _Option("summary", None, "FILE", "write a short Markdown summary here, such as for the page of a CI job"),
)


def add(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("prunerob", "robustness claims (pytest-prunerob)")
    for option in _OPTIONS:
        key = option.name.replace("-", "_")
        default = "" if option.default is None else f" (default: {option.default})"
        group.addoption(
            f"--prunerob-{option.name}",
            dest=f"prunerob_{key}",
            default=None,
            metavar=option.metavar,
            help=option.help + default,
        )
        parser.addini(f"prunerob_{key}", f"{option.help}{default}", type="string", default="")


def resolve(config: pytest.Config) -> Options:
    """The options from the command line, else the ini file, else the defaults.

    Raises:
        OptionError: for a value that is not allowed.
    """
    store = _path(config, "store")
    assert store is not None  # it has a default
    return Options(
        profile=_text(config, "profile"),
        device=_device(config),
        batch_size=_number(config, "batch_size", int, lambda n: n >= 1, "a whole number of at least 1"),
        store=store,
        store_mode=_choice(config, "store_mode", ("rw", "ro", "refresh")),
        inconclusive=_choice(config, "inconclusive", ("fail", "xfail", "skip")),
        results=_file(config, "results"),
        report=_file(config, "report"),
        population=_choice(config, "population", ("testset", "distribution")),
        confidence=_number(config, "confidence", float, lambda p: 0.5 < p < 1, "a number between 0.5 and 1"),
        seed=_number(config, "seed", int, lambda n: 0 <= n < 2**63, "a whole number of at least 0"),
        adequacy=_choice(config, "adequacy", ("basic", "full")),
        decide=_choice(config, "decide", ("exact", "sequential")),
        time_budget=_duration(config, "time_budget"),
        witness=_choice(config, "witness", ("keep", "hash")),
        summary=_file(config, "summary"),
        root=config.rootpath,
    )


def flag(key: str) -> str:
    """The command-line name of an option."""
    return "--prunerob-" + key.replace("_", "-")


def _text(config: pytest.Config, key: str) -> str | None:
    value = config.getoption(f"prunerob_{key}")
    if value is None:
        value = config.getini(f"prunerob_{key}") or None
    if value is None:
        value = next(option.default for option in _OPTIONS if option.name.replace("-", "_") == key)
    return None if value is None else str(value)


def _required(config: pytest.Config, key: str) -> str:
    value = _text(config, key)
    if not value:
        raise OptionError(f"{flag(key)} is empty")
    return value


def _choice(config: pytest.Config, key: str, allowed: tuple[str, ...]) -> str:
    value = _required(config, key)
    if value not in allowed:
        raise OptionError(unknown(f"value of {flag(key)}", value, allowed))
    return value


def _number(config: pytest.Config, key: str, kind: Callable[[str], T], valid: Callable[[T], bool], words: str) -> T:
    text = _required(config, key)
    try:
        value = kind(text)
        if valid(value):
            return value
    except ValueError:
        pass
    raise OptionError(f"{flag(key)}={text!r} is not {words}")


def _duration(config: pytest.Config, key: str) -> float | None:
    """Seconds from "90", "90s", "30m" or "8h"."""
    text = _text(config, key)
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
        if 0 < seconds < float("inf"):
            return seconds
    except ValueError:
        pass
    raise OptionError(f"{flag(key)}={text!r} is not a positive time such as 90, 90s, 30m or 8h")


def _device(config: pytest.Config) -> str:
    text = _required(config, "device")
    for name in text.split(","):
        kind, _, index = name.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
            close = difflib.get_close_matches(kind, ("auto", "cpu", "cuda"), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise OptionError(f"{flag('device')}={text!r}: allowed are auto, cpu, cuda, cuda:N and lists of them{hint}")
    return text


def _path(config: pytest.Config, key: str) -> Path | None:
    """A path of the command line starts where pytest was started, one of the ini file and the default at the root."""
    text = _text(config, key)
    if text is None:
        return None
    if not text:
        raise OptionError(f"{flag(key)} is empty")
    given = config.getoption(f"prunerob_{key}") is not None
    return (config.invocation_params.dir if given else config.rootpath) / text


def _file(config: pytest.Config, key: str) -> Path | None:
    path = _path(config, key)
    if path is not None and not path.parent.is_dir():
        raise OptionError(f"{flag(key)}={_text(config, key)!r}: the folder {str(path.parent)!r} does not exist")
    if path is not None and path.is_dir():
        raise OptionError(f"{flag(key)}={_text(config, key)!r} is a folder: name a file in it")
    return path


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)
