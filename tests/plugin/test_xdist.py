"""With pytest-xdist: the same verdicts, no cell lost without a word, one device for each worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_prunerob.errors import OptionError
from pytest_prunerob.plugin import devices
from pytest_prunerob.plugin.stash import OPTIONS
from tests.plugin.conftest import CONFTEST

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# The models live in a module of their own, so that the controller does not import torch through conftest.py.
LAZY = """
import sys
import pytest

@pytest.fixture
def dataset():
    import toy
    return toy.Dataset("toy", *toy.samples(), classes=4)

@pytest.fixture
def dense_model():
    import toy
    return toy.classifier(4)

@pytest.fixture
def pruned_model():
    import toy
    return toy.classifier(2)

def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        (session.config.rootpath / "imported.txt").write_text(" ".join({"torch", "numpy"} & set(sys.modules)))
"""

SUITE = """
@cells(method=["a", "b"], xfail={"b": "weak"})
def test_two(dense, pruned, cell):
    assert pruned.robust_accuracy(P) >= (0.5 if cell.method == "a" else 0.6)

@cells()
def test_refuted(dense):
    assert dense.robust_accuracy(P) >= 0.8

@cells()
def test_inconclusive(dense, pruned):
    assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6

def test_plain():
    pass
"""


@pytest.fixture
def lazy(suite: Suite, pytester: pytest.Pytester) -> Suite:
    pytester.makepyfile(toy=CONFTEST)
    pytester.makeconftest(LAZY)
    return suite


def test_the_same_with_workers(lazy: Suite, pytester: pytest.Pytester) -> None:
    alone = lazy(SUITE, "-p", "no:xdist")
    workers = lazy(None, "-n", "2", "--prunerob-store=other", "--prunerob-report=report.html", subprocess=True)
    assert (alone.ret, workers.ret) == (1, 1)
    assert (pytester.path / "imported.txt").read_text() == ""
    first, second = alone.results, workers.results

    def sorted_claims(results: dict[str, Any]) -> list[dict[str, Any]]:
        return sorted(results["claims"], key=lambda claim: str(claim["id"]))

    assert sorted_claims(first) == sorted_claims(second)
    assert alone.statuses == workers.statuses
    assert first["measurements"].keys() == second["measurements"].keys()
    assert {cell["worker"] for cell in first["cells"]} == {"main"}
    assert {cell["worker"] for cell in second["cells"]} <= {"gw0", "gw1"}
    assert (second["status"], second["exit_status"]) == ("complete", 1)
    assert "test_refuted" in (pytester.path / "report.html").read_text()
    outcomes = workers.result.parseoutcomes()
    assert {name: outcomes[name] for name in ("passed", "failed", "inconclusive", "xfailed")} == {
        "passed": 2,
        "failed": 1,
        "inconclusive": 1,
        "xfailed": 1,
    }


def test_a_worker_that_dies(lazy: Suite) -> None:
    run = lazy(
        """
        @cells(method=["a", "b"])
        def test_good(pruned):
            assert pruned.robust_accuracy(P) >= 0.5

        @cells()
        def test_dies(pruned):
            os._exit(1)
        """,
        "-n",
        "1",
        "--max-worker-restart=1",
    )
    assert run.ret == 1
    assert sorted((cell["test"], cell["status"]) for cell in run.results["cells"]) == [
        ("test_dies", "crashed"),
        ("test_good", "passed"),
        ("test_good", "passed"),
    ]
    assert run.results["status"] == "incomplete"
    run.result.stdout.fnmatch_lines(["CRASHED  test_suite.py::test_dies?cell?  on gw? cpu"])


def test_a_report_that_does_not_arrive(lazy: Suite) -> None:
    run = lazy(
        """
        @cells()
        def test_lost(dense, request):
            request.node.user_properties.append(("lost", object()))
            assert dense.accuracy() >= 1
        """,
        "-n",
        "1",
        results=False,  # the run must not end well even where nobody asked for the list of cells
    )
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(["NOT EVALUATED  test_suite.py::test_lost?cell?"])


@pytest.mark.parametrize(
    ("mask", "index", "expected"),
    [
        (None, 0, "0"),
        (None, 3, "3"),
        ("2,3", 1, "3"),
        ("GPU-8932f937-d72c,GPU-1111", 0, "GPU-8932f937-d72c"),
        ("MIG-a, MIG-b ,", 1, "MIG-b"),
    ],
)
def test_masks(mask: str | None, index: int, expected: str) -> None:
    assert devices.masked(index, {} if mask is None else {devices.MASK: mask}) == expected


@pytest.mark.parametrize(("mask", "index"), [("0", 1), ("", 0), ("GPU-1,GPU-2", 2)])
def test_masks_that_are_too_short(mask: str, index: int) -> None:
    with pytest.raises(OptionError, match=f"names cuda:{index}, and CUDA_VISIBLE_DEVICES='{mask}' has [0-9] devices"):
        devices.masked(index, {devices.MASK: mask})


@pytest.mark.parametrize(
    ("device", "mask", "expected", "automatic"),
    [
        ("cuda:0,cuda:1", None, ["0", "1", "0"], 2),
        ("cuda:1,cuda:0", "4,GPU-77", ["GPU-77", "4", "GPU-77"], 2),
        ("cuda:2", None, ["2", "2", "2"], 1),
        ("cuda", None, [None, None, None], None),
        ("cpu", None, [None, None, None], None),
        ("auto", "0,1", [None, None, None], None),
    ],
)
def test_workers_get_their_device(
    monkeypatch: pytest.MonkeyPatch, device: str, mask: str | None, expected: list[str | None], automatic: int | None
) -> None:
    monkeypatch.delenv(devices.MASK, raising=False)
    if mask is not None:
        monkeypatch.setenv(devices.MASK, mask)
    stash = pytest.Stash()
    stash[OPTIONS] = SimpleNamespace(device=device)  # type: ignore[misc]
    config: Any = SimpleNamespace(stash=stash)
    specs = [SimpleNamespace(popen=True, env=env) for env in (None, {"A": "1"}, {})]
    specs.append(SimpleNamespace(popen=False, env=None))
    devices.pytest_xdist_setupnodes(config, specs)
    assert [(spec.env or {}).get(devices.MASK) for spec in specs] == [*expected, None]
    assert specs[1].env["A"] == "1"
    assert devices.pytest_xdist_auto_num_workers(config) == automatic


# The tests below are about which cells ran: they make no claim, so that no worker has to import torch.


@pytest.mark.parametrize("distribution", ["load", "loadscope"])
def test_a_cell_that_ends_its_worker_is_not_run_for_ever(
    lazy: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, distribution: str
) -> None:
    monkeypatch.delenv(devices.MASK, raising=False)
    run = lazy(
        """
        @cells()
        def test_a():
            pass

        @cells()
        def test_b_poison():
            with open("runs.txt", "a") as file:
                file.write("run\\n")
            os._exit(1)

        @cells()
        def test_c():
            pass
        """,
        *("-n", "1", "--dist", distribution, "--max-worker-restart=6", "--prunerob-device=cuda:3"),
    )
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(["CRASHED  test_suite.py::test_b_poison?cell?  on gw? (CUDA_VISIBLE_DEVICES=3)"])
    assert run.statuses == {"test_a": "failed", "test_b_poison": "crashed", "test_c": "failed"}
    assert run.results["status"] == "incomplete"
    assert (pytester.path / "runs.txt").read_text() == "run\n"


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_selection_is_recorded(lazy: Suite, workers: str) -> None:
    suite = """
        @cells(method=["a", "b", "c"])
        def test_claim():
            pass

        def test_plain():
            pass
        """
    run = lazy(suite, "-n", workers, "-k", "not claim", "-m", "not slow")
    assert run.ret == 0
    selection = run.results["selection"]
    assert (selection["keyword"], selection["markexpr"]) == ("not claim", "not slow")
    assert (selection["planned"], selection["deselected"], selection["stopped_early"]) == (0, 3, False)
    assert "-k" in selection["args"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_that_stops_early_says_so_and_lists_only_cells(lazy: Suite, workers: str) -> None:
    run = lazy(
        """
        @cells(method=["a", "b", "c"])
        def test_claim():
            pass

        @pytest.mark.parametrize("number", range(5))
        def test_plain(number):
            pass
        """,
        *("-n", workers, "-x"),
    )
    assert run.ret != 0
    selection = run.results["selection"]
    assert (selection["stopped_early"], selection["maxfail"], selection["planned"]) == (True, 1, 3)
    assert [cell["test"] for cell in run.results["cells"]] == ["test_claim"] * 3
    assert [cell["status"] for cell in run.results["cells"]][::2] == ["failed", "not evaluated"]
    assert run.results["status"] == "incomplete"


def test_workers_that_leave_no_notes_lose_no_cell(lazy: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_prunerob.plugin.notes.planned", lambda config, worker: None)
    run = lazy(
        """
        @cells()
        def test_lost(request):
            request.node.user_properties.append(("lost", object()))
        """,
        *("-n", "1"),
    )
    assert run.ret == 1
    assert run.statuses == {"test_lost": "not evaluated"}


def test_the_notes_are_removed(lazy: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(pytester.mkdir("notes")))
    assert lazy("def test_plain():\n    pass", "-n", "1").ret == 0
    assert not list((pytester.path / "notes").iterdir())
