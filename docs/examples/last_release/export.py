"""How a release is exported: the batch dimension must be dynamic."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "own_checkpoints"))
from conftest import CHECKPOINTS, released


def main() -> None:
    """Write ``last.pt2`` and ``next.pt2`` beside this file, from the checkpoints of the other example."""
    folder = Path(__file__).parent
    dynamic = {"x": {0: torch.export.Dim("batch")}}
    for source, target in (("dense.safetensors", "last.pt2"), ("pruned.safetensors", "next.pt2")):
        program = torch.export.export(released(source), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic)
        torch.export.save(program, folder / target)
    (folder / "test.npz").write_bytes((CHECKPOINTS / "test.npz").read_bytes())


if __name__ == "__main__":
    main()
