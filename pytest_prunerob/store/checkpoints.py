"""Checkpoints of trainings that are under way, beside the model that will be published under the same key.

A checkpoint is one file of safetensors, named by its number and its content, with its facts as JSON in the header: no
pickle. The number tells the trainings of one model apart, in the order in which they happen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_prunerob.errors import StoreError
from pytest_prunerob.store import files
from pytest_prunerob.store.store import Store

if TYPE_CHECKING:
    import torch

# The name that the facts have in the header of safetensors, and the bytes of a header that are read at most (theirs).
FACTS = "checkpoint"
HEADER = 100_000_000


def load(store: Store, key: str, number: int, of: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The tensors and facts of checkpoint ``number`` of ``key``, or ``None``.

    One that is damaged, or not of the training ``of`` (``facts["of"]``), is set aside and reported. In a store that
    is refreshed, so is one from before this run.
    """
    import safetensors.torch

    found = None
    for path in _paths(store, key, number):
        try:
            old, payload = path.lstat().st_mtime < store.started, files.read(path, "checkpoint")
            if store.mode == "refresh" and old:
                raise StoreError("refreshed")
            facts = facts_of(payload)
            if facts.get("of") != of:
                raise StoreError("it is a checkpoint of another training, which starts anew")
            if found is None or facts["epoch"] > found[1]["epoch"]:
                found = safetensors.torch.load(payload), facts
        except FileNotFoundError:
            continue  # another worker has gone on
        except (StoreError, safetensors.SafetensorError, KeyError, TypeError) as error:
            store.refuse(key, path.name, str(error))
        except OSError as error:
            raise StoreError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return found


def save(store: Store, key: str, number: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write checkpoint ``number`` of ``key``, then delete the one before it.

    Raises:
        StoreError: where the store is read-only or the system does not allow it.
    """
    import safetensors.torch

    if store.mode == "ro":
        raise store.missing("this checkpoint")
    payload = safetensors.torch.save(dict(tensors), metadata={FACTS: json.dumps(facts, allow_nan=False)})
    before = _paths(store, key, number)
    path = store.folder(key) / files.named("checkpoint", payload, number)
    files.write(path, payload)
    _delete(old for old in before if old != path)


def drop(store: Store, key: str) -> None:
    """Delete every checkpoint of ``key``: what they led to is published."""
    _delete(path for path in store.folder(key).glob("checkpoint-*") if files.kind_of(path.name) == "checkpoint")


def facts_of(payload: bytes) -> dict[str, Any]:
    """The facts in the header of a checkpoint; its tensors need not be there.

    Raises:
        StoreError: where there are none.
    """
    length = int.from_bytes(payload[:8], "little")
    if not 2 <= length <= min(HEADER, len(payload) - 8):
        raise StoreError("it has no header of safetensors")
    try:
        facts = files.parse(files.parse(payload[8 : 8 + length])["__metadata__"][FACTS])
        return dict(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"it is no checkpoint: {str(error)[:120]!r}") from None


def told(path: Path) -> dict[str, Any]:
    """The facts of the checkpoint ``path``, whose tensors are not read.

    Raises:
        StoreError: where it is none.
        OSError: what the system says against reading it.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        head = file.read(8)
        return facts_of(head + file.read(min(HEADER, int.from_bytes(head, "little"))))


def _paths(store: Store, key: str, number: int) -> list[Path]:
    found = store.folder(key).glob(f"checkpoint-{number:04d}-*")
    return sorted(path for path in found if files.kind_of(path.name) == "checkpoint")


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # it is of no use any more, and prunerob store prune finds it
            path.unlink(missing_ok=True)
