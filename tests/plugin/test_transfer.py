"""Claims about inputs crafted on another model, from the test to the report, the store and ``prunerob verify``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_prunerob.cli import main
from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.commands.plan import plain
from pytest_prunerob.plugin.planning import Planner
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# One step of P from a sample moves every pixel that its source looks at by 0.0525: that undoes margins of the pruned
# model (0.005·k) up to k = 10, whichever is the source; the dense one (0.01·k) loses k = 1 and 2 to half of the pixels.
SUITE = """
from pytest_prunerob import transfer

@cells()
def test_grey_box(dense, pruned):
    assert within(transfer(dense, pruned, P), 0.5, 0)
    assert within(transfer(pruned, dense, P), 0.9, 0)

@cells()
def test_itself(dense):
    assert within(transfer(dense, dense, P), dense.accuracy_under(P), 0)
"""
TOY = CONFTEST.replace("@pytest.fixture\n", "")
MODELS = ("--model", "dense=toy:dense_model", "--model", "pruned=toy:pruned_model", "--dataset", "toy:dataset")

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def prunerob(capsys: pytest.CaptureFixture[str]) -> Run:
    """``prunerob(*arguments)``: exit code and stdout."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().out

    return run


def planned(pytester: pytest.Pytester) -> dict[str, Any]:
    planner = Planner()
    pytester.inline_run("--collect-only", plugins=[planner])
    return plain(planner)


def test_a_transfer_is_planned_measured_reported_and_kept(
    suite: Suite, pytester: pytest.Pytester, prunerob: Run
) -> None:
    suite(SUITE, "--collect-only")
    ahead = planned(pytester)
    first = suite(None, "--prunerob-report=report.html")
    assert first.statuses == {"test_grey_box": "passed", "test_itself": "passed"}
    assert first.results["cost"]["forward"] <= ahead["at_most"]["forward"]
    assert first.results["cost"]["backward"] <= ahead["at_most"]["backward"]
    measured = first.results["measurements"].values()
    assert sorted(m["kind"] for m in measured) == ["crafted", "crafted", "returned", *3 * ["transferred"]]
    tried = [m for m in measured if m["kind"] == "transferred"]
    assert {(m["subject"], m["plan"].rpartition("crafted on ")[2], m["broken"]) for m in tried} == {
        ("pruned", "the dense model", 20),
        ("dense", "the pruned model", 4),
        ("dense", "the dense model", 10),
    }
    assert all((m["cost"]["forward"], m["cost"]["backward"]) == (40, 0) for m in tried)
    page = (pytester.path / "report.html").read_text("utf-8")
    assert "inputs crafted to be tried on other models" in page
    assert "40 made, 0 left, 0 errors" in page
    left = planned(pytester)["at_most"]
    assert (left["forward"], left["backward"]) == (120, 0)  # the probes of three subjects

    # Kept, checked and handed on.
    assert prunerob("store", "verify")[0] == 0
    code, listed = prunerob("store", "list")
    assert code == 0
    assert listed.count("crafted on the dense model") == 2
    assert prunerob("store", "export", "handed")[0] == 0
    shutil.rmtree(".prunerob")
    assert prunerob("store", "import", "handed")[0] == 0
    again = suite(None, "--prunerob-store-mode=ro")
    assert again.verdicts == first.verdicts
    assert again.results["cost"]["backward"] == 0


def rewritten(store: Path, harm: Callable[[dict[str, Any]], None]) -> None:
    """Change every segment of a transferred measurement, and name it by its new content as a forger would."""
    import hashlib

    for path in list(store.rglob("seg-*.json")):
        content = json.loads((path.parent / "manifest.json").read_text())["content"]
        if content["kind"] == "transferred":
            segment = json.loads(path.read_text())
            harm(segment)
            payload = json.dumps(segment).encode()
            path.unlink()
            (path.parent / f"seg-{hashlib.sha256(payload).hexdigest()}.json").write_bytes(payload)


def test_deep_tries_the_crafted_inputs_again(suite: Suite, pytester: pytest.Pytester, prunerob: Run) -> None:
    pytester.makepyfile(toy=TOY)
    pytester.syspathinsert()
    run = suite(SUITE)
    Path("claims.lock").write_text(json.dumps(lock_of(run.results)))
    verify = ("verify", run.path, "--lock", "claims.lock", "--deep", "--store", ".prunerob", *MODELS)
    code, out = prunerob(*verify)
    assert "0 witnesses of 3 measurements forwarded again; 120 crafted inputs tried again; 1 measurements of" in out
    assert code == 0
    rewritten(Path(".prunerob"), lambda segment: segment["broken"].pop())
    code, out = prunerob(*verify)
    assert code == 1
    assert "the results count 20 broken samples, the store 19" in out
    assert "is not classified as" in out
    for path in [p for p in Path(".prunerob").rglob("manifest.json") if '"crafted"' in p.read_text()]:
        if json.loads(path.read_text())["content"]["kind"] == "crafted":
            shutil.rmtree(path.parent)
    code, out = prunerob(*verify)
    assert "4 measurements of plain attack accuracy have none" in out


def test_a_damaged_input_is_reported_and_made_again(suite: Suite, pytester: pytest.Pytester) -> None:
    first = suite(SUITE)
    for path in list(Path(".prunerob").rglob("seg-*.json")):
        if (
            path.exists()
            and json.loads((path.parent / "manifest.json").read_text())["content"]["kind"] == "transferred"
        ):
            shutil.rmtree(path.parent)  # so that the inputs are needed
    for path in Path(".prunerob").rglob("wit-*.npy"):
        payload = bytearray(path.read_bytes())
        payload[-1] ^= 1
        path.write_bytes(payload)
    again = suite(None)
    assert again.verdicts == first.verdicts
    assert len(again.results["store"]["quarantined"]) >= 2
    assert suite(None).results["store"]["quarantined"] == []


MATRIX = """
from pytest_prunerob import transfer

@cells(dataset="npz:toy.npz", network="cnn", training="standard", method=["filter-l1", "global-magnitude"],
       sparsity="0.50", samples=20)
@pytest.mark.parametrize("source", ["dense", "filter-l1", "global-magnitude"])
def test_matrix(build_model, pruned, cell, source):
    model = build_model() if source == "dense" else build_model(method=source)
    assert model.role == ("cnn-standard" if source == "dense" else f"cnn-standard-{source}-s0.50")
    assert (model.digest == pruned.digest) == (source == cell.method)
    tried = transfer(model, pruned, pgd(norm="linf", eps="0.3", steps=2, step_size="0.2"))
    assert tried >= float(tried)

@cells(dataset="npz:toy.npz", network="cnn", training="standard", seed=[0, 1])
def test_names(build_model, dense, cell):
    again, other = build_model(role="again"), build_model(seed=1 - cell.seed)
    assert (again.role, other.role) == ("again", f"cnn-standard-seed{1 - cell.seed}")
    assert again.digest == dense.digest != other.digest
    assert build_model(method="filter-l1", sparsity=0.5).sparsity("filters") >= 0.1
    for given, message in [
        (dict(network="cn"), "unknown network 'cn': allowed are .*; did you mean 'cnn'"),
        (dict(sparsity="0.5"), "has no 'method': write"),
        (dict(method="filter-l", sparsity="0.5"), "unknown method 'filter-l': .* did you mean 'filter-l1'"),
        (dict(method="filter-l1", sparsity="50"), "sparsity='50' is not in .* did you mean '0.5'"),
        (dict(network=["cnn"]), "is a list: one model has one network"),
    ]:
        with pytest.raises(Exception, match=message):
            build_model(**given)
"""


def test_one_file_claims_over_the_whole_matrix(suite: Suite, pytester: pytest.Pytester, prunerob: Run) -> None:
    y = np.arange(120) % 4
    x = np.random.default_rng(0).random((120, 1, 4, 4), dtype=np.float32) * 0.3
    for label in range(4):  # one quadrant is bright
        rows, columns = slice(label // 2 * 2, label // 2 * 2 + 2), slice(label % 2 * 2, label % 2 * 2 + 2)
        x[y == label, :, rows, columns] += 0.5
    np.savez(pytester.path / "toy.npz", x=x[:40], y=y[:40], x_train=x[40:], y_train=y[40:])
    (pytester.path / "conftest.py").unlink()
    run = suite(MATRIX)
    assert set(run.statuses.values()) == {"passed"}
    made = [m for m in run.results["measurements"].values() if m["kind"] == "crafted"]
    assert len(made) == 3  # of six claims: each source is attacked once
    Path("claims.lock").write_text(json.dumps(lock_of(run.results)))
    code, out = prunerob("verify", run.path, "--lock", "claims.lock", "--deep", "--store", ".prunerob",
                         "--dataset", "npz:toy.npz")  # fmt: skip
    assert "120 crafted inputs tried again" in out
    assert code == 0
