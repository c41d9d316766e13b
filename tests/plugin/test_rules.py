"""A test passes only if every claim it built was judged and is supported: each way around that must fail."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

PGD = "pgd 2 steps of 0.0525, no random start, linf, ε=0.0525"

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

# At this ε the dense model keeps 0.75 of the samples and the pruned one 0.5.
TRUE = "pruned.robust_accuracy(P) >= 0.5"
FALSE = "pruned.robust_accuracy(P) >= 0.6"

HONEST = {
    "plain": f"assert {TRUE}",
    "several": f"assert {TRUE}\nassert dense.robust_accuracy(P) <= 0.75\nassert dense.accuracy() > 0.99",
    "stored": f"c = {TRUE}\nassert c",
    "twice": f"c = {TRUE}\nassert c\nassert c",
    "message": f"assert {TRUE}, 'why'",
    "and": f"assert {TRUE} and dense.robust_accuracy(P) >= 0.75",
    "all": f"assert all([{TRUE}, dense.robust_accuracy(P) >= 0.75])",
    "chained": "assert 0.45 <= pruned.robust_accuracy(P) <= 0.5",
    "reflected": "assert 0.5 <= pruned.robust_accuracy(P)",
    "paired": "assert pruned.robust_accuracy(P) >= dense.robust_accuracy(P) - 0.25",
    "linear": "assert 2 * pruned.robust_accuracy(P) - dense.robust_accuracy(P) + 0.75 >= 1",
    "within": "assert within(pruned.robust_accuracy(P), 0.45, 0.05)",
    "within a quantity": "assert within(pruned.robust_accuracy(P), dense.robust_accuracy(P), 0.25)",
    "control flow": f"if float(dense.robust_accuracy(P)) > 0.7:\n    assert {TRUE}",
    "loop": f"for _ in range(2):\n    assert {TRUE}",
    "no assert statement": f"bool({TRUE})",
    "try around nothing": f"try:\n    assert {TRUE}\nfinally:\n    pass",
}

# Body of the test, and what the failure says.
EVASIONS = {
    "plain": (f"assert {FALSE}", "REFUTED: pruned.robust_accuracy"),
    "stored": (f"c = {FALSE}\nassert c", "REFUTED: pruned.robust_accuracy"),
    "message": (f"assert {FALSE}, 'why'", "REFUTED: pruned.robust_accuracy"),
    "and": (f"assert {TRUE} and {FALSE}", "REFUTED: pruned.robust_accuracy"),
    "not": (f"assert not {FALSE}", "REFUTED: pruned.robust_accuracy"),
    "not stored": (f"c = {FALSE}\nassert not c", "REFUTED: pruned.robust_accuracy"),
    "or": (f"assert {FALSE} or True", "REFUTED: pruned.robust_accuracy"),
    "or claim": (f"assert {FALSE} or {TRUE}", "REFUTED: pruned.robust_accuracy"),
    "any": (f"assert any([{FALSE}, {TRUE}])", "REFUTED: pruned.robust_accuracy"),
    "any short circuit": (f"assert any([{TRUE}, {FALSE}])", "was made and not judged"),
    "all": (f"assert all([{TRUE}, {FALSE}])", "REFUTED: pruned.robust_accuracy"),
    "not all": (f"assert not all([{TRUE}, {FALSE}])", "REFUTED: pruned.robust_accuracy"),
    "tuple": (f"t = ({FALSE}, 'always true')\nassert t", "was made and not judged"),
    "filter": (f"assert list(filter(None, [{FALSE}, 1]))", "REFUTED: pruned.robust_accuracy"),
    "is not None": (f"assert ({FALSE}) is not None", "was made and not judged"),
    "if": (f"if {FALSE}:\n    pass", "REFUTED: pruned.robust_accuracy"),
    "if else": (f"assert True if {FALSE} else True", "REFUTED: pruned.robust_accuracy"),
    "while": (f"while {FALSE}:\n    pass", "REFUTED: pruned.robust_accuracy"),
    "try except": (f"try:\n    assert {FALSE}\nexcept AssertionError:\n    pass", "REFUTED: pruned.robust_accuracy"),
    "bare except": (f"try:\n    assert {FALSE}\nexcept:\n    pass", "REFUTED: pruned.robust_accuracy"),
    "finally return": (f"try:\n    assert {FALSE}\nfinally:\n    return", "REFUTED: pruned.robust_accuracy"),
    "suppress": (f"with contextlib.suppress(AssertionError):\n    assert {FALSE}", "REFUTED: pruned.robust_accuracy"),
    "raises": (f"with pytest.raises(AssertionError):\n    assert {FALSE}", "REFUTED: pruned.robust_accuracy"),
    "raises exception": (f"with pytest.raises(Exception):\n    assert {FALSE}", "REFUTED: pruned.robust_accuracy"),
    "max": (
        f"q = max(dense.robust_accuracy(P), pruned.robust_accuracy(P))\nassert q >= 0.7\nassert {TRUE}",
        f"REFUTED: pruned.robust_accuracy({PGD}) > dense.robust_accuracy",
    ),
    "min": (
        "q = min(pruned.robust_accuracy(P), dense.robust_accuracy(P))\nassert q >= 0.4",
        f"REFUTED: dense.robust_accuracy({PGD}) < pruned.robust_accuracy",
    ),
    "sorted": (
        f"sorted([dense.robust_accuracy(P), pruned.robust_accuracy(P)], reverse=True)\nassert {TRUE}",
        f"REFUTED: dense.robust_accuracy({PGD}) < pruned.robust_accuracy",
    ),
    "chained": ("assert 0.45 <= pruned.robust_accuracy(P) <= 0.49", "REFUTED: pruned.robust_accuracy"),
    "not chained": ("assert not 0.45 <= pruned.robust_accuracy(P) <= 0.49", "REFUTED: pruned.robust_accuracy"),
    "forgotten assert": (f"{FALSE}", "was made and not judged"),
    "forgotten after true": (f"assert {TRUE}\n{FALSE}", "was made and not judged"),
    "forgotten though true": (f"{TRUE}", "was made and not judged: write 'assert' before it"),
    "within": ("within(pruned.robust_accuracy(P), 0.4, 0.05)", "was made and not judged"),
    "bare quantity": ("assert pruned.robust_accuracy(P)", "is a quantity, not a claim"),
    "bare quantity beside a claim": (f"assert {TRUE}\nassert dense.accuracy()", "is a quantity, not a claim"),
    "equals": (f"assert {TRUE}\nassert pruned.robust_accuracy(P) == 0.5", "use within("),
    "not equal": (f"assert {TRUE}\nassert pruned.robust_accuracy(P) != 0.6", "use a comparison"),
    "approx": (f"assert {TRUE}\nassert pruned.robust_accuracy(P) == approx(0.5)", "use within("),
    "approx first": (f"assert {TRUE}\nassert approx(0.6) == pruned.robust_accuracy(P)", "use within("),
    "approx not equal": (f"assert {TRUE}\nassert approx(0.5) != pruned.robust_accuracy(P)", "use"),
    "in a list": (f"assert {TRUE}\nassert pruned.robust_accuracy(P) in [0.5]", "use within("),
    "claim equals": (f"assert ({FALSE}) == False", "claims are not compared"),
    "claim not equal": (f"assert ({FALSE}) != True", "claims are not combined"),
    "claim negated": (f"assert ~({FALSE})", "claims are not combined"),
    "claims or": (f"assert ({FALSE}) | ({TRUE})", "claims are not combined"),
    "claim is": (f"assert ({FALSE}) is False", ""),
    "not linear": ("assert pruned.accuracy() * pruned.accuracy() >= 0.5", "quantities support + - and *"),
    "division": ("assert pruned.accuracy() / dense.accuracy() >= 0.5", "quantities support + - and *"),
    "abs": ("assert abs(pruned.accuracy() - dense.accuracy()) <= 0.5", "quantities support + - and *"),
    "nothing": ("pass", "the test made no claim"),
    "nothing but float": ("assert float(pruned.robust_accuracy(P)) == 0.5", "the test made no claim"),
    "approx of float": ("assert float(pruned.accuracy()) == approx(1.0)", "the test made no claim"),
    "return before": (
        f"if float(dense.robust_accuracy(P)) > 0.1:\n    return\nassert {TRUE}",
        "the test made no claim",
    ),
    "skip after": (
        f"try:\n    assert {FALSE}\nexcept AssertionError:\n    pytest.skip('no')",
        "REFUTED: pruned.robust_accuracy",
    ),
    "skip unjudged": (f"c = {FALSE}\npytest.skip('no')", "was made and not judged"),
    "helper": (f"def helper():\n    return {FALSE}\nhelper()", "was made and not judged"),
    "helper swallowing": (
        f"def helper():\n    try:\n        assert {FALSE}\n    except Exception:\n        pass\nhelper()",
        "REFUTED: pruned.robust_accuracy",
    ),
    "thread": (
        f"import threading\ndef run():\n    try:\n        assert {FALSE}\n    except AssertionError:\n        pass\n"
        "t = threading.Thread(target=run)\nt.start()\nt.join()",
        "REFUTED: pruned.robust_accuracy",
    ),
    "patched": (f"c = {FALSE}\nassert c or c.verdict", "REFUTED: pruned.robust_accuracy"),
    "generator": (f"def g():\n    yield {FALSE}\nassert [c for c in g()]", "was made and not judged"),
    "exit": (f"c = {FALSE}\nassert not c\npytest.exit('done', returncode=0)", ""),
}


def test_function(body: str) -> str:
    return "@cells()\ndef test_it(dense, pruned):\n" + textwrap.indent(body, "    ")


test_function.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", HONEST.values(), ids=HONEST)
def test_honest_forms_pass(suite: Suite, body: str) -> None:
    run = suite(test_function(body))
    run.result.assert_outcomes(passed=1)
    assert run.ret == 0
    assert {verdict for _, verdict in run.verdicts} == {"supported"}


@pytest.mark.parametrize(("body", "says"), EVASIONS.values(), ids=EVASIONS)
def test_no_way_around_a_claim(suite: Suite, body: str, says: str) -> None:
    run = suite(test_function(body))
    assert run.ret != 0
    assert run.result.parseoutcomes().get("passed", 0) == 0
    assert says in run.out


def test_claims_outside_the_test_function(suite: Suite) -> None:
    run = suite(
        """
        KEPT = []

        @pytest.fixture
        def judged(pruned):
            assert pruned.robust_accuracy(P) >= 0.6

        @pytest.fixture
        def judged_true(pruned):
            assert pruned.robust_accuracy(P) >= 0.5

        @pytest.fixture
        def swallowed(pruned):
            with contextlib.suppress(AssertionError):
                assert pruned.robust_accuracy(P) >= 0.6

        @pytest.fixture
        def handed_on(pruned):
            return pruned.robust_accuracy(P) >= 0.6

        @pytest.fixture
        def late(pruned):
            yield
            with contextlib.suppress(AssertionError):
                assert pruned.robust_accuracy(P) >= 0.6

        @pytest.fixture
        def late_judged(pruned):
            claim = pruned.robust_accuracy(P) >= 0.6
            yield
            with contextlib.suppress(AssertionError):
                assert claim

        @cells()
        def test_a_judged(judged, dense):
            assert dense.accuracy() >= 1

        @cells()
        def test_b_swallowed(swallowed, dense):
            assert dense.accuracy() >= 1

        @cells()
        def test_c_handed_on(handed_on, dense):
            assert dense.accuracy() >= 1

        @cells()
        def test_d_handed_on_judged(handed_on):
            assert handed_on

        @cells()
        def test_e_late(late, dense):
            assert dense.accuracy() >= 1

        @cells()
        def test_f_late_judged(late_judged, dense):
            assert dense.accuracy() >= 1

        @cells()
        def test_g_keeps(pruned):
            KEPT.append(pruned.robust_accuracy(P) >= 0.6)
            KEPT.append(pruned.robust_accuracy(P))

        @cells()
        def test_h_judges_the_kept(dense):
            with contextlib.suppress(AssertionError):
                assert KEPT[0]

        @cells()
        def test_i_claims_with_the_kept(dense):
            assert KEPT[1] >= 0.5

        @cells()
        def test_j_combines_with_the_kept(dense):
            assert dense.accuracy() >= 1
            assert dense.accuracy() - KEPT[1] >= 0

        @cells()
        def test_k_judged_true(judged_true):
            pass
        """
    )
    assert run.ret == 1
    assert run.statuses == {
        "test_a_judged": "error",
        "test_b_swallowed": "failed",
        "test_c_handed_on": "failed",
        "test_d_handed_on_judged": "failed",
        "test_e_late": "error",
        "test_f_late_judged": "failed",
        "test_g_keeps": "failed",
        "test_h_judges_the_kept": "failed",
        "test_i_claims_with_the_kept": "failed",
        "test_j_combines_with_the_kept": "failed",
        "test_k_judged_true": "passed",
    }
    run.result.stdout.fnmatch_lines([f"*'pruned.robust_accuracy({PGD}) >= 0.6' was made after its test had ended*"])


def test_tests_that_are_no_plain_functions(suite: Suite) -> None:
    run = suite(
        """
        class TestClass:
            @cells()
            def test_method(self, pruned):
                assert pruned.robust_accuracy(P) >= 0.5

            @cells()
            def test_swallowing(self, pruned):
                assert not pruned.robust_accuracy(P) >= 0.6

        @cells(method=["b", "a"])
        @pytest.mark.parametrize("eps", ["0.0525", "0.2"])
        def test_with_parameters(pruned, cell, eps):
            plan = pgd(norm="linf", eps=eps, steps=1, step_size=eps, random_start=False)
            assert pruned.robust_accuracy(plan) <= 0.5

        @cells()
        def test_without_subjects():
            assert True
        """
    )
    assert run.ret == 1
    assert {(cell["id"].partition("::")[2], cell["status"]) for cell in run.results["cells"]} == {
        ("TestClass::test_method[cell]", "passed"),
        ("TestClass::test_swallowing[cell]", "failed"),
        ("test_with_parameters[a-0.0525]", "passed"),
        ("test_with_parameters[b-0.0525]", "passed"),
        ("test_with_parameters[a-0.2]", "passed"),
        ("test_with_parameters[b-0.2]", "passed"),
        ("test_without_subjects[cell]", "failed"),
    }


@pytest.mark.parametrize(
    "test",
    [
        "async def test_it(pruned):\n    assert not pruned.robust_accuracy(P) >= 0.6",
        "def test_it(pruned):\n    assert not pruned.robust_accuracy(P) >= 0.6\n    yield",
        "def test_it(pruned):\n    return pruned.robust_accuracy(P) >= 0.6",
    ],
    ids=["async", "generator", "return"],
)
@pytest.mark.filterwarnings("default")
def test_no_way_around_a_claim_by_another_kind_of_function(suite: Suite, test: str) -> None:
    run = suite("@cells()\n" + test)
    assert run.ret != 0
    assert run.result.parseoutcomes().get("passed", 0) == 0


@pytest.mark.slow
def test_optimised_python_keeps_the_rules(
    suite: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    pytester.makepyfile(helper="def check(quantity):\n    assert quantity >= 0.6\n")
    run = suite(
        """
        from helper import check

        @cells()
        def test_false(pruned):
            assert pruned.robust_accuracy(P) >= 0.6

        @cells()
        def test_true(pruned):
            assert pruned.robust_accuracy(P) >= 0.5

        @cells()
        def test_assert_removed(pruned):
            check(pruned.robust_accuracy(P))
        """,
        subprocess=True,
    )
    assert run.ret == 1
    assert run.statuses == {"test_false": "failed", "test_true": "passed", "test_assert_removed": "failed"}


@pytest.mark.parametrize(
    ("option", "marker"), [("--reruns=2", ""), ("--retries=1", ""), ("--reruns=0", "@pytest.mark.flaky(reruns=3)")]
)
def test_reruns_are_refused_for_claims_only(suite: Suite, pytester: pytest.Pytester, option: str, marker: str) -> None:
    pytester.makepyfile(
        rerunner="def pytest_addoption(parser):\n    parser.addoption('--reruns', type=int, default=0)\n"
        "    parser.addoption('--retries', type=int, default=0)\n"
        "def pytest_configure(config):\n    config.addinivalue_line('markers', 'flaky: runs again')\n"
    )
    claim = f"{marker}\n@cells()\ndef test_it(pruned):\n    assert pruned.robust_accuracy(P) >= 0.5"
    pytester.syspathinsert()
    refused = suite(claim, "-p", "rerunner", option)
    assert refused.ret == 2
    assert "is refused: running a claim until it is supported is no evidence for it" in refused.out
    plain = suite(f"{marker}\ndef test_it():\n    pass", "-p", "rerunner", option)
    assert plain.ret == 0
    assert suite(claim.replace(marker, ""), "-p", "rerunner", "--reruns=0").ret == 0


def test_skipping_before_a_claim_stays_a_skip(suite: Suite) -> None:
    run = suite(
        """
        @pytest.mark.skip
        @cells()
        def test_marked(pruned):
            pass

        @cells()
        def test_called(pruned):
            pytest.skip("no")

        @cells()
        def test_after_support(pruned):
            assert pruned.robust_accuracy(P) >= 0.5
            pytest.skip("no")
        """
    )
    assert run.ret == 0
    assert set(run.statuses.values()) == {"skipped"}
