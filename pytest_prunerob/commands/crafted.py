"""Inputs that were crafted on one model, tried once more on another, for ``prunerob verify --deep``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from pytest_prunerob import votes
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import StoreError
from pytest_prunerob.fingerprint import digest
from pytest_prunerob.ledger import Ledger, Segment, empty_ledger
from pytest_prunerob.oracle import SUMMATION, distances
from pytest_prunerob.store import PROBE_TOLERANCE, SCHEMA, Store

BESIDE = ("probes", "shape", "provenance")
"""What a manifest holds besides the key material."""


@dataclass
class Again:
    """What came of trying the inputs again: how many, how many samples they break by the store, what is not so.

    ``edge`` counts those that are misclassified, or not, only up to rounding.
    """

    inputs: int = 0
    broken: int = 0
    edge: int = 0
    problems: list[str] = field(default_factory=list)


def tried_again(store: Store, key: str, content: Mapping[str, Any], data: Dataset, module: nn.Module) -> Again | None:
    """Forward the inputs behind the measurement ``key`` (kind "transferred") on its target ``module``.

    ``content`` is its manifest, ``data`` the samples that the inputs were made from. That the inputs were made on the
    source is not checked: it would have to be attacked again. ``None`` where the store does not hold them.
    """
    again = Again()
    source = str(content.get("crafted", ""))
    made = store.manifest(source) if len(source) == len(key) else None
    if made is None:
        return None
    if not made_of_its_key(made, source) or made.get("kind") != "crafted" or made.get("dataset") != content["dataset"]:
        again.problems.append("what its inputs were crafted by is not what their key was made of")
        return again
    plan = content["plan"]
    if made.get("plan") != plan:
        again.problems.append("its inputs were crafted by another plan")
        return again
    eps = None if plan["eps"] is None else Fraction(plan["eps"])
    try:
        crafted, tried = _ledger(store, source, made), _ledger(store, key, content)
    except StoreError as error:
        again.problems.append(str(error))
        return again
    again.broken = len(tried.broken)
    for unit, segment in sorted(tried.segments.items()):
        inputs = _inputs(store, crafted.segments.get(unit), source)
        wanted = [p for p in segment.attacked if p not in segment.errors and p < len(data)]
        lost = [p for p in wanted if p not in inputs or inputs[p][0].shape != data.x.shape[1:]]
        if lost or len(wanted) < len(set(segment.attacked) - set(segment.errors)):
            again.problems.append(
                f"the store does not hold the input crafted for sample {min(lost, default=len(data))}"
            )
        else:
            seed = int(content["seed"]) if votes.judges(plan) else None
            again.problems += _forward(segment, wanted, inputs, data, module, plan["norm"], eps, again, seed)
    return again


def made_of_its_key(content: Mapping[str, Any], key: str) -> bool:
    """Whether ``key`` is that of the key material in the manifest ``content``."""
    material = {name: value for name, value in content.items() if name not in BESIDE}
    return digest({"schema": SCHEMA, **material}) == key


def _own_and_best_other(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The logit of the label and the largest other one, (N,) each."""
    own = logits.gather(1, label[:, None]).squeeze(1)
    others = logits.scatter(1, label[:, None], float("-inf"))
    return own, others.amax(1)


def _ledger(store: Store, key: str, content: Mapping[str, Any]) -> Ledger:
    ledger = empty_ledger(key, content.get("shape"))
    for segment in store.segments(key).values():
        if ledger.misfit(segment):
            raise StoreError(f"a segment of {key[:12]} is not of this measurement: {ledger.misfit(segment)}")
        ledger.add(segment)
    return ledger


def _inputs(store: Store, segment: Segment | None, key: str) -> dict[int, tuple[Tensor, float]]:
    """The inputs of a unit with the distances that the store states, the nearest of each sample."""
    found: dict[int, tuple[float, str, Tensor]] = {}
    for kept in segment.witnesses if segment is not None else ():
        rows = store.rows(key, kept)
        for place, position in enumerate(kept.positions if rows is not None else ()):
            assert rows is not None
            one = (kept.distances[place], kept.hashes[place], torch.from_numpy(rows[place].copy()))
            found[position] = min(found.get(position, one), one, key=lambda item: item[:2])
    return {position: (row, length) for position, (length, _, row) in found.items()}


def _forward(
    segment: Segment,
    positions: list[int],
    inputs: Mapping[int, tuple[Tensor, float]],
    data: Dataset,
    module: nn.Module,
    norm: str,
    eps: Fraction | None,
    again: Again,
    seed: int | None,
) -> Iterator[str]:
    """What is wrong with the inputs of one unit, or with what the store says of them; with a ``seed`` votes judge."""
    if not positions:
        return
    z, label = torch.stack([inputs[p][0] for p in positions]), data.y[positions]
    with torch.no_grad():
        logits = module(z) if seed is None else votes.called(module, z, label, data.classes, seed=seed)
    length = distances(data.x[positions], z, norm)
    own, best = _own_and_best_other(logits, label)
    edge = PROBE_TOLERANCE * max(1.0, float(logits.abs().nan_to_num(0.0, 0.0, 0.0).max()))
    again.inputs += len(positions)
    for place, position in enumerate(positions):
        what = f"the input crafted for sample {position} (index {data.ids[position]})"
        far, gap = float(length[place]), float(best[place] - own[place])
        if not bool(z[place].isfinite().all()) or not bool(logits[place].isfinite().all()):
            yield f"{what} or its output is not finite"
        elif float(z[place].min()) < 0 or float(z[place].max()) > 1:
            yield f"{what} is outside [0, 1]"
        elif eps is not None and far > float(eps) * (1 + SUMMATION):
            yield f"{what} is {far:g} from the sample, ε is {eps}"
        elif not isclose(far, inputs[position][1], rel_tol=1e-6, abs_tol=1e-9):
            yield f"{what} is {far:g} from the sample, the store says {inputs[position][1]:g}"
        elif position in segment.broken and gap < -edge:
            yield f"{what} is classified as {int(label[place])}, the store says that it is not"
        elif position not in segment.broken and gap > edge:
            yield f"{what} is not classified as {int(label[place])}, the store says that it is"
        elif (position in segment.broken) != (gap > 0):
            again.edge += 1
