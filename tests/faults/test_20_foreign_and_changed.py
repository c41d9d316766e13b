"""Results of another model, plan, dataset or environment are never used, and whatever decides an outcome is a miss."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_prunerob import Dataset, attacks, material
from pytest_prunerob.engine import Engine
from pytest_prunerob.fingerprint import sources
from pytest_prunerob.measurement import Bench
from pytest_prunerob.plans import ThreatModel
from pytest_prunerob.store import Store, files
from tests.faults import tiny


class Rig:
    """What a run is made of; a change alters one thing."""

    def __init__(self) -> None:
        self.module, self.data, self.plan, self.seed = tiny.network(), tiny.data(), tiny.PLAN, 0

    @property
    def norm(self) -> nn.BatchNorm2d:
        found = self.module.get_submodule("0")
        assert isinstance(found, nn.BatchNorm2d)
        return found

    def run(self, root: Path) -> tuple[Bench, dict[str, list[int]]]:
        used = Bench(Store(root), Engine("cpu", 250, self.seed), lambda _: None)
        return used, tiny.outcomes(tiny.measured(used, self.module, self.data, self.plan))

    def with_data(self, x: torch.Tensor | None = None, y: torch.Tensor | None = None, **more: Any) -> None:
        self.data = Dataset("tiny", self.data.x if x is None else x, self.data.y if y is None else y, **more)

    def with_stage(self, number: int, **params: Any) -> None:
        stages = list(self.plan.stages)
        stages[number] = stages[number].changed(**params)
        self.plan = replace(self.plan, stages=tuple(stages))


def one_weight(rig: Rig) -> None:
    weight = rig.module.get_parameter("3.weight")
    with torch.no_grad():
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(1.0))


def one_buffer(rig: Rig) -> None:
    assert rig.norm.running_mean is not None
    rig.norm.running_mean += 1e-7


def hidden_buffer(rig: Rig) -> None:
    rig.module.register_buffer("unused", torch.zeros(1), persistent=False)


def activation(rig: Rig) -> None:
    rig.module[1] = nn.ReLU()  # type: ignore[index]


def slope(rig: Rig) -> None:
    rig.module[1] = nn.LeakyReLU(0.2).eval()  # type: ignore[index]


def method(rig: Rig) -> None:
    class Other(nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.clone())

    rig.module[2] = Other().eval()  # type: ignore[index]


def setting(rig: Rig) -> None:
    rig.norm.eps = 1e-12


def label(rig: Rig) -> None:
    y = rig.data.y.clone()
    y[7] = 2
    rig.with_data(y=y, classes=4)


def pixel(rig: Rig) -> None:
    x = rig.data.x.clone()
    x[7, 0, 0, 0] += 1e-6
    rig.with_data(x=x, classes=4)


def index(rig: Rig) -> None:
    rig.with_data(classes=4, indices=(1, 2, 3, 4, 5, 6, 7, 9))


def fewer_samples(rig: Rig) -> None:
    rig.data = rig.data.take(range(6))


def more_classes(rig: Rig) -> None:
    rig.with_data(classes=5)


def epsilon(rig: Rig) -> None:
    rig.plan = replace(rig.plan, threat=ThreatModel("linf", "0.0450001"))


def norm(rig: Rig) -> None:
    rig.plan = replace(rig.plan, threat=ThreatModel("l2", "0.045"))


def micro_batch(rig: Rig) -> None:
    rig.plan = replace(rig.plan, micro_batch=3)


def order_of_stages(rig: Rig) -> None:
    rig.plan = replace(rig.plan, stages=rig.plan.stages[::-1])


def seed(rig: Rig) -> None:
    rig.seed = 1


CHANGES: list[Callable[[Rig], None]] = [
    *(one_weight, one_buffer, hidden_buffer, activation, slope, method, setting),
    *(label, pixel, index, fewer_samples, more_classes),
    *(epsilon, norm, micro_batch, order_of_stages, seed),
    *(
        pytest.param(lambda rig, p=parameter: rig.with_stage(1, **p), id=next(iter(parameter)))  # type: ignore[misc]
        for parameter in ({"steps": 3}, {"step_size": "9/201"}, {"restarts": 2}, {"random_start": True})
    ),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the whole measurement."""
    root = tmp_path_factory.mktemp("filled")
    used, found = Rig().run(root)
    assert (found, used.store.hits) == (tiny.OUTCOMES, 0)
    again, found = Rig().run(root)
    assert (found, again.store.hits, again.store.misses, again.cost.backward) == (tiny.OUTCOMES, 2, 0, 0)
    return root


def missed(rig: Rig, filled: Path, folder: Path) -> None:
    """The attack on ``rig`` is a miss in the store ``filled``, and its outcomes are those in an empty store."""
    shutil.copytree(filled, folder / "copy")
    used, found = rig.run(folder / "copy")
    fresh, expected = rig.run(folder / "fresh")
    assert used.store.misses >= 1
    assert used.cost.backward == fresh.cost.backward > 0
    assert found == expected
    assert used.store.quarantined == []


@pytest.mark.parametrize("change", CHANGES)
def test_20_a_change_is_a_miss(change: Callable[[Rig], None], filled: Path, tmp_path: Path) -> None:
    rig = Rig()
    change(rig)
    missed(rig, filled, tmp_path)


@pytest.mark.parametrize("library", ["torch", "foolbox"])
def test_20_another_version_of_a_library_is_a_miss(
    library: str, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(material, "version", lambda name: "0.0" if name == library else real(name))
    missed(Rig(), filled, tmp_path)


def test_20_a_changed_default_in_the_code_of_an_attack_is_a_miss(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(sources.cache_clear)
    folder = tmp_path / "attacks"
    shutil.copytree(Path(str(attacks.__file__)).parent, folder)
    monkeypatch.setattr(attacks, "__file__", str(folder / "__init__.py"))
    sources.cache_clear()
    same, _ = Rig().run(filled)
    assert same.store.misses == 0
    with (folder / "gradient.py").open("a") as file:
        file.write("\nSTEPS = 7\n")
    sources.cache_clear()  # as another process would read them
    missed(Rig(), filled, tmp_path)


@pytest.mark.parametrize("flag", ["matmul", "deterministic", "tf32", "dtype"])
def test_20_another_precision_is_a_miss(
    flag: str, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flag == "matmul":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    elif flag == "deterministic":
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    elif flag == "tf32":
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
    else:
        monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)
    missed(Rig(), filled, tmp_path)


def test_20_a_part_in_train_mode_is_a_miss(filled: Path, tmp_path: Path) -> None:
    rig = Rig()
    rig.module.get_submodule("1").train()
    missed(rig, filled, tmp_path)


def two_models(root: Path) -> tuple[Path, Path, nn.Module]:
    """The folders of the attack on two models in one store; the second one is another network."""
    other = tiny.network(boundary=0.475)
    folders = []
    for module in (tiny.network(), other):
        used = tiny.bench(root)
        folders.append(used.store.folder(tiny.measured(used, module).ledger.key))
    return folders[0], folders[1], other


def copied(source: Path, target: Path, *, forge: bool) -> None:
    """Copy everything under ``source`` into the place of ``target``; ``forge`` makes every file name the other key."""
    for path in list(target.iterdir()):
        path.unlink()
    for path in source.iterdir():
        payload = path.read_bytes()
        if forge and path.suffix == ".json":
            data = json.loads(payload)
            data["key"] = target.name
            payload = json.dumps(data).encode()
        name = files.named("segment", payload) if path.name.startswith("seg-") else path.name
        (target / name).write_bytes(payload)


@pytest.mark.parametrize("forge", [False, True])
def test_20_results_copied_under_another_models_key_are_not_used(forge: bool, tmp_path: Path) -> None:
    source, target, module = two_models(tmp_path)
    expected = tiny.outcomes(tiny.measured(tiny.bench(tmp_path, "ro"), module))
    assert expected["broken"] == [0, 3, 5]
    copied(source, target, forge=forge)
    used = tiny.bench(tmp_path)
    assert tiny.outcomes(tiny.measured(used, module)) == expected
    assert used.cost.backward > 0
    why = "the manifest is that of another measurement" if forge else f"it belongs to '{source.name}'"
    assert sum(why in line for line in used.store.quarantined) == len(tiny.files(source))


def test_20_segments_beside_the_own_manifest_or_none_are_not_used(tmp_path: Path) -> None:
    source, target, module = two_models(tmp_path)
    manifest = (target / "manifest.json").read_bytes()
    expected = tiny.outcomes(tiny.measured(tiny.bench(tmp_path, "ro"), module))
    for kept in (manifest, None):
        copied(source, target, forge=False)
        (target / "manifest.json").unlink()
        if kept is not None:
            (target / "manifest.json").write_bytes(kept)
        used = tiny.bench(tmp_path)
        assert tiny.outcomes(tiny.measured(used, module)) == expected
        words = "the segment belongs to" if kept is not None else "the manifest is missing"
        assert sum(words in line for line in used.store.quarantined) >= 4
        shutil.rmtree(target / "quarantine")


def test_20_a_segment_that_does_not_fit_its_measurement_is_not_used(tmp_path: Path) -> None:
    used = tiny.bench(tmp_path)
    found = tiny.measured(used)
    folder = used.store.folder(found.ledger.key)
    (first,) = [s for s in found.ledger.segments.values() if (s.stage, s.micro_batch) == (0, 0)]
    strangers = {
        "the measurement has no unit 2, 0": replace(first, stage=2),
        "the measurement has no unit 0, 2": replace(first, micro_batch=2),
        "sample 0 is not of micro-batch 1": replace(first, micro_batch=1),
        "sample 2 is broken without a witness": replace(first, broken={**first.broken, 2: 0.01}),
    }
    for stranger in strangers.values():
        used.store.add(stranger)
    again = tiny.bench(tmp_path)
    assert tiny.outcomes(tiny.measured(again)) == tiny.OUTCOMES
    assert len(again.store.quarantined) == len(strangers)
    for sentence in strangers:
        assert any(line.endswith(sentence) for line in again.store.quarantined), sentence
    assert len(list(folder.glob("seg-*"))) == 4
