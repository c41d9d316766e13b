"""Folders of images, a folder for each class, as ``torchvision.datasets.ImageFolder`` reads them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pytest_prunerob.datasets.dataset import Dataset, Splits
from pytest_prunerob.datasets.images import stacked
from pytest_prunerob.errors import DatasetError

TEST = ("test", "val")  # what the half that claims are about may be called, the first that is there


def folder(name: str, path: str | None, root: Path) -> Splits:
    """Images in ``PATH/CLASS/``, or in ``PATH/test/CLASS/`` (else ``val``) with an optional ``PATH/train/CLASS/``.

    The labels are the places of the sorted names of the class folders. Images are ordered by class and file name; they
    are of 8 bits, grey or RGB, of one size, and pixels are divided by 255.
    """
    if not path:
        raise DatasetError(f"dataset {name!r}: the path is missing; allowed is folder:PATH")
    whole = _there(name, root / path)
    halves = {half: whole / half for half in (*TEST, "train") if (whole / half).is_dir()}
    test = next((halves[half] for half in TEST if half in halves), None)
    if test is None and "train" in halves:
        raise DatasetError(f"dataset {name!r}: {whole.name}/train needs a folder {whole.name}/test (or val) beside it")
    if test is None:
        return Splits(_read(name, whole, _classes(name, whole)))
    classes = _classes(name, test)
    train = halves.get("train")
    if train is None:
        return Splits(_read(name, test, classes))
    differing = sorted(set(classes) ^ set(_classes(name, train)))
    if differing:
        raise DatasetError(
            f"dataset {name!r}: {test.name} and train must have the same class folders, only one of them has "
            f"{differing[0]!r}"
        )
    return Splits(_read(name, test, classes), partial(_read, name, train, classes))


def _there(name: str, path: Path) -> Path:
    """``path``, a folder that is there."""
    if path.is_dir():
        return path
    if path.exists():
        raise DatasetError(f"dataset {name!r}: {str(path)!r} is no folder")
    parent = path.parent
    beside = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    close = difflib.get_close_matches(path.name, sorted(beside), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise DatasetError(f"dataset {name!r}: there is no folder {str(path)!r}{hint}")


def _classes(name: str, path: Path) -> list[str]:
    """The sorted names of the class folders."""
    found = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    if len(found) < 2:
        listed = ", ".join(found) or "none"
        raise DatasetError(
            f"dataset {name!r}: {path.name!r} needs a folder for each of at least 2 classes, has {listed}"
        )
    return found


def _read(name: str, path: Path, classes: list[str]) -> Dataset:
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    samples = ImageFolder(str(path), allow_empty=True).samples
    empty = sorted(set(range(len(classes))).difference(label for _, label in samples))
    if empty:
        kinds = ", ".join(IMG_EXTENSIONS)
        raise DatasetError(f"dataset {name!r}: the class {classes[empty[0]]!r} has no image in {path.name!r} ({kinds})")
    x = stacked(name, _opened(name, path, [file for file, _ in samples]))
    return Dataset(name, x, torch.tensor([label for _, label in samples]), len(classes))


def _opened(name: str, path: Path, found: list[str]) -> Iterator[tuple[str, Any]]:
    from PIL import Image

    for file in found:
        called = str(Path(file).relative_to(path))
        try:
            with Image.open(file) as image:
                image.load()
                yield called, image
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as a damaged file has it
            raise DatasetError(f"dataset {name!r}: {called} cannot be read as an image: {error}") from error
