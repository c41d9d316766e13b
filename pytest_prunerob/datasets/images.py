"""From image files and PIL images to the tensors of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_prunerob.errors import DatasetError

MODES = {"L": "grey", "RGB": "RGB"}  # of 8 bits a channel; others would lose something that a network may see


def stacked(name: str, images: Iterable[tuple[str, Any]]) -> Tensor:
    """Pairs of what an image is called and the PIL image, as (N, C, H, W) float32 in [0, 1].

    Raises:
        DatasetError: where two differ in size or one is grey and another is not, for other kinds of image, or for none.
    """
    rows: list[np.ndarray[Any, Any]] = []
    first = ""
    for called, image in images:
        if image.mode == "P" and "transparency" not in image.info:
            image = image.convert("RGB")  # a palette of RGB colours
        if image.mode not in MODES:
            allowed = " or ".join(f"{words} ({mode})" for mode, words in MODES.items())
            raise DatasetError(f"dataset {name!r}: {called} has the mode {image.mode}: allowed are {allowed}")
        row = np.asarray(image, dtype=np.uint8)
        row = row[None] if row.ndim == 2 else np.moveaxis(row, 2, 0)
        if rows and row.shape != rows[0].shape:
            raise DatasetError(
                f"dataset {name!r}: images must be of one size and kind, found {_shape(rows[0])} ({first}) and "
                f"{_shape(row)} ({called}): convert them, or return a Dataset from a dataset fixture"
            )
        first = first or called
        rows.append(row)
    if not rows:
        raise DatasetError(f"dataset {name!r}: there are no images")
    return torch.from_numpy(np.stack(rows)).to(torch.float32) / 255


def _shape(row: np.ndarray[Any, Any]) -> str:
    channels, height, width = row.shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}"
