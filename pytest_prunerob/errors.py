"""Every exception that this package raises on purpose.

PrunerobError
├── InputError          something the user gave is wrong: one sentence says what and what is allowed
│   ├── CellsError      the grid of a cells(...) decorator, its profiles, samples or reported table
│   ├── PlanError       a threat model or an attack plan
│   ├── ClaimError      a claim that cannot be judged, such as one over two unrelated datasets
│   │   └── GrammarError  a claim in a file that is not in the grammar
│   ├── ClaimsFileError  a *.claims.toml file, with the line and column
│   ├── DatasetError    a dataset: shape, range, labels, file
│   ├── ModelError      a model: reference, checkpoint, output, mode
│   ├── CompressionError  a method or an amount
│   └── OptionError     a --prunerob-* option or its ini twin
├── KeyMaterialError    something that decides a result cannot be hashed, so nothing may be stored under it
├── StoreError          the store cannot be written or read
│   └── StoreMissError  store-mode=ro and the result is not there
├── BudgetSpentError    the time budget is over: what was asked for is left undone
└── ResultsError        a results or lock file that is not what it claims to be
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrunerobError(Exception):
    """Base of all errors of this package."""


class InputError(PrunerobError):
    """Something the user gave is wrong."""


class CellsError(InputError):
    """The grid of a ``cells(...)`` decorator, its profiles, samples or reported table."""


class PlanError(InputError):
    """A threat model or an attack plan."""


class ClaimError(InputError):
    """A claim that cannot be judged."""


class GrammarError(ClaimError):
    """A claim in a file that is not in the grammar; ``offset`` is the place in its text, in characters."""

    def __init__(self, sentence: str, offset: int) -> None:
        super().__init__(sentence)
        self.offset = offset


class ClaimsFileError(InputError):
    """A ``*.claims.toml`` file; the sentence starts with file, line and column."""


class DatasetError(InputError):
    """A dataset: shape, range, labels or file."""


class ModelError(InputError):
    """A model: reference, checkpoint, output or mode."""


class CompressionError(InputError):
    """A compression method or its amount."""


class OptionError(InputError):
    """A ``--prunerob-*`` option or its ini twin."""


class KeyMaterialError(PrunerobError):
    """Something that decides a result cannot be hashed."""


class StoreError(PrunerobError):
    """The store cannot be written or read."""


class StoreMissError(StoreError):
    """The store is read-only and does not hold the result."""


class BudgetSpentError(PrunerobError):
    """The time budget is over before something could begin; what was measured so far is kept."""


class ResultsError(PrunerobError):
    """A results or lock file that is not what it claims to be."""


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """The sentence for a name that is not in a catalogue, with the nearest match if there is one."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {value!r}: allowed are {', '.join(names)}{hint}"
