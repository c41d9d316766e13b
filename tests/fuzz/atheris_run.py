"""The targets that need no torch, under the coverage-guided fuzzer atheris (not a dependency: ``pip install atheris``).

    python -m tests.fuzz.atheris_run grammar CORPUS -max_total_time=200

The first argument names a function of ``targets``; CORPUS is a folder, filled with valid inputs where it is empty; the
rest goes to libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pytest_prunerob", "tomllib", "tests.fuzz"]):
    from tests.fuzz import targets


def main() -> None:
    """Fuzz one target."""
    name, corpus = sys.argv[1], Path(sys.argv[2])
    scratch = Path(tempfile.mkdtemp()) / "r.json"

    def results(data: bytes) -> None:
        scratch.write_bytes(data)
        targets.results_reader(scratch)

    def toml(data: bytes) -> None:
        targets.toml(data)
        targets.toml_places(data)

    runs: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
        "grammar": (lambda data: targets.grammar(data.decode("latin-1")), [e.encode() for e in targets.EXPRESSIONS]),
        "toml": (toml, [targets.DOCUMENT]),
        "results": (results, [(targets.DATA / "results_example.json").read_bytes()]),
    }
    run, seeds = runs[name]
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number, seed in enumerate(seeds):
            (corpus / f"seed{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
