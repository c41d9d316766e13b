"""xfail on a claim accepts a refuted verdict and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Suite

FALSE = "pruned.robust_accuracy(P) >= 0.6"
TRUE = "pruned.robust_accuracy(P) >= 0.5"
UNDECIDED = "flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6"  # no sample flips, so there is no AUC
ERROR = "pruned.robust_accuracy(autoattack(['apgd-ce'], norm='linf', eps='0.1')) >= wrong.robust_accuracy(P)"


def test_refuted_is_what_xfail_accepts(suite: Suite) -> None:
    run = suite(
        f"""
        @cells(method=["a", "b"], sparsity="0.5", xfail={{"a-*": "known weak"}})
        def test_glob(pruned, cell):
            assert pruned.robust_accuracy(P) >= (0.6 if cell.method == "a" else 0.5)

        @pytest.mark.xfail(reason="known", strict=True)
        @cells()
        def test_marked(pruned):
            assert {FALSE}

        @pytest.mark.xfail(reason="known", strict=False)
        @cells()
        def test_not_strict(pruned):
            assert {FALSE}

        @pytest.mark.xfail(raises=AssertionError)
        @cells()
        def test_raises(pruned):
            assert {FALSE}

        @pytest.mark.xfail
        @cells()
        def test_second_claim(pruned):
            assert {TRUE}
            assert {FALSE}

        @pytest.mark.xfail
        @cells()
        def test_swallowed(pruned):
            assert not {FALSE}

        @cells()
        def test_called(pruned):
            try:
                assert {FALSE}
            except AssertionError:
                pytest.xfail("known")

        @pytest.mark.xfail(reason="may do better")
        @cells()
        def test_not_strict_and_supported(pruned):
            assert {TRUE}
        """
    )
    assert run.ret == 0
    run.result.assert_outcomes(xfailed=7, passed=1, xpassed=1)
    results = run.results
    assert {claim["expected"] for claim in results["claims"] if claim["cell"].endswith("[a-s0.50]")} == {"refuted"}
    assert [claim["expected"] for claim in results["claims"] if claim["cell"].endswith("[b-s0.50]")] == ["supported"]
    called = [claim for claim in results["claims"] if "test_called" in claim["id"]]
    assert [(claim["verdict"], claim["expected"]) for claim in called] == [("refuted", "refuted")]
    run.result.stdout.fnmatch_lines(["✗ refuted (as expected)  test_suite.py::test_glob?a-s0.50?#1 *margin −0.1, n=40"])
    run.result.stdout.no_fnmatch_line("*(expected: supported)*")


def test_nothing_else_is_accepted(suite: Suite) -> None:
    run = suite(
        f"""
        pytestmark = pytest.mark.xfail(reason="negative control")

        @pytest.fixture
        def wrong(make_subject, dense_model):
            return make_subject(dense_model.train(), "wrong")

        @pytest.fixture
        def broken(pruned):
            raise ValueError("in a fixture")

        @pytest.fixture
        def breaks_late(pruned):
            yield
            raise ValueError("in a teardown")

        @cells()
        def test_inconclusive(dense, pruned):
            assert {UNDECIDED}

        @cells()
        def test_error(pruned, wrong):
            assert {ERROR}

        @cells()
        def test_typo(pruned):
            assert pruned.robust_acuracy(P) >= 0.6

        @cells()
        def test_name(pruned):
            assert prunned.robust_accuracy(P) >= 0.6

        @cells()
        def test_bad_plan(pruned):
            assert pruned.robust_accuracy(pgd(norm="linf", eps="x", steps=1, step_size=1)) >= 0.6

        @cells()
        def test_no_claim(pruned):
            pass

        @cells()
        def test_plain_assert(pruned):
            assert 1 == 2

        @cells()
        def test_supported_then_plain_assert(pruned):
            assert {TRUE}
            assert 1 == 2

        @cells()
        def test_not_judged(pruned):
            {FALSE}

        @cells()
        def test_broken_fixture(broken):
            assert {FALSE}

        @cells()
        def test_breaks_late(pruned, breaks_late):
            assert {FALSE}

        @cells()
        def test_refuted_then_typo(pruned):
            with contextlib.suppress(AssertionError):
                assert {FALSE}
            prunned

        @cells()
        def test_refuted_then_inconclusive(dense, pruned):
            with contextlib.suppress(AssertionError):
                assert {FALSE}
            assert {UNDECIDED}

        @pytest.mark.xfail(raises=TypeError)
        @cells()
        def test_bare_quantity(pruned):
            assert pruned.robust_accuracy(P)

        @pytest.mark.xfail(run=False)
        @cells()
        def test_not_run(pruned):
            assert {FALSE}

        @cells()
        def test_called_without_a_claim(pruned):
            pytest.xfail("later")

        @cells()
        def test_called_before_it_is_judged(pruned):
            claim = {FALSE}
            pytest.xfail("later")
        """
    )
    assert run.ret == 1
    assert run.result.parseoutcomes().get("passed", 0) == 0
    statuses = run.statuses
    expected = {
        "test_broken_fixture": "error",
        "test_breaks_late": "error",
        "test_not_run": "error",
        "test_inconclusive": "inconclusive",
    }
    assert statuses == {name: expected.get(name, "failed") for name in statuses}
    assert len(statuses) == 17
    run.result.stdout.fnmatch_lines(
        [
            "xfail accepts only a refuted claim, and this test got to none: ValueError: in a fixture",
            "xfail accepts only a refuted claim: ValueError: in a teardown",
            "xfail accepts only a refuted claim: NameError: name 'prunned' is not defined",
            "test_suite.py:*: PlanError: eps='x' is not a number*",
            "xfail accepts only a refuted claim: INCONCLUSIVE: flips(dense, pruned).auc_s10(*",
        ]
    )


@pytest.mark.parametrize(
    "test",
    [
        f'@cells(xfail={{"*": "weak"}})\ndef test_it(pruned):\n    assert {TRUE}',
        f"@pytest.mark.xfail(strict=True)\n@cells()\ndef test_it(pruned):\n    assert {TRUE}",
        f"@pytest.mark.xfail(raises=ValueError)\n@cells()\ndef test_it(pruned):\n    assert {FALSE}",
        f"@pytest.mark.xfail(False, reason='elsewhere')\n@cells()\ndef test_it(pruned):\n    assert {FALSE}",
    ],
    ids=["cells", "strict", "raises another", "condition is false"],
)
def test_xfail_that_does_not_hold_fails(suite: Suite, test: str) -> None:
    run = suite(test)
    assert run.ret == 1
    run.result.assert_outcomes(failed=1)


def test_the_expected_verdict_follows_the_condition(suite: Suite) -> None:
    run = suite(f"@pytest.mark.xfail(False, reason='elsewhere')\n@cells()\ndef test_it(pruned):\n    assert {TRUE}")
    assert run.ret == 0
    assert [(claim["verdict"], claim["expected"]) for claim in run.results["claims"]] == [("supported", "supported")]


def test_xfail_patterns_without_a_cell_are_refused(suite: Suite) -> None:
    run = suite('@cells(method=["a", "b"], xfail={"c*": "why"})\ndef test_it(pruned):\n    pass')
    assert run.ret == 2
    run.result.stdout.fnmatch_lines(["*xfail pattern 'c[*]' matches no cell: the cells are a, b*"])
