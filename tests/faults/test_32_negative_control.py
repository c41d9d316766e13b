"""A negative control, which is expected to be refuted, is satisfied by nothing but a refuted claim."""

from __future__ import annotations

from datetime import date

import pytest

from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.report.gate import deviations
from tests.plugin.conftest import Suite

CONTROL = """
@cells(xfail={{"*": "negative control: the pruned model is not that robust"}})
def test_control(dense, pruned):
    {body}
"""

REFUTED = "assert pruned.robust_accuracy(P) >= 0.6"
NOT_REFUTED = {
    "typo": ("assert pruned.robust_acuracy(P) >= 0.6", "failed", "AttributeError"),
    "typo of a name": ("assert prunned.robust_accuracy(P) >= 0.6", "failed", "NameError"),
    "typo of an attack": (
        "assert pruned.robust_accuracy(autoattack(['apgd-cee'], norm='linf', eps='0.1')) >= 0.6",
        "failed",
        "PlanError",
    ),
    "inconclusive": (
        "assert flips(dense, pruned).auc_s10(by=fmn(steps=2)) >= 0.6",  # no sample flips, so there is no AUC
        "inconclusive",
        "INCONCLUSIVE",
    ),
    "supported": ("assert pruned.robust_accuracy(P) >= 0.5", "failed", "XPASS(strict)"),
    "no claim": ("assert 1 == 2", "failed", "assert 1 == 2"),
}


def test_32_a_refuted_control_passes(suite: Suite) -> None:
    run = suite(CONTROL.format(body=REFUTED))
    assert run.ret == 0
    assert run.statuses == {"test_control": "xfailed"}
    lock = lock_of(run.results)
    assert [claim["expected"] for claim in lock["claims"].values()] == ["refuted"]


@pytest.mark.parametrize(("body", "status", "says"), NOT_REFUTED.values(), ids=NOT_REFUTED)
def test_32_a_control_that_is_not_refuted_fails(suite: Suite, body: str, status: str, says: str) -> None:
    lock = lock_of(suite(CONTROL.format(body=REFUTED)).results)
    run = suite(CONTROL.format(body=body))
    assert run.ret == 1
    assert run.statuses == {"test_control": status}
    assert says in run.out
    assert deviations(run.results, lock, date(2026, 11, 21))
