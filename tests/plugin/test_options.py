"""Options from the command line and the ini file, bad values, the store's modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

CLAIM = "@cells()\ndef test_it(pruned):\n    assert pruned.robust_accuracy(P) >= 0.5\n"
PLAIN = "def test_it():\n    pass\n"

BAD = {
    "device": ("gpu", "*gpu*: allowed are auto, cpu, cuda, cuda:N and lists of them*"),
    "batch-size": ("0", "--prunerob-batch-size='0' is not a whole number of at least 1"),
    "store-mode": ("rx", "unknown value of --prunerob-store-mode 'rx': allowed are refresh, ro, rw*"),
    "inconclusive": ("pass", "unknown value of --prunerob-inconclusive 'pass': allowed are fail, skip, xfail"),
    "population": ("world", "unknown value of --prunerob-population 'world': allowed are distribution, testset"),
    "confidence": ("95", "--prunerob-confidence='95' is not a number between 0.5 and 1"),
    "seed": ("-1", "--prunerob-seed='-1' is not a whole number of at least 0"),
    "results": ("lost/results.json", "--prunerob-results='lost/results.json': the folder '*lost' does not exist"),
    "report": ("lost/report.html", "--prunerob-report='lost/report.html': the folder '*lost' does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values(suite: Suite, pytester: pytest.Pytester, name: str) -> None:
    value, sentence = BAD[name]
    line = suite(PLAIN, f"--prunerob-{name}={value}", results=False)
    pytester.makeini(f"[pytest]\nprunerob_{name.replace('-', '_')} = {value}\n")
    ini = suite(PLAIN, results=False)
    for run in (line, ini):
        assert run.ret == 4
        run.result.stderr.fnmatch_lines([f"ERROR: {sentence}".replace("[", "[[]")])
        assert "Traceback" not in run.all
    # The command line goes before the ini file.
    good = {"device": "cpu", "batch-size": "7", "store-mode": "rw", "inconclusive": "skip", "population": "testset"}
    good |= {"confidence": "0.9", "seed": "3", "results": "r.json", "report": "r.html"}
    assert suite(PLAIN, f"--prunerob-{name}={good[name]}", results=False).ret == 0


@pytest.mark.parametrize("name", ["store", "results", "report", "seed", "device"])
def test_empty_values(suite: Suite, name: str) -> None:
    run = suite(PLAIN, f"--prunerob-{name}=", results=False)
    assert run.ret == 4
    run.result.stderr.fnmatch_lines([f"ERROR: --prunerob-{name} is empty"])


def test_results_that_cannot_be_written(suite: Suite) -> None:
    run = suite(CLAIM, "--prunerob-results=/proc/results.json", results=False)
    assert run.ret == 4
    run.result.stderr.fnmatch_lines(["ERROR: cannot write /proc/results.json: *"])
    assert "Traceback" not in run.all


def test_options_reach_the_results(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\nprunerob_device = cpu\nprunerob_batch_size = 7\nprunerob_store = kept/store\n"
        "prunerob_inconclusive = xfail\nprunerob_population = distribution\nprunerob_confidence = 0.9\n"
        "prunerob_seed = 5\nprunerob_profile = small\n"
    )
    (pytester.mkdir("kept") / "sub").mkdir()
    pytester.makepyfile(
        **{
            "deep/test_deep": "from pytest_prunerob import cells\n"
            "@cells(method=['a', 'b'], profiles={'small': {'method': 'c', 'samples': 10}, 'paper': {}})\n"
            "def test_it(pruned, cell):\n    assert pruned.accuracy() >= 0.5\n    assert cell.method == 'c'\n"
        }
    )
    run = suite(None, "--rootdir", str(pytester.path), "deep")
    assert run.ret == 0
    results = run.results
    assert results["options"] == {
        "profile": "small",
        "device": "cpu",
        "batch_size": 7,
        "store": "kept/store",
        "store_mode": "rw",
        "inconclusive": "xfail",
        "results": "results.json",
        "report": None,
        "population": "distribution",
        "confidence": 0.9,
        "seed": 5,
        "adequacy": "basic",
        "decide": "exact",
        "time_budget": None,
        "witness": "keep",
        "summary": None,
    }
    assert results["store"]["path"] == "kept/store"
    assert results["environment"]["seed"] == 5
    assert (pytester.path / "kept/store/v1").is_dir()
    assert not (pytester.path / ".prunerob").exists()
    (claim,) = results["claims"]
    assert (claim["n"], claim["population"], claim["confidence"]) == (10, "distribution", 0.9)
    over = suite(None, "--prunerob-profile=paper", "--prunerob-store=other", "--prunerob-seed=6", "deep")
    assert [cell["parameters"]["method"] for cell in over.results["cells"]] == ["a", "b"]
    assert over.results["options"]["seed"] == 6
    assert over.results["options"]["store"] == "other"
    unknown = suite(None, "--prunerob-profile=papr", "deep")
    assert unknown.ret == 2
    unknown.result.stdout.fnmatch_lines(["*unknown profile 'papr': allowed are paper, small; did you mean 'paper'?"])


def test_modes_of_the_store(suite: Suite, pytester: pytest.Pytester) -> None:
    empty = suite(CLAIM, "--prunerob-store-mode=ro")
    assert empty.ret == 1
    text = (
        "is not in the store '*.prunerob' and store-mode=ro measures nothing: run the same command with *-mode=rw once"
    )
    empty.result.stdout.fnmatch_lines([f"*pruned model, * {text}*"])
    assert not (pytester.path / ".prunerob").exists()
    first = suite(None)
    assert first.ret == 0
    cost = first.results["cost"]
    # 2 steps of PGD on 40 samples; the audit doubles them on the 20 survivors, takes a gradient at each of these, and
    # asks APGD on the margin, which takes one at its start and at each of 100 steps.
    assert cost["backward"] == 2 * 40 + (4 + 1 + 101) * 20
    segments = set((pytester.path / ".prunerob").rglob("seg-*.json"))
    assert len(segments) == 2
    for mode in ("rw", "ro"):
        again = suite(None, f"--prunerob-store-mode={mode}")
        assert again.ret == 0
        assert (again.results["cost"]["forward"], again.results["cost"]["backward"]) == (40, 0)
        assert (again.results["store"]["hits"], again.results["store"]["misses"]) == (2, 0)
        assert again.verdicts == first.verdicts
    assert set((pytester.path / ".prunerob").rglob("seg-*.json")) == segments
    fresh = suite(None, "--prunerob-store-mode=refresh")
    assert fresh.ret == 0
    assert fresh.results["cost"]["backward"] == cost["backward"]
    assert fresh.verdicts == first.verdicts
    other = suite(None, "--prunerob-store-mode=ro", "--prunerob-seed=1")
    assert other.ret == 1


def test_chunks_change_no_outcome_and_no_key(suite: Suite) -> None:
    claim = "@cells()\ndef test_it(pruned):\n    plan = autoattack(['apgd-ce'], norm='linf', eps='0.0525')\n"
    whole = suite(claim + "    assert within(pruned.robust_accuracy(plan), 0.5, 0)\n")
    chunked = suite(None, "--prunerob-batch-size=3", "--prunerob-store=other")
    assert (whole.ret, chunked.ret) == (0, 0)
    assert whole.results["measurements"].keys() == chunked.results["measurements"].keys()


def test_a_device_that_is_not_there(suite: Suite) -> None:
    run = suite(CLAIM, "--prunerob-device=cuda:99")
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(["OptionError: --prunerob-device='cuda:99': torch sees * CUDA devices"])
    assert "Traceback" not in run.all


def test_a_profile_that_no_grid_has_is_refused(suite: Suite) -> None:
    run = suite(CLAIM, "--prunerob-profile=paper")
    assert run.ret == 4
    run.result.stderr.fnmatch_lines(["*--prunerob-profile='paper': no cells(...) of this run has profiles*"])
