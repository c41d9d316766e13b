"""A break that only the audit found is not lost with its segment: the audit is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_prunerob import auditing
from pytest_prunerob.adequacy import Audit
from pytest_prunerob.engine import Result
from pytest_prunerob.measurement import Measurement
from tests.faults import tiny


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Audits that break the first survivor; the list tells on whom each was made."""
    made: list[tuple[int, ...]] = []

    def find(measurement: Measurement, level: str) -> Audit:
        places = auditing.chosen(measurement)
        made.append(places)
        x = measurement.prepared.data.x[list(places)]
        result = Result(tiny.Cost(1, 1), {0: 0.045}, witness=1 - x[:1].numpy())
        return Audit((), ((1, result),)) if places else Audit()

    monkeypatch.setattr(auditing, "_made", find)
    return made


def audited(root: Path, mode: tiny.Mode = "rw") -> tiny.Measurement:
    found: tiny.Measurement = tiny.measured(tiny.bench(root, mode, tiny.Scripted("cpu", 250, 0)))
    auditing.audited(found, "basic")
    return found


def test_19_a_damaged_break_of_the_audit_is_found_again(audits: list[tuple[int, ...]], tmp_path: Path) -> None:
    assert 4 in audited(tmp_path).ledger.broken
    assert (4 in audited(tmp_path).ledger.broken, len(audits)) == (True, 1)
    before = set(tmp_path.rglob("seg-*"))
    (segment,) = [p for p in before if b'"unit": [1, 1]' in p.read_bytes() and b'"broken": [[4' in p.read_bytes()]
    segment.write_bytes(segment.read_bytes()[:-1] + b" ")
    again = audited(tmp_path)
    assert 4 in again.ledger.broken
    assert len(audits) == 2
    store = again.prepared.bench.store
    assert any("it is not the audit of what survives now" in line for line in store.quarantined)
    assert 4 in audited(tmp_path, "ro").ledger.broken
    assert len(audits) == 2


def test_22_a_process_that_meets_the_audit_of_another_takes_its_breaks_too(
    audits: list[tuple[int, ...]], tmp_path: Path
) -> None:
    late: tiny.Measurement = tiny.measured(tiny.bench(tmp_path, engine=tiny.Scripted("cpu", 250, 0)))
    audited(tmp_path)
    assert 4 in late.ledger.survived
    auditing.audited(late, "basic")
    assert 4 in late.ledger.broken
    assert len(audits) == 1
    assert late.prepared.bench.store.quarantined == []
