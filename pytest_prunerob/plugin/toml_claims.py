"""``*.claims.toml``: each claim becomes a test function with its cells, collected like those of a Python file.

So fixtures, overrides in ``conftest.py``, ids, selection, xdist and the rules of claims are the same.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pytest_prunerob.claims_file import FILE_BYTES, WrittenClaim, read
from pytest_prunerob.errors import ClaimsFileError, InputError

SUFFIX = ".claims.toml"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect claims from files called ``*.claims.toml``."""
    if not file_path.name.endswith(SUFFIX):
        return None
    found: pytest.Collector = ClaimsFile.from_parent(parent, path=file_path)
    return found


class ClaimsFile(pytest.Module):
    """A claims file, in the role of a Python module that is never imported."""

    def _getobj(self) -> types.ModuleType:
        return types.ModuleType("claims")

    def funcnamefilter(self, name: str) -> bool:
        """Every claim is a test, whatever it is called."""
        return True

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """One test for each cell of each claim."""
        found: list[pytest.Item | pytest.Collector] = []
        for claim in self._read():
            function = claim.cells(_function(claim, self.path))
            setattr(self.obj, claim.name, function)
            try:
                found += self.ihook.pytest_pycollect_makeitem(collector=self, name=claim.name, obj=function) or []
            except InputError as error:
                raise ClaimsFileError(f"{claim.place}: {error}") from error
        return found

    def _read(self) -> tuple[WrittenClaim, ...]:
        try:
            with self.path.open("rb") as file:
                payload = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise ClaimsFileError(f"{self.nodeid}:1:1: cannot be read: {error.strerror or error}") from None
        return read(payload, self.nodeid)


def _function(claim: WrittenClaim, path: Path) -> Callable[..., None]:
    """A test function that asks for the fixtures of ``claim``, asserts it, and says that it stands in ``path``."""
    test = _standing_at(lambda **given: _assert(claim, given), path, claim.line)
    test.__name__ = test.__qualname__ = claim.name
    names = sorted(claim.expression.needs)
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return test


def _standing_at(function: Callable[..., None], path: Path, line: int) -> types.FunctionType:
    """``function`` with another place in its code, which is where pytest and tracebacks say that it stands."""
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace(co_filename=str(path), co_firstlineno=line)
    made = types.FunctionType(code, function.__globals__, closure=function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _assert(claim: WrittenClaim, given: dict[str, object]) -> None:
    made = claim.expression.claim(**given)  # type: ignore[arg-type]  # the fixtures have these types
    if not made:
        raise AssertionError(made.text)
