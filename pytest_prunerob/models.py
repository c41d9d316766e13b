"""The models that a grid names: trained, pruned and kept in the store under their recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pytest_prunerob import compression, datasets, facts, networks, trainers, training
from pytest_prunerob.budget import Budget
from pytest_prunerob.cells import Cell
from pytest_prunerob.compression import AFTER, METHODS, Method, Scheme, Structure, compress, rebuild
from pytest_prunerob.compression.activations import LargestReLU, without_largest
from pytest_prunerob.compression.channels import EXTRA
from pytest_prunerob.datasets import Dataset, Splits
from pytest_prunerob.errors import CellsError, CompressionError, DatasetError, StoreError, unknown
from pytest_prunerob.fingerprint import digest, fingerprint, sources
from pytest_prunerob.networks import NETWORKS
from pytest_prunerob.resuming import Slots
from pytest_prunerob.store import SCHEMA, Store
from pytest_prunerob.subjects import Model
from pytest_prunerob.trainers import CellTrainer
from pytest_prunerob.training import TRAININGS, fit, recipe


@dataclass
class Builder:
    """Builds reference models on ``device`` and keeps them in ``store``; ``report`` is told what is being done.

    ``progress`` shows bars on the terminal; ``root`` is where relative paths start. ``compressed`` says by the id of a
    cell what was measured on its compressed model: how many units are gone and how many were counted.
    """

    store: Store
    device: str
    progress: bool
    report: Callable[[str], None]
    root: Path
    budget: Budget = Budget()
    compressed: dict[str, dict[str, Any]] = field(default_factory=dict)
    _splits: dict[str, Splits] = field(default_factory=dict)

    def splits(self, name: str) -> Splits:
        """The test and training half of the dataset ``name``."""
        if name not in self._splits:
            self._splits[name] = datasets.load(name, self.root)
        return self._splits[name]

    def dense(self, cell: Cell) -> nn.Module:
        """The dense model of ``cell``, trained if the store does not hold it."""
        material = self._dense_material(cell)
        train = self._train(cell)

        def build(slots: Slots) -> tuple[nn.Module, dict[str, Any]]:
            how = recipe(cell.training, dataset=cell.dataset)
            label = f"training {cell.network} ({cell.training}, {cell.dataset}, seed {cell.seed})"
            self.report(label)
            model, show, keep = self._network(cell, train), self.progress, slots.next()
            fit(model, train, how, seed=cell.seed, device=self.device, progress=show, label=label, keep=keep)
            return model, {}

        what = f"the {cell.training} model {cell.network}"
        return self._kept(lambda _: self._network(cell, train), material, what, build)

    def untrained(self, cell: Cell) -> nn.Module:
        """The network of ``cell`` as training would find it."""
        return self._network(cell, self._train(cell)).eval()

    def early(self, cell: Cell, dense: nn.Module, share: Fraction) -> Mapping[str, Tensor]:
        """The state dict of ``dense`` after ``share`` (0 to 1) of its training, of one epoch at least if not of none.

        Raises:
            CompressionError: if ``dense`` is not the model that ``cell`` trains.
        """
        # A fixture may have put another network in its place, for which these weights would mean nothing.
        if "network" not in cell.parameters or fingerprint(self.dense(cell)) != fingerprint(dense):
            raise CompressionError(
                "rewinding needs the dense model early in its training, and this one was not trained here; allowed is "
                "a dense model of cells(network=..., training=...)"
            )
        how = recipe(cell.training, dataset=cell.dataset)
        until = max(1, round(how.epochs * share)) if share else 0
        train = self._train(cell)
        if until == 0:
            return self._network(cell, train).state_dict()

        def build(slots: Slots) -> tuple[nn.Module, dict[str, Any]]:
            label = f"training {cell.network} to epoch {until} ({cell.training}, {cell.dataset}, seed {cell.seed})"
            self.report(label)
            model = self._network(cell, train)
            fit(
                model,
                train,
                how,
                seed=cell.seed,
                device=self.device,
                until=until,
                progress=self.progress,
                label=label,
                keep=slots.next(),
            )
            return model, {}

        material = {**self._dense_material(cell), "until": until}
        what = f"the {cell.training} model {cell.network} at epoch {until}"
        return self._kept(lambda _: self._network(cell, train), material, what, build).state_dict()

    def pruned(self, cell: Cell, dense: nn.Module) -> nn.Module:
        """``dense`` compressed as ``cell`` says, with the scheme that follows where the cell names a training."""
        train = self._train(cell) if "training" in cell.parameters else None
        follows = scheme(cell)
        method = METHODS[cell.method]
        what = f"{cell.method} {cell.amount_text}"
        trainer = self._trainer(cell, dense, train, follows, f"pruning to {what}") if train is not None else None
        material = {
            "schema": SCHEMA,
            "kind": "model",
            "dense": fingerprint(dense),
            "method": cell.method,
            "sparsity": str(cell.sparsity),
            "iterations": cell.iterations,
            "after": follows.name,
            "recipes": {name: asdict(how) for name, how in trainer.recipes().items()} if trainer is not None else None,
            "data": train.digest if train is not None else None,
            "seed": cell.seed,
            "torch": version("torch"),
            "library": _installed(method),
            "sources": sources(compression, training, trainers, facts, datasets),
            "torchvision": version("torchvision"),
        }

        def build(slots: Slots) -> tuple[nn.Module, dict[str, Any]]:
            resumed = replace(trainer, keep=slots.next) if trainer is not None else None
            compressed = compress(
                dense,
                method=cell.method,
                amount=cell.sparsity,
                data=train,
                seed=cell.seed,
                trainer=resumed,
                iterations=cell.iterations,
            )
            if follows.finish is not None and cell.sparsity:
                generator = torch.Generator().manual_seed(cell.seed)
                compressed = follows.finish(compressed, dense=dense, data=train, generator=generator, trainer=resumed)
            return compressed.model, {
                "unit": compressed.unit,
                "gone": sum(gone for gone, _ in compressed.layers.values()),
                "total": sum(total for _, total in compressed.layers.values()),
                "structure": compressed.structure.as_json() if compressed.structure is not None else None,
            }

        def network(facts: Mapping[str, Any]) -> nn.Module:
            counted = {name: facts[name] for name in ("unit", "gone", "total")}
            self.compressed[cell.id] = {**counted, "requested": float(cell.sparsity)}
            model = copy.deepcopy(dense)
            structure = facts.get("structure")
            if structure is None:
                return model
            return rebuild(model, Structure.from_json(structure), inputs=self.splits(cell.dataset).test.inputs)

        return _with_twin(_undeclared(self._kept(network, material, f"the model pruned by {what}", build)))

    def _trainer(self, cell: Cell, dense: nn.Module, train: Dataset, follows: Scheme, label: str) -> CellTrainer:
        return CellTrainer(
            data=train,
            dataset=cell.dataset,
            training=cell.training,
            seed=cell.seed,
            steps=follows.steps,
            device=self.device,
            progress=self.progress,
            label=label,
            report=self.report,
            dense_early=lambda share: self.early(cell, dense, share),
        )

    def _kept(
        self,
        network: Callable[[Mapping[str, Any]], nn.Module],
        material: dict[str, Any],
        what: str,
        build: Callable[[Slots], tuple[nn.Module, dict[str, Any]]],
    ) -> nn.Module:
        """The model published under ``material``, built and published first if there is none.

        ``network`` makes the network that its weights go into, from the facts that ``build`` returned with it. A build
        that was killed is continued from its checkpoints.
        """
        key = digest(material)
        found = self.store.model(key)
        if found is None:
            if self.store.mode == "ro":
                raise self.store.missing(what)
            with self.store.lock(key, "training"):
                found = self.store.model(key)
                if found is None:
                    self.budget.require(f"{what} was built")
                    slots = Slots(self.store, key, self.report)
                    model, facts = build(slots)
                    self.store.add_model(key, model.state_dict(), {"kind": "model", **material, **facts})
                    slots.clear()
                    # Adopt what is published: of several workers without a lock the first one wins.
                    found = self.store.model(key)
        if found is None:  # published and damaged at once
            return model.eval()
        model = network(found[1])
        try:
            model.load_state_dict(found[0], strict=True)
        except RuntimeError as error:  # intact by its checksum, and yet no state of this network
            raise StoreError(f"{what} in the store does not fit its network: {str(error)[:200]!r}") from error
        return model.eval()

    def _network(self, cell: Cell, data: Dataset) -> nn.Module:
        return networks.build(cell.network, inputs=data.inputs, classes=data.classes, seed=cell.seed)

    def _train(self, cell: Cell) -> Dataset:
        train = self.splits(cell.dataset).train
        if train is None:
            raise DatasetError(
                f"dataset {cell.dataset!r} has no training half: give a trained model instead, "
                f"cells(dense='pkg.mod:callable') or a dense_model fixture"
            )
        return train

    def _dense_material(self, cell: Cell) -> dict[str, Any]:
        train = self._train(cell)
        return {
            "schema": SCHEMA,
            "kind": "model",
            "data": train.digest,
            "network": cell.network,
            "inputs": list(train.inputs),
            "classes": train.classes,
            "training": asdict(recipe(cell.training, dataset=cell.dataset)),
            "seed": cell.seed,
            "torch": version("torch"),
            "sources": sources(training, networks, datasets),
            "torchvision": version("torchvision"),
        }


def _installed(method: Method) -> str | None:
    """The version of the optional library of ``method``; raises ``CompressionError`` if it is not there."""
    try:
        return version(method.library) if method.library is not None else None
    except PackageNotFoundError as error:
        raise CompressionError(
            f"{method.name} needs {method.library}: pip install 'pytest-prunerob[{EXTRA}]'"
        ) from error


def _undeclared(model: nn.Module) -> nn.Module:
    """``model`` without what was stated of the dense model it is made of: its clean accuracy and its float twin."""
    if isinstance(model, Model):
        model.accuracy = None
        model.__dict__["twin"] = None
    return model


def _with_twin(model: nn.Module) -> nn.Module:
    """``model``; with the network without its jumps as its twin where it keeps its largest activations only."""
    if not any(isinstance(part, LargestReLU) for part in model.modules()):
        return model
    return Model(model, twin=without_largest(model)).eval()


def check_names(cell: Cell, axes: tuple[str, ...]) -> None:
    """Look the names of ``cell`` up in the catalogues; "method" stands for all that compression takes.

    Raises:
        CellsError: for a name that is missing or unknown, with the nearest match, or a method or scheme that lacks what
            it needs.
    """
    catalogues: dict[str, Collection[str]] = {"network": NETWORKS, "training": TRAININGS, "method": METHODS}
    for axis in axes:
        value = cell[axis]
        if axis in catalogues and value not in catalogues[axis]:
            raise CellsError(unknown(axis, value, catalogues[axis]))
        if axis == "dataset" and value.split(":")[0] not in datasets.DATASETS:
            raise CellsError(unknown("dataset", value, datasets.DATASETS))
    if "method" in axes:
        _check_compression(cell)


def _check_compression(cell: Cell) -> None:
    method = METHODS[cell.method]
    _ = cell.sparsity  # raises where the grid says neither a sparsity nor a rate
    if "after" in cell.parameters and cell["after"] not in AFTER:
        raise CellsError(unknown("after", cell["after"], AFTER))
    if cell.iterations is not None and not method.iterations:
        taking = ", ".join(name for name, one in METHODS.items() if one.iterations)
        raise CellsError(f"{cell.method} takes no iterations; allowed are they for: {taking or 'none'}")
    follows = scheme(cell)
    needs = [one.name for one in (method, follows) if one.data or one.trains]
    if needs and "training" not in cell.parameters:
        raise CellsError(
            f"{needs[0]} needs training samples and a training: write cells(dataset=..., training='standard') beside it"
        )


def scheme(cell: Cell) -> Scheme:
    """What follows the pruning of ``cell``: where nothing is said, fine-tuning if it names a training."""
    return AFTER[cell.parameters.get("after", "fine-tuning" if "training" in cell.parameters else "none")]
