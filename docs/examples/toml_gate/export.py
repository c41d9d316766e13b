"""Stands in for your export: writes ``models/dense.pt2``, ``models/pruned.pt2`` and ``test.npz`` beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "own_checkpoints"))
from conftest import CHECKPOINTS, released


def main() -> None:
    """Export the checkpoints of the other example; the batch dimension must be dynamic."""
    folder = Path(__file__).parent
    (folder / "models").mkdir(exist_ok=True)
    dynamic = {"x": {0: torch.export.Dim("batch")}}
    for name in ("dense", "pruned"):
        program = torch.export.export(
            released(f"{name}.safetensors"), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic
        )
        torch.export.save(program, folder / "models" / f"{name}.pt2")
    (folder / "test.npz").write_bytes((CHECKPOINTS / "test.npz").read_bytes())


if __name__ == "__main__":
    main()
