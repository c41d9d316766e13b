"""What one test says about itself: plain data that travels on its report as one JSON string."""

from __future__ import annotations

from dataclasses import asdict
from math import inf, isinf
from typing import TYPE_CHECKING, Any

import pytest

from pytest_prunerob.cells import Cell
from pytest_prunerob.ledger import Cost
from pytest_prunerob.plans import ThreatModel
from pytest_prunerob.plugin.stash import COMPRESSED, EVALUATION, OPTIONS

if TYPE_CHECKING:
    from pytest_prunerob.claims import Claim
    from pytest_prunerob.evaluation import TestEvaluation
    from pytest_prunerob.measurement import Measurement
    from pytest_prunerob.reported import Number
    from pytest_prunerob.verdicts import Term, Verdict


def payload(item: pytest.Item, expected: str) -> dict[str, Any]:
    """Everything about ``item`` that results.json holds; ``expected`` is the verdict its claims are expected to get."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("cell") if callspec is not None else None
    cell: dict[str, Any] = {
        "id": item.nodeid,
        "test": getattr(item, "originalname", None) or item.name,
        "parameters": dict(found.parameters) if isinstance(found, Cell) else {},
        "samples": found.samples if isinstance(found, Cell) else None,
        "compression": item.stash.get(COMPRESSED, None),
        "reported": None,
        "claims": [],
        "subjects": [],
        "dataset": None,
        "cost": _cost(None),
    }
    data: dict[str, Any] = {"cell": cell, "claims": [], "measurements": {}, "subjects": {}, "runtime": None}
    data["undecided"], data["cut"] = False, {"claims": 0, "tests": 0}  # what the time budget left undone
    evaluation = item.stash.get(EVALUATION, None)
    if evaluation is None:
        return data
    if evaluation.reported is not None:
        cell["reported"] = _reported(evaluation.reported)
    data["cut"] = {"claims": len(evaluation.unfinished), "tests": int(bool(evaluation.interrupted))}
    data["claims"] = [
        _claim(item, number, claim, expected, evaluation)
        for number, claim in enumerate(evaluation.claims, start=1)
        if claim.verdict is not None
    ]
    cell["claims"] = [claim["id"] for claim in data["claims"]]
    cell["cost"] = _cost(evaluation.cost)
    datasets = {prepared.data.digest: prepared.data.name for prepared in evaluation.prepared.values()}
    if len(datasets) == 1:  # subjects on several datasets have none in common
        ((digest, name),) = datasets.items()
        cell["dataset"] = {"name": name, "digest": digest}
    cell["subjects"] = sorted({prepared.loaded.digest for prepared in evaluation.prepared.values()})
    data["subjects"] = _subjects(evaluation)
    data["measurements"] = {key: _measurement(found) for key, found in evaluation.measured.items()}
    data["runtime"] = _runtime(item, evaluation)
    return data


def _claim(item: pytest.Item, number: int, claim: Claim, expected: str, evaluation: TestEvaluation) -> dict[str, Any]:
    verdict = claim.verdict
    assert verdict is not None
    margin = None if verdict.margin is None else {"low": _end(verdict.margin[0]), "high": _end(verdict.margin[1])}
    return {
        "id": f"{item.nodeid}#{number}",
        "cell": item.nodeid,
        "text": claim.text,
        "verdict": verdict.status,
        "expected": expected,
        "reason": verdict.reason,
        "population": verdict.population,
        "confidence": verdict.confidence,
        "margin": margin,
        "n": verdict.n,
        "complete": verdict.complete,
        "attack": verdict.attack,
        "terms": [_term(term, verdict.confidence) for term in verdict.terms if term.measure.number is None],
        "comparison": _comparison(verdict, evaluation.reported),
        "settle": verdict.settle,
        "stands_on": verdict.stands_on,
        "decision": verdict.decision,
        "score_interval": _score_interval(verdict),
        "p_value": verdict.p_value,
        "holm": None,  # the controller knows the family
    }


def _term(term: Term, confidence: float) -> dict[str, Any]:
    known, measure = term.known, term.measure
    return {
        "text": measure.text,
        "metric": measure.metric,
        "subject": "+".join(subject.role for subject in measure.subjects),
        "coefficient": float(term.factor),
        "low": _end(float(known.low)),
        "high": _end(float(known.high)),
        "value": _end(term.value),
        "complete": known.complete,
        "n": known.n,
        "interval": _interval(term, confidence),
        "measurement": known.measurement,
    }


def _comparison(verdict: Verdict, number: Number | None) -> dict[str, Any] | None:
    """The published number beside the re-evaluated one: the first term of its metric that is about the pruned model."""
    if number is None:
        return None
    for term in verdict.terms:
        roles = [subject.role for subject in term.measure.subjects]
        if term.measure.metric == number.metric and "pruned" in roles:
            value = term.value
            return {
                "reported": _reported(number),
                "text": term.measure.text,
                "value": _end(value),
                "low": _end(float(term.known.low)),
                "high": _end(float(term.known.high)),
                "difference": None if value is None or isinf(value) else value - float(number.value),
                "exceeds": value is not None and value > float(number.high),
                "interval": _interval(term, verdict.confidence),
            }
    return None


def _interval(term: Term, confidence: float) -> dict[str, float] | None:
    if term.interval is None:
        return None
    return {"low": term.interval[0], "high": term.interval[1], "confidence": confidence}


def _score_interval(verdict: Verdict) -> dict[str, float] | None:
    if verdict.score_interval is None:
        return None
    low, high = verdict.score_interval
    return {"low": low, "high": high, "confidence": verdict.confidence}


def _measurement(measurement: Measurement) -> dict[str, Any]:
    ledger, prepared = measurement.ledger, measurement.prepared
    plan = measurement.plan
    assert plan is not None
    stages = [
        {
            "name": name,
            "broken": ledger.stage_broken(number),
            "done": sum(s == number for s, _ in ledger.segments),
            "of": ledger.micro_batches,
            "cost": _cost(ledger.stage_cost(number)),
        }
        for number, name in enumerate(ledger.stages)
    ]
    values, errors = ledger.values, set(ledger.errors)
    broken, survived = set(ledger.broken), set(ledger.survived)
    if ledger.kind == "minimise":  # of several stages one may find an input where another meets an error
        broken = {position for position, value in values.items() if abs(value) != inf}
        survived = values.keys() - broken - errors
    clean_errors = ledger.n - len(prepared.correct(voted=measurement.voted))
    decided = len(broken) + len(survived) + len(errors - broken)
    return {
        "key": ledger.key,
        "kind": ledger.kind,
        "subject": prepared.loaded.role,
        "digest": prepared.loaded.digest,
        "plan": plan.attack_set + measurement.attack.removeprefix(plan.text),
        "threat": _threat(plan.threat),
        "n": ledger.n,
        "clean_errors": clean_errors,
        "broken": len(broken),
        "survived": len(survived),
        "undecided": (ledger.n if ledger.kind != "decide" else len(ledger.start)) - decided,
        "errors": len(errors - broken),
        "complete": ledger.complete,
        "stages": stages,
        "cost": _cost(sum((segment.cost for segment in ledger.segments.values()), Cost())),
        "checks": [asdict(check) for check in measurement.checks],
    }


def _subjects(evaluation: TestEvaluation) -> dict[str, Any]:
    from pytest_prunerob import facts

    found: dict[str, Any] = {}
    for subject, prepared in evaluation.prepared.items():
        entry = found.setdefault(
            prepared.loaded.digest,
            {
                "digest": prepared.loaded.digest,
                "weights": prepared.loaded.weights,
                "roles": [],
                "parameters": facts.parameters(prepared.loaded.module),
                "checks": [asdict(check) for check in prepared.known_checks],
            },
        )
        if subject.role not in entry["roles"]:
            entry["roles"].append(subject.role)
    return found


def _runtime(item: pytest.Item, evaluation: TestEvaluation) -> dict[str, Any]:
    import torch

    from pytest_prunerob.material import precision

    engine, store = evaluation.bench.engine, evaluation.bench.store
    cuda = engine.device.startswith("cuda")
    return {
        "device": engine.device,
        "device_name": torch.cuda.get_device_name(engine.device) if cuda else "CPU",
        "precision": precision(),
        "threads": torch.get_num_threads(),
        "hits": store.hits,
        "misses": store.misses,
        "quarantined": list(store.quarantined),
        "options": item.config.stash[OPTIONS].shown(),
    }


def _reported(number: Number) -> dict[str, Any]:
    return {
        "text": number.text,
        "value": float(number.value),
        "low": float(number.low),
        "high": float(number.high),
        "source": number.source,
        "note": "; ".join(part for part in (number.note, number.impossible) if part),
    }


def _threat(threat: ThreatModel) -> dict[str, Any]:
    goal = {"target": threat.target} if threat.target else {}
    return {"norm": threat.norm, "eps": threat.eps, **goal}


def _cost(cost: Cost | None) -> dict[str, Any]:
    if cost is None:
        return {"forward": 0, "backward": 0, "seconds": 0.0}
    return {"forward": cost.forward, "backward": cost.backward, "seconds": round(cost.seconds, 3)}


def _end(value: float | None) -> float | str | None:
    """A number for JSON, which has no infinity."""
    if value is None or not isinf(value):
        return value
    return "inf" if value > 0 else "-inf"
