"""Datasets by name: one file per source, all listed in ``DATASETS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_prunerob.datasets.dataset import Dataset, Splits
from pytest_prunerob.datasets.digits import digits
from pytest_prunerob.datasets.folder import folder
from pytest_prunerob.datasets.npz import npz
from pytest_prunerob.datasets.vision import vision
from pytest_prunerob.errors import DatasetError, unknown

__all__ = ["DATASETS", "FORMS", "Dataset", "Splits", "load"]

# A loader is given the whole name, what stands after the colon (``None`` without one), and where paths start.
DATASETS: dict[str, Callable[[str, str | None, Path], Splits]] = {
    "digits": digits,
    "folder": folder,
    "npz": npz,
    "torchvision": vision,
}
FORMS = ("digits", "folder:PATH", "npz:PATH", "torchvision:NAME")


def load(name: str, root: Path = Path()) -> Splits:
    """The dataset called ``name``, in one of ``FORMS``; relative paths start at ``root``.

    Raises:
        DatasetError: for an unknown name, or files that are missing or not as they must be.
    """
    scheme, colon, rest = name.partition(":")
    if scheme not in DATASETS:
        raise DatasetError(unknown("dataset", name, FORMS))
    return DATASETS[scheme](name, rest if colon else None, root)
