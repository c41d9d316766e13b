"""The rules of a running claim test: it passes only if every claim it made was judged and is supported."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from pytest_prunerob.errors import BudgetSpentError, PrunerobError
from pytest_prunerob.plugin import texts
from pytest_prunerob.plugin.collection import grid_of
from pytest_prunerob.plugin.payload import payload
from pytest_prunerob.plugin.stash import EVALUATION, OPTIONS

ATTRIBUTE = "prunerob"  # of a report: the payload as one JSON string, the only thing that survives every transport

PLANNED = "prunerob_planned"  # of the report of a setup: tells the controller that a verdict is to follow


def is_claim_test(item: pytest.Item) -> bool:
    """Whether ``item`` is decorated with ``cells(...)`` or has subjects."""
    return grid_of(item) is not None or EVALUATION in item.stash


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that returned although a claim of it is not supported or was not judged, or that made none.

    This is the innermost wrapper: whatever the function did with its claims (``not``, ``or``, ``try``, ``raises``), it
    ends here when it returns.
    """
    result = yield
    if is_claim_test(pyfuncitem):
        problem = _swallowed(pyfuncitem)
        if problem:
            pytest.fail(problem, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the verdicts on the report, make the failure text from them, and keep ``xfail`` to refuted claims."""
    report = yield
    if not is_claim_test(item):
        if call.when == "setup":  # a test that asks for a claim fixture and has no grid
            _plain_errors(item, call, report)
        return report
    if call.when == "teardown":
        if report.skipped and hasattr(report, "wasxfail"):
            _fail(report, f"xfail accepts only a refuted claim: {_what_happened(call)}")
        return report
    data = payload(item, _expected(item, call, report))
    _expect_what_held_before(data["claims"])
    if call.when == "call":
        evaluation = item.stash.get(EVALUATION, None)
        if evaluation is not None:
            evaluation.close()
        interrupted = evaluation.interrupted if evaluation is not None else ""
        data["undecided"] = _judge_report(item, call, report, data["claims"], interrupted)
    elif report.skipped and hasattr(report, "wasxfail"):
        _fail(report, f"xfail accepts only a refuted claim, and this test got to none: {_what_happened(call)}")
    if call.when == "setup" and call.excinfo is not None and call.excinfo.errisinstance(BudgetSpentError):
        data["undecided"], data["cut"]["tests"] = True, 1
        _undecided_report(item, report, f"INCONCLUSIVE: {call.excinfo.value}; run again to go on")
    _plain_errors(item, call, report)
    if call.when == "call" or report.outcome != "passed":
        setattr(report, ATTRIBUTE, json.dumps(data, allow_nan=False))
    else:
        setattr(report, PLANNED, True)
    return report


def _expected(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    """The verdict that the test asks for: "refuted" where an xfail applied, whether or not it came true."""
    passed_strictly = report.failed and call.excinfo is None and item.get_closest_marker("xfail") is not None
    return "refuted" if hasattr(report, "wasxfail") or passed_strictly else "supported"


def _expect_what_held_before(claims: list[dict[str, Any]]) -> None:
    """One refuted claim fulfils an xfail: those that were supported before it may be."""
    if any(claim["verdict"] == "refuted" for claim in claims):
        for claim in claims:
            if claim["verdict"] == "supported":
                claim["expected"] = "supported"


def _judge_report(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    report: pytest.TestReport,
    claims: list[dict[str, Any]],
    interrupted: str,
) -> bool:
    """Make the outcome and the failure text from the verdicts; say whether the test is undecided for want of more."""
    if interrupted:  # it did not get a number that it asked for: whatever it did then is no evidence, for xfail neither
        decided = [claim for claim in claims if claim["verdict"] in ("refuted", "error")]
        if decided:
            report.__dict__.pop("wasxfail", None)
            report.outcome, report.longrepr = "failed", texts.failure(decided)
        else:
            _undecided_report(item, report, f"INCONCLUSIVE: {interrupted}; run again to go on")
        return not decided
    verdicts = {claim["verdict"] for claim in claims}
    bad = verdicts - {"supported"}
    from_claims = call.excinfo is None or call.excinfo.errisinstance(
        (AssertionError, pytest.fail.Exception, pytest.skip.Exception)
    )
    undecided = bad == {"inconclusive"} and from_claims
    if report.skipped and hasattr(report, "wasxfail"):
        imperative = call.excinfo is not None and call.excinfo.errisinstance(pytest.xfail.Exception)
        if bad != {"refuted"} or not (from_claims or imperative):
            other = [claim for claim in claims if claim["verdict"] != "refuted"]
            found = texts.failure(other) if bad - {"refuted"} else _what_happened(call)
            _fail(report, f"xfail accepts only a refuted claim: {found}")
        else:
            report.longrepr = texts.failure(claims)
        return undecided
    if report.skipped and (problem := _unsupported(item)):
        report.outcome, report.longrepr = "failed", problem
    if not report.failed or not bad or not from_claims:
        return undecided
    text = texts.failure(claims)
    report.longrepr = text
    if undecided:
        _undecided_report(item, report, text)
    return undecided


def _undecided_report(item: pytest.Item, report: pytest.TestReport, text: str) -> None:
    """An undecided test fails, unless ``--prunerob-inconclusive`` asks for less and no xfail wants it refuted."""
    report.__dict__.pop("wasxfail", None)
    report.outcome, report.longrepr = "failed", text
    choice = item.config.stash[OPTIONS].inconclusive
    if choice != "fail" and item.get_closest_marker("xfail") is None:
        report.outcome = "skipped"
        if choice == "xfail":
            report.wasxfail = text.splitlines()[0]
        else:
            report.longrepr = (str(item.path), (item.location[1] or 0) + 1, text)


def _swallowed(item: pytest.Item) -> str:
    """Why a test that returned must not pass, or the empty string."""
    evaluation = item.stash.get(EVALUATION, None)
    claims = evaluation.claims if evaluation is not None else []
    if evaluation is not None and evaluation.interrupted:
        return evaluation.interrupted
    if not claims:
        return "the test made no claim: compare a quantity, such as 'assert pruned.accuracy() >= 0.9'"
    return _unsupported(item)


def _unsupported(item: pytest.Item) -> str:
    """The first claim that stands in the way of anything but a failure, or the empty string."""
    evaluation = item.stash.get(EVALUATION, None)
    claims = evaluation.claims if evaluation is not None else []
    unjudged = [claim for claim in claims if claim.verdict is None]
    if unjudged:
        return f"the claim '{unjudged[0].text}' was made and not judged: write 'assert' before it"
    bad = [claim for claim in claims if claim.verdict is not None and claim.verdict.status != "supported"]
    if bad and bad[0].verdict is not None:
        return f"the claim '{bad[0].text}' is {bad[0].verdict.status}, whatever the test did with it"
    return ""


def _what_happened(call: pytest.CallInfo[None]) -> str:
    if call.excinfo is None:
        return "no claim was refuted"
    return f"{call.excinfo.typename}: {str(call.excinfo.value).splitlines()[0] if str(call.excinfo.value) else ''}"


def _plain_errors(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Our own errors are one sentence with the place in the user's file; ``--full-trace`` shows the rest."""
    if call.excinfo is None or not report.failed or item.config.getoption("fulltrace", False):
        return
    error = call.excinfo.value
    if isinstance(error, PrunerobError) and not isinstance(error, BudgetSpentError):
        places = [entry for entry in call.excinfo.traceback if str(entry.path) == str(item.path)]
        where = f"{item.path.name}:{places[-1].lineno + 1}: " if places else ""
        report.longrepr = f"{where}{type(error).__name__}: {error}"


def _fail(report: pytest.TestReport, text: str) -> None:
    report.outcome = "failed"
    del report.wasxfail
    report.longrepr = text
