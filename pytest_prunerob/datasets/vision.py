"""Datasets that torchvision reads, from a local folder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pytest_prunerob.datasets.dataset import Dataset, Splits
from pytest_prunerob.datasets.images import stacked
from pytest_prunerob.errors import DatasetError, unknown

ROOT = "data"  # where the examples of PyTorch keep datasets
DOWNLOAD = "?download=1"
# Labelled images of one size in two halves, with the number of their classes.
NAMES = {
    "CIFAR10": 10,
    "CIFAR100": 100,
    "FashionMNIST": 10,
    "KMNIST": 10,
    "MNIST": 10,
    "QMNIST": 10,
    "STL10": 10,
    "SVHN": 10,
    "USPS": 10,
}


def vision(name: str, rest: str | None, root: Path) -> Splits:
    """``torchvision:NAME`` in the folder ``data``, or ``torchvision:NAME@FOLDER``: the ``root`` that torchvision takes.

    Nothing is downloaded unless the name ends with ``?download=1``.
    """
    wanted, download = (rest or "").removesuffix(DOWNLOAD), (rest or "").endswith(DOWNLOAD)
    called, at, path = wanted.partition("@")
    if called not in NAMES:
        raise DatasetError(f"dataset {name!r}: {unknown('name of torchvision', called, NAMES)}")
    if at and not path:
        raise DatasetError(f"dataset {name!r}: the folder after '@' is missing; allowed is torchvision:NAME@FOLDER")
    folder = root / (path or ROOT)
    return Splits(
        _read(name, called, folder, train=False, download=download),
        partial(_read, name, called, folder, train=True, download=download),
    )


def _read(name: str, called: str, folder: Path, *, train: bool, download: bool) -> Dataset:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, called)
    flags = inspect.signature(kind).parameters
    half: dict[str, Any] = {"train": train} if "train" in flags else {"split": "train" if train else "test"}
    try:
        source = kind(root=str(folder), download=download, **half)
    except RuntimeError as error:  # how torchvision says that files are not there or not those it knows
        hint = f"ask for the download with torchvision:{called}{DOWNLOAD}, or give its folder with '@'"
        reason = str(error).splitlines()[0].split(" You can use")[0].rstrip(". ")
        raise DatasetError(f"dataset {name!r}: {str(folder)!r}: {reason}: {hint}") from error
    except Exception as error:  # torchvision meets a damaged file with whatever its next step raises
        reason = f"{type(error).__name__} {error}".strip()
        raise DatasetError(f"dataset {name!r}: {str(folder)!r} cannot be read: {reason}") from error
    labels: list[int] = []

    def images() -> Iterator[tuple[str, Any]]:
        for place in range(len(source)):
            image, label = source[place]
            labels.append(int(label))
            yield f"image {place}", image

    x = stacked(name, images())
    return Dataset(name, x, torch.tensor(labels), NAMES[called])
