"""``prunerob verify --deep``: the witnesses in the store are forwarded again, and nothing is believed about them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.report.gate import Waiver
from pytest_prunerob.store import Store, Witness
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

TOY = (
    CONFTEST.replace("@pytest.fixture\n", "")
    + """
def noisy():
    return classifier(3)
"""
)

SUITE = """
@cells(samples=30)
def test_share(dense, pruned):
    assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.4

@cells()
def test_distance(dense):
    assert dense.distance(fmn(norm="linf", steps=5)) <= 0.2

@cells()
def test_returned(pruned):
    assert pruned.accuracy_under(P) <= 0.6
"""

MODELS = ("--model", "dense=toy:dense_model", "--model", "pruned=toy:pruned_model", "--dataset", "toy:dataset")

Deep = Callable[..., tuple[int, str]]


@pytest.fixture
def deep(suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> Deep:
    """``deep(*arguments, options=())``: run the suite and verify it; exit code and stdout."""
    pytester.makepyfile(toy=TOY)
    pytester.syspathinsert()

    def run(*arguments: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        results = suite(SUITE, *options)
        # FMN finds nothing for some samples of these models, so that its claim is inconclusive; its witnesses count.
        waiver = Waiver("test_suite.py::test_distance[cell]#1", "FMN fails", date(2999, 12, 31))
        lock = pytester.path / "claims.lock"
        lock.write_text(json.dumps(lock_of(results.results, waived=[waiver])))
        capsys.readouterr()
        files = ["verify", str(results.path), "--lock", str(lock), "--deep", "--store", ".prunerob"]
        code = main([*files, *arguments])
        return code, capsys.readouterr().out

    return run


def test_what_holds_is_counted(deep: Deep) -> None:
    code, out = deep(*MODELS)
    assert "witnesses of 3 measurements forwarded again" in out
    assert "; 1 measurements of plain attack accuracy have none" in out
    assert "✗" not in out
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (MODELS[:4], "no data set is given: give --dataset REF"),
        (MODELS[2:], "no network with the fingerprint"),
        (("--model", "dense=toy:noisy", *MODELS[2:]), "of the run is not toy:noisy"),
    ],
)
def test_what_is_not_at_hand_is_a_deviation(deep: Deep, arguments: tuple[str, ...], sentence: str) -> None:
    code, out = deep(*arguments)
    assert code == 1
    assert sentence in out


FORGERIES: dict[str, tuple[Callable[[Witness, np.ndarray], Witness | None], str]] = {
    "missing": (lambda found, clean: None, "the store holds witnesses of"),
    "nan": (lambda found, clean: Witness(found.distance, "", found.array * np.float32("nan")), "is not finite"),
    "box": (lambda found, clean: Witness(found.distance, "", found.array + 1), "is outside [0, 1]"),
    "far": (lambda found, clean: Witness(0.5, "", np.clip(found.array - 0.3, 0, 1)), "from the sample, ε is 21/400"),
    "distance": (lambda found, clean: Witness(0.001, "", found.array), "from the sample, the store says 0.001"),
    "shape": (lambda found, clean: Witness(found.distance, "", found.array[:, :2]), "has another shape"),
    "no break": (lambda found, clean: Witness(0.0, "", clean), ", which is no break"),
    "hash": (lambda found, clean: Witness(found.distance, "", None), "1 witnesses were kept as a hash only"),
}


@pytest.mark.parametrize(("forge", "sentence"), FORGERIES.values(), ids=FORGERIES)
def test_no_witness_is_believed(
    deep: Deep, monkeypatch: pytest.MonkeyPatch, forge: Callable[[Witness, np.ndarray], Witness | None], sentence: str
) -> None:
    honest = Store.witnesses

    def forged(self: Store, key: str) -> dict[int, Witness]:
        found = honest(self, key)
        content = self.manifest(key)
        assert content is not None
        if content["kind"] == "decide" and content["provenance"]["role"] == "pruned":
            position = next(iter(found))
            clean = importlib.import_module("toy").dataset().first(30).x[position].numpy()
            other = forge(found.pop(position), clean)
            if other is not None:
                found = {position: other, **found}
        return found

    monkeypatch.setattr(Store, "witnesses", forged)
    code, out = deep(*MODELS)
    assert code == 1
    assert sentence in out


def test_hashes_alone_need_to_be_allowed(deep: Deep) -> None:
    code, out = deep(*MODELS, options=("--prunerob-witness=hash",))
    assert code == 1
    assert "kept as a hash only and cannot be forwarded again" in out
    code, out = deep(*MODELS, "--allow-hash", options=("--prunerob-witness=hash",))
    assert code == 0
    assert "0 witnesses of 3 measurements forwarded again" in out


def test_models_of_the_grid_are_taken_from_the_store(
    suite: Suite, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    y = np.arange(240) % 4
    x = np.random.default_rng(0).random((240, 1, 8, 8), dtype=np.float32) * 0.3
    for label in range(4):  # one quadrant is bright
        rows, columns = slice(label // 2 * 4, label // 2 * 4 + 4), slice(label % 2 * 4, label % 2 * 4 + 4)
        x[y == label, :, rows, columns] += 0.5
    np.savez(pytester.path / "toy.npz", x=x[:40], y=y[:40], x_train=x[40:], y_train=y[40:])
    (pytester.path / "conftest.py").unlink()
    run = suite(
        """
        @cells(dataset="npz:toy.npz", network="cnn", training="standard", method="global-magnitude", sparsity="0.50")
        def test_grid(dense, pruned):
            plan = pgd(norm="linf", eps="0.3", steps=3, step_size="0.1")
            assert dense.accuracy() - dense.robust_accuracy(plan) >= 0.02
            assert pruned.accuracy() - pruned.robust_accuracy(plan) >= 0.02
        """
    )
    assert run.ret == 0
    lock = pytester.path / "claims.lock"
    lock.write_text(json.dumps(lock_of(run.results)))
    verify = ["verify", str(run.path), "--lock", str(lock), "--deep", "--store", ".prunerob"]
    capsys.readouterr()
    assert main([*verify, "--dataset", "npz:toy.npz"]) == 0
    assert "witnesses of 2 measurements forwarded again" in capsys.readouterr().out
    for path in (pytester.path / ".prunerob").rglob("model-*.safetensors"):
        path.unlink()
    assert main([*verify, "--dataset", "npz:toy.npz"]) == 1
    assert "no network with the fingerprint" in capsys.readouterr().out
