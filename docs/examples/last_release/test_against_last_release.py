"""The release gate against the last release: both are exported programs, no model code is needed here."""

from __future__ import annotations

import pytest

from pytest_prunerob import autoattack, cells, load_reference

AUTOATTACK = autoattack(["apgd-ce", "apgd-t"], norm="linf", eps="8/255")
NEXT = {"dataset": "npz:test.npz", "pruned": "next.pt2"}


@pytest.fixture
def last(make_subject, request):
    return make_subject(load_reference("last.pt2", root=request.config.rootpath), "last")


@cells(**NEXT, samples=60)
def test_no_less_robust_than_the_last_release(pruned, last):
    assert pruned.robust_accuracy(AUTOATTACK) >= last.robust_accuracy(AUTOATTACK) - 0.03


@cells(**NEXT)
def test_no_less_accurate_than_the_last_release(pruned, last):
    assert pruned.accuracy() >= last.accuracy() - 0.01
