"""The digits of scikit-learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from pytest_prunerob.datasets.dataset import Dataset, Splits
from pytest_prunerob.errors import DatasetError


def digits(name: str, path: str | None, root: Path) -> Splits:
    """The 1,797 scanned digits that scikit-learn ships (UCI, Alpaydin & Kaynak 1998), 8×8 grey, half of them test.

    The split is stratified and fixed by the images alone: the images of each class, ordered by their SHA-256, go to
    the test and the training half in turn.
    """
    if path is not None:
        raise DatasetError(f"dataset {name!r}: digits takes no path; allowed is 'digits'")
    from sklearn.datasets import load_digits

    source = load_digits()
    images, labels = source.images.astype("uint8"), source.target.astype("int64")
    keys = [(int(label), hashlib.sha256(image.tobytes()).digest()) for image, label in zip(images, labels, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    x = torch.from_numpy(images.astype("float32") / 16).unsqueeze(1)
    whole = Dataset(name, x, torch.from_numpy(labels), classes=10)
    return Splits(whole.take(sorted(order[0::2])), lambda: whole.take(sorted(order[1::2])))
