"""``prunerob verify --deep``: forward every stored witness again, on the model and the samples it is said to break.

A results file says how many samples were broken, the store holds what broke them. Neither is believed here: a witness
counts if it lies in the ball and the box, is finite, and is misclassified (or, by a targeted plan, classified as its
target) by the very model whose fingerprint the results name, on the data set whose digest the measurement names.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob import datasets, votes
from pytest_prunerob.cells import Cell
from pytest_prunerob.checkpoints import load_reference, read_state
from pytest_prunerob.commands.crafted import BESIDE, tried_again
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.engine import targets
from pytest_prunerob.errors import DatasetError, PrunerobError, StoreError
from pytest_prunerob.fingerprint import digest, weights_digest
from pytest_prunerob.models import Builder, check_names
from pytest_prunerob.oracle import SUMMATION, distances
from pytest_prunerob.store import PROBE_TOLERANCE, SCHEMA, Store, Witness
from pytest_prunerob.subjects import prepare

WEIGHTS = (".safetensors", ".pt", ".pth")
WITNESSED = ("decide", "minimise")
"""The kinds of measurement that rest on witnesses; "returned" is a plain fact about what an attack returned."""

TRIED = ("transferred",)
"""The kinds that rest on inputs which were crafted on another model."""

BATCH = 250  # witnesses forwarded at once; changes nothing but memory (ours)


@dataclass(frozen=True)
class Given:
    """A model that the caller names: weights alone, or a network with its fingerprint."""

    name: str
    reference: str
    weights: str | None = None
    digest: str | None = None
    module: nn.Module | None = None

    def is_subject(self, subject: Mapping[str, Any]) -> bool:
        """Whether ``subject`` of a results document is this model."""
        return bool(subject["weights"] == self.weights if self.digest is None else subject["digest"] == self.digest)


@dataclass(frozen=True)
class Goal:
    """The threat model that witnesses are held to; ``eps`` is ``None`` for minimum-norm plans."""

    norm: str
    eps: Fraction | None
    target: str

    def classes(self, x: Tensor, label: Tensor, clean: Tensor, edge: float) -> Tensor:
        """Which classes are a break (N, K), for samples ``x`` with labels ``label`` (N,) and ``clean`` logits (N, K).

        The least likely class may have been another one where logits are as near as ``edge``.
        """
        if self.target == "least-likely":
            reached = clean <= clean.amin(1, keepdim=True) + edge
        else:
            wanted = targets(self.target, x, label, clean)
            reached = torch.full_like(clean, wanted is None, dtype=torch.bool)
            if wanted is not None:
                reached.scatter_(1, wanted[:, None], True)
        return reached.scatter(1, label[:, None], False)


def load(name: str, reference: str) -> Given:
    """The model called ``name``: weights (.safetensors, .pt), a program (.pt2) or ``pkg.mod:callable``.

    Raises:
        ModelError: where the reference does not lead to one.
    """
    if Path(reference).suffix in WEIGHTS:
        return Given(name, reference, weights=weights_digest(read_state(reference)))
    loaded = prepare(load_reference(reference), role=name, device="cpu")
    return Given(name, reference, digest=loaded.digest, module=loaded.module)


def other_models(results: Mapping[str, Any], given: Sequence[Given]) -> Iterator[str]:
    """A sentence for every subject that is none of the models given for its role, and for those that are no subject."""
    for name in dict.fromkeys(model.name for model in given):
        subjects = [subject for subject in results["subjects"].values() if name in subject["roles"]]
        models = [model for model in given if model.name == name]
        for subject in subjects:
            if not any(model.is_subject(subject) for model in models):
                other = ", ".join(model.reference for model in models)
                yield f"the {name} model {subject['digest'][:12]} of the run is not {other}"
        for model in models:
            if len(models) > 1 and not any(model.is_subject(subject) for subject in subjects):
                yield f"{model.reference} is no {name} model of the run"


@dataclass
class Checked:
    """What came of it: counts, and a sentence for everything that is not as the results say."""

    measurements: int = 0
    witnesses: int = 0
    tried: int = 0
    hashes: int = 0
    edge: int = 0
    without: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The counts as a sentence."""
        parts = [f"{self.witnesses} witnesses of {self.measurements} measurements forwarded again"]
        if self.tried:
            parts.append(f"{self.tried} crafted inputs tried again")
        if self.edge:
            parts.append(f"{self.edge} of them on the edge (misclassified up to rounding)")
        if self.hashes:
            parts.append(f"{self.hashes} kept as a hash only")
        if self.without:
            parts.append(f"{self.without} measurements of plain attack accuracy have none")
        return "; ".join(parts)


@dataclass(frozen=True)
class Sources:
    """Where models and samples come from: those the caller names, and the models of the grid in the store."""

    store: Store
    builder: Builder
    modules: dict[str, nn.Module]
    data: dict[str, Dataset]
    others: Sequence[Mapping[str, Any]] = ()
    seen: set[str] = field(default_factory=set)

    def samples(self, cells: Iterable[Mapping[str, Any]], wanted: str) -> Dataset | None:
        """The slice with the digest ``wanted``, among those that ``cells`` may be about."""
        for samples in dict.fromkeys(cell["samples"] for cell in cells):
            for whole in self.data.values():
                if samples is None or samples <= len(whole):
                    part = whole.first(samples)
                    if part.digest == wanted:
                        return part
        return None

    def module(self, wanted: str, cells: Iterable[Mapping[str, Any]]) -> nn.Module | None:
        """The model with the fingerprint ``wanted``; those that a grid names are taken from the store.

        First by the grid of ``cells``; a model that a test built beside them may be one of another test's grid.
        """
        for cell in (*cells, *self.others):
            if wanted in self.modules:
                break
            if cell["id"] in self.seen:
                continue
            self.seen.add(cell["id"])
            for built in self._built(cell):
                loaded = prepare(built, role="", device="cpu")
                self.modules[loaded.digest] = loaded.module
        return self.modules.get(wanted)

    def _built(self, cell: Mapping[str, Any]) -> Iterator[nn.Module]:
        # Names are looked up in the catalogues and files only where the caller names them: what a results file refers
        # to is never imported or opened.
        grid = Cell(cell["id"], cell["parameters"], cell["samples"])
        if grid.parameters.keys() & {"dense", "pruned"} or grid.parameters.get("dataset") not in self.data:
            return
        try:
            check_names(grid, ("dataset", "network", "training"))
            dense = self.builder.dense(grid)
            yield dense
            check_names(grid, ("method",))
            yield self.builder.pruned(grid, dense)
        except PrunerobError:  # not built from the grid, or not in the store
            return


def check(
    results: Mapping[str, Any], store: Path, given: Sequence[Given], data: Sequence[str], *, allow_hash: bool
) -> Checked:
    """Forward the witnesses of every measurement that a claim of ``results`` rests on.

    Raises:
        PrunerobError: for a data set or a store that cannot be read.
    """
    if not store.is_dir():
        raise StoreError(f"there is no store {str(store)!r}")
    opened, cells = Store(store, "ro"), results["cells"]
    builder = Builder(opened, "cpu", False, lambda text: None, Path())
    modules = {model.digest: model.module for model in given if model.digest is not None and model.module is not None}
    digits = ["digits"] * any(cell["dataset"] is not None and cell["dataset"]["name"] == "digits" for cell in cells)
    named = {name: _dataset(name) for name in dict.fromkeys([*digits, *data])}
    sources = Sources(opened, builder, modules, named, cells)
    checked = Checked()
    by_id = {cell["id"]: cell for cell in cells}
    users: dict[str, list[Mapping[str, Any]]] = {}
    for claim in results["claims"]:
        for term in claim["terms"]:
            if term["measurement"] is not None:
                users.setdefault(term["measurement"], []).append(by_id[claim["cell"]])
    for key, its_cells in sorted(users.items()):
        measurement = results["measurements"][key]
        if measurement["kind"] not in (*WITNESSED, *TRIED):
            checked.without += 1
            continue
        name = f"{measurement['subject']} model, {measurement['plan']} ({key[:12]})"
        checked.problems += (f"{name}: {problem}" for problem in _check(measurement, its_cells, sources, checked))
    if checked.hashes and not allow_hash:
        checked.problems.append(f"{checked.hashes} witnesses were kept as a hash only and cannot be forwarded again")
    checked.problems += (f"store: {sentence}" for sentence in opened.quarantined)
    return checked


def _check(
    measurement: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], sources: Sources, checked: Checked
) -> Iterator[str]:
    key = measurement["key"]
    content = sources.store.manifest(key)
    if content is None and not any(stage["done"] for stage in measurement["stages"]):
        return  # another quantity settled the claim before anything of this one was measured
    if content is None:
        yield "it is not in the store"
        return
    problem = _other_material(measurement, content)
    if problem:
        yield problem
        return
    data = sources.samples(cells, content["dataset"])
    if data is None:
        looked = f"its samples are not in {', '.join(sources.data)}" if sources.data else "no data set is given"
        yield f"{looked}: give --dataset REF"
        return
    module = sources.module(measurement["digest"], cells)
    if module is None:
        yield (
            f"no network with the fingerprint {measurement['digest'][:12]} is given: "
            f"give --model {measurement['subject']}=REF, a .pt2 or pkg.mod:callable (weights alone cannot be forwarded)"
        )
        return
    if measurement["kind"] in TRIED:
        yield from _tried(measurement, content, sources.store, data, module, checked)
        return
    found = sources.store.witnesses(key)
    if len(found) < measurement["broken"] or (measurement["complete"] and len(found) > measurement["broken"]):
        yield f"the results count {measurement['broken']} broken samples, the store holds witnesses of {len(found)}"
    outside = [position for position in found if position >= len(data)]
    if outside:
        yield f"sample {outside[0]} is none of its {len(data)} samples"
        return
    checked.measurements += 1
    checked.hashes += sum(witness.array is None for witness in found.values())
    kept = {position: witness for position, witness in found.items() if witness.array is not None}
    checked.witnesses += len(kept)
    eps = None if measurement["kind"] == "minimise" else Fraction(content["plan"]["eps"])
    goal = Goal(measurement["threat"]["norm"], eps, content["plan"]["target"])
    seed = int(content["seed"]) if votes.judges(content["plan"]) else None
    for start in range(0, len(kept), BATCH):
        batch = dict(list(kept.items())[start : start + BATCH])
        yield from _forward(module, data, batch, goal, checked, seed)


def _tried(
    measurement: Mapping[str, Any],
    content: Mapping[str, Any],
    store: Store,
    data: Dataset,
    module: nn.Module,
    checked: Checked,
) -> Iterator[str]:
    """What is wrong with the inputs that were crafted on another model; where the store has none, they have none."""
    again = tried_again(store, measurement["key"], content, data, module)
    if again is None:
        checked.without += 1
        return
    checked.measurements += 1
    checked.tried += again.inputs
    checked.edge += again.edge
    if again.broken != measurement["broken"] and (measurement["complete"] or again.broken < measurement["broken"]):
        yield f"the results count {measurement['broken']} broken samples, the store {again.broken}"
    yield from again.problems


def _other_material(measurement: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Why a manifest is not that of the measurement in the results, or the empty string."""
    material = {name: value for name, value in content.items() if name not in BESIDE}
    if digest({"schema": SCHEMA, **material}) != measurement["key"]:
        return "its manifest is not what its key was made of"
    plan, threat = content["plan"], measurement["threat"]
    eps = None if plan["eps"] is None else Fraction(plan["eps"])
    found = (content["kind"], content["subject"], plan["norm"], eps, plan["target"])
    try:
        stated = None if threat["eps"] is None else Fraction(threat["eps"])
    except (ValueError, ZeroDivisionError):
        return f"its ε {threat['eps']!r} is no number"
    if found != (measurement["kind"], measurement["digest"], threat["norm"], stated, threat.get("target", "")):
        return "the results and the store disagree on its kind, model or threat model"
    return ""


def _forward(
    module: nn.Module,
    data: Dataset,
    batch: Mapping[int, Witness],
    goal: Goal,
    checked: Checked,
    seed: int | None = None,
) -> Iterator[str]:
    """What is wrong with the witnesses in ``batch``, by their position in ``data``; with a ``seed`` votes judge."""
    positions = list(batch)
    clean = data.x[positions]
    rows = [batch[position].array for position in positions]
    wrong_shape = [p for p, row in zip(positions, rows, strict=True) if row is None or row.shape != clean.shape[1:]]
    if wrong_shape:
        yield f"the witness of sample {wrong_shape[0]} has another shape than the sample"
        return
    z = torch.from_numpy(np.stack([row for row in rows if row is not None]))
    with torch.no_grad():
        logits, before = module(z), module(clean)
    label = data.y[positions] if goal.eps is not None else before.argmax(1)
    if seed is not None:
        logits = votes.called(module, z, label, before.shape[1], seed=seed)
    length, eps = distances(clean, z, goal.norm), goal.eps
    edge = PROBE_TOLERANCE * max(1.0, float(logits.abs().nan_to_num(0.0, 0.0, 0.0).max()))
    reached = goal.classes(clean, label, before, edge)
    own, best = (logits.masked_fill(part, float("-inf")).amax(1) for part in (reached, ~reached))
    for place, position in enumerate(positions):
        what = f"the witness of sample {position} (index {data.ids[position]})"
        row, stated = z[place], batch[position].distance
        if not bool(row.isfinite().all()) or not bool(logits[place].isfinite().all()):
            yield f"{what} or its output is not finite"
        elif float(row.min()) < 0 or float(row.max()) > 1:
            yield f"{what} is outside [0, 1]"
        elif eps is not None and float(length[place]) > float(eps) * (1 + SUMMATION):
            yield f"{what} is {float(length[place]):g} from the sample, ε is {eps}"
        elif not isclose(float(length[place]), stated, rel_tol=1e-6, abs_tol=1e-9):
            yield f"{what} is {float(length[place]):g} from the sample, the store says {stated:g}"
        elif float(own[place]) > float(best[place]) + edge:
            yield f"{what} is classified as {int(logits[place].argmax())}, which is no break"
        elif float(own[place]) >= float(best[place]):
            checked.edge += 1


def _dataset(reference: str) -> Dataset:
    """The samples that ``reference`` leads to: a name of the catalogue, or a callable that returns a ``Dataset``.

    Raises:
        DatasetError: where it leads to none.
    """
    if reference.partition(":")[0] in datasets.DATASETS:
        return datasets.load(reference).test
    module, colon, name = reference.partition(":")
    if not colon or not name:
        raise DatasetError(f"dataset {reference!r}: allowed are {', '.join(datasets.FORMS)} and pkg.mod:callable")
    try:
        found = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise DatasetError(f"dataset {reference!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Dataset):
        raise DatasetError(f"dataset {reference!r} returned {type(found).__name__}: it must return a Dataset")
    return found
