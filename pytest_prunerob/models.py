"""The models that a grid names: trained, pruned and kept in the store under their recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from pytest_prunerob import compression, datasets, networks, training
from pytest_prunerob.budget import Budget
from pytest_prunerob.cells import Cell
from pytest_prunerob.compression import METHODS, Masks, compress
from pytest_prunerob.datasets import Dataset, Splits
from pytest_prunerob.errors import CellsError, DatasetError, StoreError, unknown
from pytest_prunerob.fingerprint import digest, fingerprint, sources
from pytest_prunerob.networks import NETWORKS
from pytest_prunerob.store import SCHEMA, Store
from pytest_prunerob.training import TRAININGS, fine_tuning, fit, recipe


@dataclass
class Builder:
    """Builds reference models on ``device`` and keeps them in ``store``; ``report`` is told what is being done.

    ``progress`` shows bars on the terminal; ``root`` is where relative paths start.
    """

    store: Store
    device: str
    progress: bool
    report: Callable[[str], None]
    root: Path
    budget: Budget = Budget()
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
        model = self._network(cell, train)

        def build() -> dict[str, Any]:
            how = recipe(cell.training, dataset=cell.dataset)
            label = f"training {cell.network} ({cell.training}, {cell.dataset}, seed {cell.seed})"
            self.report(label)
            fit(model, train, how, seed=cell.seed, device=self.device, progress=self.progress, label=label)
            return {}

        return self._kept(model, material, f"the {cell.training} model {cell.network}", build)

    def untrained(self, cell: Cell) -> nn.Module:
        """The network of ``cell`` as training would find it."""
        return self._network(cell, self._train(cell)).eval()

    def pruned(self, cell: Cell, dense: nn.Module) -> nn.Module:
        """``dense`` pruned as ``cell`` says, step by step, with fine-tuning where the cell names a training."""
        train = self._train(cell) if "training" in cell.parameters else None
        how = fine_tuning(recipe(cell.training, dataset=cell.dataset)) if train is not None else None
        what = f"{cell.method} {cell.parameters['sparsity']}"
        material = {
            "schema": SCHEMA,
            "kind": "model",
            "dense": fingerprint(dense),
            "method": cell.method,
            "sparsity": str(cell.sparsity),
            "fine_tuning": asdict(how) if how is not None else None,
            "data": train.digest if train is not None else None,
            "seed": cell.seed,
            "torch": version("torch"),
            "sources": sources(compression, training),
        }
        model = copy.deepcopy(dense)

        def fine_tune(network: nn.Module, masks: Masks) -> None:
            assert train is not None
            assert how is not None
            label = f"pruning to {what} ({how.name}, {cell.dataset}, seed {cell.seed})"
            self.report(label)
            show = {"progress": self.progress, "label": label}
            fit(network, train, how, seed=cell.seed, device=self.device, masks=masks, **show)  # type: ignore[arg-type]

        def build() -> dict[str, Any]:
            steps = fine_tune if how is not None else None
            compressed = compress(dense, method=cell.method, sparsity=cell.sparsity, fine_tune=steps)
            model.load_state_dict(compressed.model.state_dict(), strict=True)
            return {"achieved": str(compressed.achieved), "unit": compressed.unit}

        return self._kept(model, material, f"the model pruned by {what}", build)

    def _kept(
        self, model: nn.Module, material: dict[str, Any], what: str, build: Callable[[], dict[str, Any]]
    ) -> nn.Module:
        """``model`` with the weights published under ``material``, built and published first if there are none."""
        key = digest(material)
        found = self.store.model(key)
        if found is None:
            if self.store.mode == "ro":
                raise self.store.missing(what)
            with self.store.lock(key, "training"):
                found = self.store.model(key)
                if found is None:
                    self.budget.require(f"{what} was built")
                    facts = build()
                    self.store.add_model(key, model.state_dict(), {"kind": "model", **material, **facts})
                    # Adopt what is published: of several workers without a lock the first one wins.
                    found = self.store.model(key)
        if found is not None:
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
            "sources": sources(training, networks),
        }


def check_names(cell: Cell, axes: tuple[str, ...]) -> None:
    """Look the names of ``cell`` up in the catalogues.

    Raises:
        CellsError: for a name that is missing or unknown, with the nearest match.
    """
    catalogues: dict[str, Collection[str]] = {"network": NETWORKS, "training": TRAININGS, "method": METHODS}
    for axis in axes:
        value = cell[axis]
        if axis in catalogues and value not in catalogues[axis]:
            raise CellsError(unknown(axis, value, catalogues[axis]))
        if axis == "dataset" and value.split(":")[0] not in datasets.DATASETS:
            raise CellsError(unknown("dataset", value, datasets.DATASETS))
