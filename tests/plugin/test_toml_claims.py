from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Run, Suite

PLAN = """\
[plans.p]
attack = "pgd"
norm = "linf"
eps = "0.0525"
steps = 2
step_size = 0.0525
random_start = false
"""
ROBUST = "pruned.robust_accuracy(pgd 2 steps of 0.0525, no random start, linf, ε=0.0525)"


def claim(name: str, text: str, more: str = "") -> str:
    return f"\n[[claims]]\nname = '{name}'\nclaim = \"{text}\"\n{more}\n"


@pytest.fixture
def gate(suite: Suite, pytester: pytest.Pytester) -> Suite:
    """``gate(toml, *args)``: write the claims file beside the models of the suite and run it."""

    def run(toml: str, *args: str, subprocess: bool = False) -> Run:
        (pytester.path / "release.claims.toml").write_text(toml, encoding="utf-8")
        return suite(None, *args, subprocess=subprocess)

    return run


def test_claims_are_judged_and_recorded(gate: Suite) -> None:
    run = gate(
        PLAN
        + claim("keeps", "pruned.robust_accuracy(p) >= 0.5")
        + claim("keeps_more", "pruned.robust_accuracy(p) > 0.5")
        + claim("few_flips", "flips.share('S10') <= 0.1", "cells = { samples = 20 }")
    )
    assert run.ret == 1
    assert run.statuses == {"keeps": "passed", "keeps_more": "failed", "few_flips": "passed"}
    assert {c["id"]: (c["text"], c["verdict"], c["n"]) for c in run.results["claims"]} == {
        "release.claims.toml::few_flips[cell]#1": ("flips(dense, pruned).share(S10) <= 0.1", "supported", 20),
        "release.claims.toml::keeps[cell]#1": (f"{ROBUST} >= 0.5", "supported", 40),
        "release.claims.toml::keeps_more[cell]#1": (f"{ROBUST} > 0.5", "refuted", 40),
    }
    run.result.stdout.fnmatch_lines([f"REFUTED: {ROBUST} > 0.5", "measured: pruned.robust_accuracy 0.5"])
    assert "Traceback" not in run.all
    assert "toml_claims.py" not in run.all


def test_items_are_those_of_a_python_file(pytester: pytest.Pytester, gate: Suite) -> None:
    pytester.makepyfile(
        test_same="""
        from pytest_prunerob import cells

        @cells(dataset="toy", method=["b", "a"], sparsity=[0.9, "0.5"], seed=1, samples=5)
        def keeps(pruned):
            assert pruned.accuracy() >= 0.5
        """
    )
    toml = (
        '[cells]\nseed = 1\nmethod = "z"\n'
        + claim("other", "dense.accuracy() >= 0.5")
        + claim(
            "keeps",
            "pruned.accuracy() >= 0.5",
            '[claims.cells]\ndataset = "toy"\nmethod = ["b", "a"]\nsparsity = [0.9, "0.5"]\nsamples = 5',
        )
    )
    run = gate(toml, "-o", "python_functions=keeps", "-k", "keeps")
    assert run.ret == 0
    found: dict[str, list[object]] = {}
    for cell in run.results["cells"]:
        name, _, test = cell["id"].partition("::")
        found.setdefault(name, []).append((test, cell["parameters"], cell["samples"], len(cell["claims"])))
    assert found["release.claims.toml"] == found["test_same.py"]
    assert len(found["test_same.py"]) == 4
    item = pytester.inline_genitems("release.claims.toml::other")[0][0]
    assert item.location == ("release.claims.toml", 6, "other[z-seed1]")  # lines from 0: that of the claim
    assert isinstance(item, pytest.Function)
    assert set(item.fixturenames) >= {"dense", "cell"}
    assert "pruned" not in item.fixturenames


def test_selection_by_id_word_and_profile(gate: Suite) -> None:
    cells = "cells = { seed = [1, 2], profiles = { night = { seed = [1, 2, 3] } } }"
    toml = claim("first", "pruned.accuracy() >= 0.5", cells) + claim("other", "pruned.accuracy() >= 0.5")
    file = "release.claims.toml"
    for args, ids in (
        ((), [f"{file}::first[seed1]", f"{file}::first[seed2]", f"{file}::other[cell]"]),
        ((f"{file}::first[seed2]",), [f"{file}::first[seed2]"]),
        (("-k", "seed1 or other"), [f"{file}::first[seed1]", f"{file}::other[cell]"]),
        (("--prunerob-profile=night", "-k", "first"), [f"{file}::first[seed{n}]" for n in (1, 2, 3)]),
    ):
        run = gate(toml, *args)
        assert (run.ret, [cell["id"] for cell in run.results["cells"]]) == (0, ids)


def test_reported_numbers_and_expected_refutations(gate: Suite, pytester: pytest.Pytester) -> None:
    (pytester.path / "table.csv").write_text("s,aa\n1,50.0\n2,90.0\n")
    cells = """[claims.cells]
    seed = [1, 2]
    xfail = { "*2" = "the paper's attack was weak" }
    [claims.cells.reported]
    path = "table.csv"
    key = { s = { axis = "seed" } }
    column = "aa"
    """
    run = gate(PLAN + claim("as_printed", "pruned.robust_accuracy(p) >= reported - 0.01", cells))
    assert run.ret == 0
    assert [(c["verdict"], c["expected"]) for c in run.results["claims"]] == [
        ("supported", "supported"),
        ("refuted", "refuted"),
    ]
    assert run.results["claims"][1]["comparison"]["reported"]["text"] == "90.0"


def test_with_xdist(gate: Suite) -> None:
    pytest.importorskip("xdist")
    toml = claim("a", "pruned.accuracy() >= 0.5") + claim("b", "dense.accuracy() > 1")
    run = gate(toml, "-n1", subprocess=True)  # one worker is enough to send everything both ways
    assert run.ret == 1
    assert run.statuses == {"a": "passed", "b": "failed"}
    assert {cell["worker"] for cell in run.results["cells"]} == {"gw0"}


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[[claims]\n", "release.claims.toml:1:9: not TOML: *"),
        (claim("a", "pruned.acuracy() >= 1"), "release.claims.toml:4:10: unknown metric of pruned 'acuracy': *"),
        (
            claim("a", "pruned.accuracy() >= 1", "cells = { sparsity = 90 }"),
            "release.claims.toml:5:1: sparsity=90 is not in *; did you mean '0.9'?",
        ),
        (
            claim("a", "pruned.accuracy() >= 1", 'cells = { xfail = { "b*" = "x" } }'),
            "release.claims.toml:5:1: xfail pattern 'b?' matches no cell: the cells are cell",
        ),
        (
            claim("a", "reported >= 1", "cells.reported = { path = 't.csv', key = {}, column = 'c' }"),
            "release.claims.toml:5:1: there is no reported table 't.csv' beside the test file",
        ),
    ],
)
def test_what_is_wrong_stops_the_run_with_one_sentence(gate: Suite, toml: str, sentence: str) -> None:
    run = gate(toml)
    assert run.ret == 2
    run.result.stdout.fnmatch_lines([sentence])
    assert "Traceback" not in run.all
    assert not re.search(r"pytest_prunerob/\w+(/\w+)?\.py", run.all)
    assert run.results["status"] == "incomplete"


def test_the_own_fixtures_need_their_names(gate: Suite, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("")
    run = gate(claim("a", "pruned.accuracy() >= 1", 'cells = { dataset = "digitz" }'))
    assert run.ret == 2
    run.result.stdout.fnmatch_lines(["release.claims.toml:5:1: unknown dataset 'digitz': *; did you mean 'digits'?"])


def test_an_error_while_a_claim_is_made_names_the_line(gate: Suite, pytester: pytest.Pytester) -> None:
    conftest = (pytester.path / "conftest.py").read_text()
    other = "\n@pytest.fixture\ndef pruned(make_subject, dense_model, dataset):\n"
    other += "    return make_subject(dense_model, 'p', dataset=dataset.take(range(10)))\n"
    (pytester.path / "conftest.py").write_text(conftest + other)
    run = gate(claim("a", "flips.share('S10') <= 0.5"))
    assert run.ret == 1
    run.result.stdout.fnmatch_lines(
        ["release.claims.toml:4: GrammarError: flips(dense, p) compares unrelated datasets: toy, toy"]
    )
    assert run.statuses == {"a": "failed"}


@pytest.mark.parametrize("name", ["setup_module", "teardown_function", "setUpModule", "Test", "obj"])
def test_a_name_means_nothing_but_a_name(gate: Suite, name: str) -> None:
    run = gate(claim(name, "pruned.accuracy() >= 0.5") + claim("b", "pruned.accuracy() >= 0.5"))
    assert run.ret == 0
    assert run.statuses == {name: "passed", "b": "passed"}


def test_reruns_are_refused(gate: Suite, pytester: pytest.Pytester) -> None:
    conftest = (pytester.path / "conftest.py").read_text()
    option = "\ndef pytest_addoption(parser):\n    parser.addoption('--reruns', type=int, default=0)\n"
    (pytester.path / "conftest.py").write_text(conftest + option)
    run = gate(claim("a", "pruned.accuracy() >= 0.5"), "--reruns=2")
    assert run.ret == 2
    run.result.stdout.fnmatch_lines(["release.claims.toml:2:1: --reruns is refused: *"])


def test_without_the_plugin_and_under_other_names_the_file_is_nothing(pytester: pytest.Pytester) -> None:
    file = pytester.path / "a.claims.toml"
    file.write_text("this is no TOML")
    assert pytester.runpytest_inprocess("-p", "no:prunerob").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.INTERRUPTED
    file.rename(pytester.path / "claims.toml")
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.NO_TESTS_COLLECTED
