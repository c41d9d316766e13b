"""The audit of a measurement whose survivors are to count: made once, kept in the store, its breaks joined.

A break that the audit finds is a witness like any other: it becomes a segment of the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from typing import Any, Literal

from torch import Tensor

from pytest_prunerob import adequacy
from pytest_prunerob.adequacy import (
    FULL,
    Audit,
    Case,
    Check,
    audit_distances,
    audit_fully,
    audit_plan,
    audit_steps,
    how_many,
    how_many_distances,
)
from pytest_prunerob.adequacy.check import FEWEST
from pytest_prunerob.adequacy.distances import rerun
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.engine import Result
from pytest_prunerob.fingerprint import fingerprint, sources
from pytest_prunerob.ledger import Segment
from pytest_prunerob.measurement import Measurement

AuditLevel = Literal["basic", "full"]


def audited(measurement: Measurement, level: AuditLevel) -> Audit:
    """The indicators of the attacks of ``measurement`` on what survived them so far.

    Raises:
        StoreMissError: where the store is read-only and does not hold them.
    """
    prepared, ledger = measurement.prepared, measurement.ledger
    store = prepared.bench.store
    units = sorted(ledger.segments)
    twin = prepared.loaded.twin
    of_twin = None if twin is None else fingerprint(twin)
    key = prepared.key("adequacy", measurement.plan, measured=ledger.key, units=units, level=level, twin=of_twin,
                       sources=sources(adequacy))  # fmt: skip
    if key not in measurement.audits:
        content = store.manifest(key)
        known = None if content is None else _stored(content, measurement)
        if content is not None and known is None:
            store.set_aside(key, "it is not the audit of what survives now")
        if known is not None:
            measurement.audits[key] = known
        else:
            prepared.bench.budget.require(f"the audit of {measurement.text}")
            if store.mode == "ro":
                raise store.missing(f"the audit of {measurement.text}")
            prepared.bench.report(f"{measurement.text}: checking whether the attacks could have broken the survivors")
            found = _made(measurement, level)
            measurement.spend(found.cost)
            for stage, result, places in _joinable(measurement, found):
                _join(measurement, stage, result, places)
            # Last, so that a crash leaves no audit without its breaks.
            store.create(key, _content(measurement, found))
            measurement.audits[key] = Audit(found.checks, nearest=_placed(measurement, found))
    measurement.checks = measurement.audits[key].checks
    return measurement.audits[key]


def _content(measurement: Measurement, found: Audit) -> dict[str, Any]:
    """What is stored of an audit, whose breaks are in segments of the measurement by now."""
    return {
        "kind": "adequacy",
        "subject": measurement.prepared.loaded.digest,
        "measured": measurement.ledger.key,
        "survived": sorted(measurement.ledger.survived),
        "checks": [asdict(check) for check in found.checks],
        "nearest": [list(pair) for pair in _placed(measurement, found)],
        "provenance": {
            "role": measurement.prepared.loaded.role,
            "plan": measurement.plan.text if measurement.plan else "",
        },
    }


def _stored(content: Mapping[str, Any], measurement: Measurement) -> Audit | None:
    """The stored audit, unless samples survive that did not when it was made: its breaks may have been damaged."""
    try:
        checks = tuple(Check(**check) for check in content["checks"])
        survived = set(content["survived"])
        nearest = tuple((int(position), float(value)) for position, value in content["nearest"])
    except (KeyError, TypeError, ValueError):
        return None
    measurement.join()  # whoever made it stored its breaks first
    same = content.get("measured") == measurement.ledger.key
    return Audit(checks, nearest=nearest) if same and measurement.ledger.survived <= survived else None


def _placed(measurement: Measurement, found: Audit) -> tuple[tuple[int, float], ...]:
    """What other searches found, by the position of the sample; a failed search found nothing."""
    places = chosen(measurement) if found.nearest else ()
    return tuple((places[place], value) for place, value in found.nearest if isfinite(value))


def chosen(measurement: Measurement) -> tuple[int, ...]:
    """The positions that an audit looks at: the first survivors (or distances), since the order is random."""
    assert measurement.plan is not None
    if measurement.kind == "minimise":
        known = sorted(measurement.ledger.values)
        return tuple(known[: how_many_distances(measurement.plan, len(known))])
    survivors = sorted(measurement.ledger.survived)
    return tuple(survivors[: how_many(measurement.plan, len(survivors), measurement.ledger.n)])


def _made(measurement: Measurement, level: AuditLevel) -> Audit:
    prepared, ledger, plan = measurement.prepared, measurement.ledger, measurement.plan
    assert plan is not None
    places = list(chosen(measurement))
    if not places:
        return Audit()
    engine, module = prepared.bench.engine, prepared.loaded.module
    x, y = prepared.data.x[places], prepared.data.y[places]
    clean = prepared.clean_logits(places)
    if clean is None:
        clean, cost = engine.clean(module, x)
        measurement.spend(cost)
    case = Case(
        engine,
        module,
        plan,
        x,
        y,
        clean,
        prepared.data.classes,
        ledger.n,
        len(ledger.survived),
        {stage: ledger.stage_broken(stage) for stage in range(len(ledger.stages))},
    )
    if measurement.kind == "minimise":
        if any(ATTACKS[stage.attack].starts for stage in rerun(plan)):
            case = replace(case, pool=prepared.pool())
        case = replace(case, found=tuple(ledger.values[place] for place in places))
        return audit_distances(case, case.found) + audit_steps(case, prepared.loaded.twin)
    if level == "full":
        case = replace(case, examples=_examples(measurement))
        return audit_plan(case) + audit_steps(case, prepared.loaded.twin) + audit_fully(case)
    left_out = (Check(name, "not run", "--prunerob-adequacy=full runs it") for name in FULL)
    return audit_plan(case) + audit_steps(case, prepared.loaded.twin) + Audit(tuple(left_out))


def _examples(measurement: Measurement) -> dict[int, tuple[Tensor, Tensor]]:
    """A few samples that each gradient stage broke, by its number."""
    data, found = measurement.prepared.data, {}
    for number, name in enumerate(measurement.ledger.stages):
        segments = (s for (stage, _), s in sorted(measurement.ledger.segments.items()) if stage == number)
        places = sorted(position for segment in segments for position in segment.broken)[:FEWEST]
        if places and ATTACKS[name].gradient:
            found[number] = (data.x[places], data.y[places])
    return found


def _joinable(measurement: Measurement, found: Audit) -> list[tuple[int, Result, Sequence[int]]]:
    places = chosen(measurement)
    return [(stage, result, places) for stage, result in found.results]


def _join(measurement: Measurement, stage: int, result: Result, places: Sequence[int]) -> None:
    """Add what ``stage`` broke when it ran again on the samples at ``places``, micro-batch by micro-batch."""
    ledger, store = measurement.ledger, measurement.prepared.bench.store
    rows = sorted(result.broken)  # the order of the rows of result.witness
    assert result.witness is not None
    for micro_batch in sorted({places[i] // ledger.size for i in rows}):
        mine = [n for n, i in enumerate(rows) if places[i] // ledger.size == micro_batch]
        positions = [places[rows[n]] for n in mine]
        lengths = [result.broken[rows[n]] for n in mine]
        witnesses = store.add_witnesses(ledger.key, positions, lengths, result.witness[mine])
        segment = Segment(ledger.key, stage, micro_batch, tuple(positions), dict(zip(positions, lengths, strict=True)),
                          witnesses=(witnesses,))  # fmt: skip
        store.add(segment)
        ledger.add(segment)
