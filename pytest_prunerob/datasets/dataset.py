"""Labelled images with a digest of every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pytest_prunerob.errors import DatasetError

_ORDER = b"pytest-prunerob/sample-order/1:"  # decides the fixed permutation of ``Dataset.first``


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images: ``x: (N, C, H, W)`` float32 in [0, 1] and ``y: (N,)`` int64 in 0 … classes−1, on the CPU.

    ``indices`` are the numbers of the samples in the set they were taken from, 0 … N−1 if not given. The tensors are
    not to be changed: the digests are computed once.

    Raises:
        DatasetError: for anything else, with the value found.
    """

    name: str
    x: Tensor
    y: Tensor
    classes: int
    indices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_inputs(self.name, self.x)
        _check_labels(self.name, self.y, len(self.x), self.classes)
        indices = tuple(range(len(self.x))) if self.indices is None else tuple(self.indices)
        if len(indices) != len(self.x) or len(set(indices)) != len(indices):
            found = f"{len(indices)} of which {len(set(indices))} differ"
            raise DatasetError(
                f"dataset {self.name!r}: {len(self.x)} samples need as many distinct indices, found {found}"
            )
        object.__setattr__(self, "x", self.x.detach().cpu().contiguous())
        object.__setattr__(self, "y", self.y.detach().cpu().to(torch.int64).contiguous())
        object.__setattr__(self, "indices", indices)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def ids(self) -> tuple[int, ...]:
        """The original number of every sample."""
        assert self.indices is not None  # set on construction
        return self.indices

    @property
    def inputs(self) -> tuple[int, int, int]:
        """The shape ``(C, H, W)`` of one image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of every sample, over dtype, shape, bytes, label and original index."""
        head = f"float32{list(self.inputs)}".encode()
        images, labels = self.x.numpy().astype("<f4", copy=False), self.y.tolist()
        return tuple(
            hashlib.sha256(head + image.tobytes() + f"|{label}|{index}".encode()).hexdigest()
            for image, label, index in zip(images, labels, self.ids, strict=True)
        )

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the content, over all sample digests in order and the number of classes; not the name."""
        return hashlib.sha256("\n".join((*self.digests, str(self.classes))).encode()).hexdigest()

    def take(self, positions: Sequence[int]) -> Dataset:
        """The samples at ``positions`` (0 … N−1), in that order, with their original indices."""
        chosen = torch.tensor(positions, dtype=torch.int64)
        indices = tuple(self.ids[position] for position in positions)
        return Dataset(self.name, self.x[chosen], self.y[chosen], self.classes, indices)

    def first(self, n: int | None) -> Dataset:
        """The first ``n`` samples of a fixed permutation that only the samples decide; all in that order for ``None``.

        Raises:
            DatasetError: if there are fewer samples than ``n``, or ``n`` is below 1.
        """
        if n is not None and not 1 <= n <= len(self):
            raise DatasetError(f"dataset {self.name!r}: samples={n} asked for, allowed are 1 to {len(self)}")
        keys = [hashlib.sha256(_ORDER + digest.encode()).digest() for digest in self.digests]
        order = sorted(range(len(self)), key=keys.__getitem__)
        return self.take(order[:n])


@dataclass(frozen=True, eq=False)
class Splits:
    """The half of a dataset that claims are about, and the half to train on, which is read when it is first asked for.

    ``load_train`` reads it, ``None`` where there is none; it raises ``DatasetError`` as reading the other half does.
    """

    test: Dataset
    load_train: Callable[[], Dataset] | None = None

    @cached_property
    def train(self) -> Dataset | None:
        """The half to train on, if there is one."""
        return None if self.load_train is None else self.load_train()


def _check_inputs(name: str, x: Tensor) -> None:
    shape = tuple(x.shape)
    if x.dim() == 3:
        raise DatasetError(
            f"dataset {name!r}: inputs must be (N, C, H, W), found {shape}: add the channel axis, x[:, None]"
        )
    if x.dim() != 4:
        raise DatasetError(f"dataset {name!r}: inputs must be (N, C, H, W), found {shape}")
    if x.numel() == 0:
        raise DatasetError(f"dataset {name!r}: the dataset is empty, found inputs of shape {shape}")
    if x.dtype != torch.float32:
        found = str(x.dtype).removeprefix("torch.")
        hint = "(x / 255).astype('float32')" if found == "uint8" else "x.astype('float32')"
        raise DatasetError(f"dataset {name!r}: inputs must be float32, found {found}: convert them, {hint}")
    if not bool(torch.isfinite(x).all()):
        count = int((~torch.isfinite(x)).flatten(1).any(dim=1).sum())
        raise DatasetError(f"dataset {name!r}: inputs must be finite, found NaN or infinity in {count} samples")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        hint = " (divide by 255?)" if high > 2 else ""
        raise DatasetError(
            f"dataset {name!r}: inputs must lie in [0, 1], found a minimum of {low:g} and a maximum of {high:g}{hint}"
        )


def _check_labels(name: str, y: Tensor, n: int, classes: int) -> None:
    if y.dim() != 1 or len(y) != n:
        raise DatasetError(f"dataset {name!r}: {n} inputs need labels of shape ({n},), found {tuple(y.shape)}")
    if y.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        found = str(y.dtype).removeprefix("torch.")
        raise DatasetError(f"dataset {name!r}: labels must be whole numbers (int64), found {found}")
    if classes < 2:
        raise DatasetError(f"dataset {name!r}: at least 2 classes are needed, found {classes}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise DatasetError(
            f"dataset {name!r}: labels must lie in 0 … {classes - 1}, found a minimum of {low} and a maximum of {high}"
        )
