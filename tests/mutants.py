"""Removes one indicator of adequacy at a time and runs the test that shows it, which has to fail then.

``python -m tests.mutants`` prints a line for each and ends with 1 where a test did not notice. No part of the suite: it
takes some minutes. Inside pytest (``-p tests.mutants`` with ``MUTANT=name``) it removes the indicator.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

FAULTS, UNIT = "tests/faults", "tests/unit/adequacy"


def _subject(name: str) -> Callable[[], None]:
    def remove() -> None:
        from pytest_prunerob.adequacy import subject

        subject.INDICATORS[name] = lambda probe: None

    return remove


def _train_mode() -> None:
    from pytest_prunerob.adequacy import subject

    subject._train_mode = lambda module, exported: None


def _clean_accuracy() -> None:
    from pytest_prunerob import measurement

    measurement.off_declared = lambda correct, n, declared: None  # type: ignore[attr-defined]


def _passing(module: Any, function: str, indicator: str) -> None:
    """Let ``function``, which makes a check, pass whatever it saw where the check is ``indicator``."""
    original = getattr(module, function)

    def passed(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if hasattr(found, "checks"):
            checks = (replace(c, outcome="passed") if c.indicator == indicator else c for c in found.checks)
            return replace(found, checks=tuple(checks))
        if isinstance(found, list):
            return [replace(c, outcome="passed") if c.indicator == indicator else c for c in found]
        return replace(found, outcome="passed") if found.indicator == indicator else found

    setattr(module, function, passed)


def _stage(function: str, indicator: str) -> Callable[[], None]:
    def remove() -> None:
        from pytest_prunerob.adequacy import stages

        _passing(stages, function, indicator)

    return remove


def _steps() -> None:
    from pytest_prunerob import auditing
    from pytest_prunerob.adequacy import steps

    _passing(steps, "audit_steps", "steps")
    _passing(auditing, "audit_steps", "steps")


def _whole_set() -> None:
    from pytest_prunerob import auditing

    _passing(auditing, "audit_plan", "whole-set")


def _distances(indicator: str) -> Callable[[], None]:
    def remove() -> None:
        from pytest_prunerob.adequacy import distances

        _passing(distances, "_nearer", indicator)

    return remove


def _full(function: str, indicator: str) -> Callable[[], None]:
    def remove() -> None:
        from pytest_prunerob.adequacy import full, readout

        for module in (full, readout):
            if hasattr(module, function):
                _passing(module, function, indicator)

    return remove


STAGES, FULL = f"{UNIT}/test_stages.py", f"{UNIT}/test_full.py"
# Indicator: what removes it, and the test that must notice.
MUTANTS: dict[str, tuple[Callable[[], None], str]] = {
    "train-mode": (_train_mode, f"{UNIT}/test_subject.py -k train_mode"),
    "batch-coupling": (_subject("batch-coupling"), f"{UNIT}/test_subject.py -k coupl"),
    "non-finite": (_subject("non-finite"), f"{UNIT}/test_subject.py -k numbers_that_are_none"),
    "class-count": (_subject("class-count"), f"{UNIT}/test_subject.py -k number_of_classes"),
    "gradient": (_subject("gradient"), f"{FAULTS}/test_08_detached.py"),
    "clean-accuracy": (_clean_accuracy, f"{FAULTS}/test_07_normalisation.py"),
    "repeatable": (_subject("repeatable"), f"{FAULTS}/test_05_noise.py"),
    "stateful": (_subject("stateful"), f"{UNIT}/test_dynamic.py -k changes_the_module"),
    "data-dependent": (_subject("data-dependent"), f"{UNIT}/test_dynamic.py -k hang_on_the_data"),
    "optimisation-at-inference": (_subject("optimisation-at-inference"), f"{UNIT}/test_dynamic.py -k optimisation"),
    "probabilities": (_subject("probabilities"), f"{FAULTS}/test_03_probabilities.py"),
    "zero-gradient": (_stage("_loss_checks", "zero-gradient"), f"{FAULTS}/test_01_02_28_saturated.py"),
    "flat-loss": (_stage("_loss_checks", "flat-loss"), f"{FAULTS}/test_09_10_13_attacks.py -k flat"),
    "non-finite-loss": (_stage("_loss_checks", "non-finite-loss"), f"{FAULTS}/test_09_10_13_attacks.py -k nan"),
    "not-converged": (_stage("_rising", "not-converged"), f"{FAULTS}/test_09_10_13_attacks.py -k rises"),
    "rerun": (_stage("_new_breaks", "rerun"), f"{STAGES} -k several_survivors"),
    "black-box": (_stage("black_box", "black-box"), f"{FAULTS}/test_09_10_13_attacks.py -k test_13"),
    "second-loss": (_stage("second_loss", "second-loss"), f"{STAGES} -k margin_undoes"),
    "unstable": (_stage("unstable", "unstable"), f"{STAGES} -k neighbours"),
    "whole-set": (_whole_set, "tests/unit/test_universal.py -k never_supports"),
    "steps": (_steps, f"{FAULTS}/test_29_straight_through.py"),
    "second-method": (_distances("second-method"), f"{FULL} -k second_method"),
    "doubled-steps": (_distances("doubled-steps"), f"{FULL} -k second_method"),
    "unbounded": (_full("unbounded", "unbounded"), f"{FULL} -k lead_nowhere"),
    "eps-sweep": (_full("sweep", "eps-sweep"), f"{FULL} -k smaller_ball"),
    "binarised-readout": (_full("audit_readout", "binarised-readout"), f"{FULL} -k lead_nowhere"),
    "silent-success": (_full("silent", "silent-success"), f"{FULL} -k silent"),
}


def pytest_configure() -> None:
    """Remove the indicator that the environment names."""
    MUTANTS[os.environ["MUTANT"]][0]()


def main(names: list[str]) -> int:
    """Run the mutants called ``names``, all without any."""
    unnoticed = []
    for name in names or MUTANTS:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.mutants", *MUTANTS[name][1].split()]
        done = subprocess.run(command, env={**os.environ, "MUTANT": name}, capture_output=True, text=True)
        noticed = done.returncode == 1
        unnoticed += [] if noticed else [name]
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        print(f"{'noticed  ' if noticed else 'UNNOTICED'}  {name:26} {MUTANTS[name][1]:70} {last[0]}", flush=True)
    print(f"{len(unnoticed)} removed indicators went unnoticed" if unnoticed else "every removed indicator was noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
