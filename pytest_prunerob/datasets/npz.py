"""Datasets in NumPy archives."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pytest_prunerob.datasets.dataset import Dataset, Splits
from pytest_prunerob.errors import DatasetError


def npz(name: str, path: str | None, root: Path) -> Splits:
    """The arrays of a NumPy archive: x, y (test); x_train, y_train (optional); classes (optional).

    Without ``classes`` the largest label of both halves decides. Nothing in the file is ever unpickled.
    """
    if not path:
        raise DatasetError(f"dataset {name!r}: the path is missing; allowed is npz:PATH")
    arrays = _read(name, root / path, required=("x", "y"), optional=("x_train", "y_train", "classes"))
    if ("x_train" in arrays) != ("y_train" in arrays):
        present, absent = ("x_train", "y_train") if "x_train" in arrays else ("y_train", "x_train")
        raise DatasetError(f"dataset {name!r}: the file has {present!r} but no {absent!r}")
    parts = {"test": _tensors(name, arrays["x"], arrays["y"])}
    if "x_train" in arrays:
        parts["train"] = _tensors(name, arrays["x_train"], arrays["y_train"])
    classes = _classes(name, arrays.get("classes"), [y for _, y in parts.values()])
    made = {key: Dataset(name, x, y, classes) for key, (x, y) in parts.items()}
    train = made.get("train")
    return Splits(made["test"], None if train is None else lambda: train)


def _read(name: str, path: Path, *, required: Sequence[str], optional: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The wanted arrays of an archive; whatever is unreadable in it becomes a ``DatasetError``."""
    if not path.is_file():
        raise DatasetError(f"dataset {name!r}: there is no file {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise DatasetError(f"dataset {name!r}: the file is no .npz archive (write it with numpy.savez)")
    try:
        # Opened here: NumPy leaves a damaged archive open. Its remarks on old headers say nothing of the arrays.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            missing = [key for key in required if key not in archive]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise DatasetError(f"dataset {name!r}: the file needs the arrays x and y, found {found}")
            return {key: np.asarray(archive[key]) for key in (*required, *optional) if key in archive}
    except DatasetError:
        raise
    except Exception as error:  # NumPy and zipfile meet a damaged archive with whatever their next step raises
        reason = "it holds Python objects, which are never unpickled" if "allow_pickle" in str(error) else str(error)
        raise DatasetError(f"dataset {name!r}: the file cannot be read: {reason}") from error


def _tensors(name: str, x: NDArray[Any], y: NDArray[Any]) -> tuple[Tensor, Tensor]:
    for key, array in (("inputs", x), ("labels", y)):
        if array.dtype.kind not in "biuf":
            raise DatasetError(f"dataset {name!r}: {key} must be numbers, found the type {array.dtype}")
    native = [np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")) for array in (x, y)]
    return torch.from_numpy(native[0]), torch.from_numpy(native[1])


def _classes(name: str, given: NDArray[Any] | None, labels: Sequence[Tensor]) -> int:
    if given is None:
        largest = [int(y.max()) for y in labels if y.numel()]
        return max(2, 1 + max(largest, default=1))
    if given.size != 1 or given.dtype.kind not in "iu":
        found = f"{given.dtype} of shape {given.shape}"
        raise DatasetError(f"dataset {name!r}: classes must be one whole number, found {found}")
    return int(given.item())
