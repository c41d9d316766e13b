"""The pytest side of pytest-prunerob. Loading it imports no torch, numpy or jinja2 and prints nothing."""

from __future__ import annotations

import os
import sys
import time

import pytest

from pytest_prunerob.errors import OptionError, ResultsError
from pytest_prunerob.plugin import collection, devices, items, notes, options, toml_claims
from pytest_prunerob.plugin.collector import Collector
from pytest_prunerob.plugin.fixtures import (
    build_model,
    cell,
    dataset,
    dense,
    dense_model,
    make_subject,
    pruned,
    pruned_model,
    reported,
)
from pytest_prunerob.plugin.stash import OPTIONS, RUNTIME, STARTED, STDERR

__all__ = [
    "build_model",
    "cell",
    "dataset",
    "dense",
    "dense_model",
    "make_subject",
    "pruned",
    "pruned_model",
    "reported",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the options and register the rest of the plugin."""
    try:
        resolved = options.resolve(config)
    except OptionError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[OPTIONS] = resolved
    config.stash[STARTED] = getattr(config, "workerinput", {}).get("prunerob_started", time.time())
    config.stash[STDERR] = _terminal_descriptor()
    for plugin in (collection, devices, items, notes, toml_claims):
        config.pluginmanager.register(plugin)
    if not hasattr(config, "workerinput"):
        try:
            collector = Collector(config, resolved)
        except ResultsError as error:
            raise pytest.UsageError(str(error)) from None
        config.pluginmanager.register(collector, "prunerob-collector")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the heartbeat and give its descriptor back; remove the notes."""
    notes.remove(config)
    if RUNTIME in config.stash:
        config.stash[RUNTIME].heartbeat.stop()
    descriptor = config.stash.get(STDERR, None)
    if descriptor is not None:
        del config.stash[STDERR]
        os.close(descriptor)


def _terminal_descriptor() -> int:
    """A copy of stderr as it is now: while tests run, pytest points the original at a file."""
    try:
        return os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)
    except (OSError, ValueError):
        return os.open(os.devnull, os.O_WRONLY)
