"""What is left of robust accuracy after each compression method, and after each scheme that follows pruning.

    python -m benchmarks.methods [--profile NAME ...] [--store FOLDER]

Runs the first claim of ``robustness_suites/compression`` under each of its profiles and prints, for every method, the
robust accuracy of the dense and of the compressed models with the number of samples: AutoAttack in Linf at ε = 0.2, its
first two stages (all four for activation pruning). Results are kept in the store, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SUITE = "robustness_suites/compression/test_compression.py::test_compression_keeps_robustness"
PROFILES = ("plain", "normalised", "deep", "after", "recalibrated")
HEADER = ("| method | after | network | n | dense | 0.50 | 0.90 |", "|---|---|---|---:|---:|---:|---:|")


def measured(profile: str, store: str, folder: Path) -> Mapping[str, Any]:
    """The results of the suite under ``profile``; some claims are refuted, which is no failure here."""
    results = folder / f"{profile}.json"
    options = ("-q", "--no-header", "-p", "no:cacheprovider", f"--prunerob-profile={profile}")
    where = (f"--prunerob-store={store}", f"--prunerob-results={results}")
    subprocess.run([sys.executable, "-m", "pytest", SUITE, *options, *where], stdout=sys.stderr, check=False)
    content: Mapping[str, Any] = json.loads(results.read_text())
    return content


def rows(results: Mapping[str, Any]) -> Iterator[str]:
    """A row for each method and scheme."""
    claims = {claim["cell"]: claim for claim in results["claims"]}
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in results["cells"]:
        names, claim = cell["parameters"], claims.get(cell["id"])
        row = found.setdefault((names["method"], names.get("after", "fine-tuning"), names["network"]), {})
        if claim is None:  # the cell failed before its claim
            row[names["sparsity"]] = "–"
            continue
        for term in claim["terms"]:
            key = "dense" if term["subject"] == "dense" else names["sparsity"]
            row[key] = f"{term['value']:.2f}" if term["complete"] and term["value"] is not None else "–"
            if key != "dense" and claim["verdict"] in ("inconclusive", "error"):
                row[key] += f" ({claim['verdict']})"
            row["n"] = str(term["n"])
    for (method, after, network), row in sorted(found.items()):
        numbers = " | ".join(row.get(column, "–") for column in ("n", "dense", "0.50", "0.90"))
        yield f"| {method} | {after} | {network} | {numbers} |"


def main() -> None:
    """Run the suite and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="append", choices=PROFILES, help="only these parts of the survey")
    parser.add_argument("--store", default=".prunerob", help="where models and outcomes are kept (default .prunerob)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            row for profile in given.profile or PROFILES for row in rows(measured(profile, given.store, Path(folder)))
        ]
    print("\n".join((*HEADER, *lines)))


if __name__ == "__main__":
    main()
