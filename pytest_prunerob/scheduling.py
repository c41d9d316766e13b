"""Which unit of work to run next, so that a claim is settled soonest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_prunerob.claims import Claim, Measure
from pytest_prunerob.known import Known
from pytest_prunerob.measurement import Measurement

Find = Callable[[Measure], Measurement | None]


def next_unit(claim: Claim, known: Mapping[Measure, Known], measurement: Find) -> Callable[[], None] | None:
    """What to run next: first the stage that refutes cheaply, then whatever settles the claim soonest.

    Stage by stage over all samples finds breaks fastest; micro-batch by micro-batch through all stages is the only
    way to show survival. So the first stage runs over all samples of every measure. After that, if every undecided
    sample survived, the claim would come out one way: the measures whose survivors that verdict needs go first,
    micro-batch by micro-batch; those whose breaks it needs follow, stage by stage.
    """
    weights = {m: factor for difference in claim.differences for m, factor in difference.terms}
    unfinished = [(m, measurement(m)) for m in known if not known[m].complete]
    open_ones = [(m, found) for m, found in unfinished if found is not None and not found.ledger.complete]
    if not open_ones:
        return None
    for _, found in open_ones:
        for micro_batch in range(found.ledger.micro_batches):
            if found.ledger.todo(micro_batch) == 0:
                return _unit(found, 0, micro_batch)
    sign = 1 if _holds_if_all_survive(claim, known) else -1

    def urgency(pair: tuple[Measure, Measurement]) -> tuple[bool, float]:
        weight = weights[pair[0]]
        return sign * weight > 0, _width(known[pair[0]]) * float(abs(weight))

    measure, found = max(open_ones, key=urgency)
    todo = {m: stage for m in range(found.ledger.micro_batches) if (stage := found.ledger.todo(m)) is not None}
    micro_batch = min(todo) if sign * weights[measure] > 0 else min(todo, key=lambda m: (todo[m], m))
    return _unit(found, todo[micro_batch], micro_batch)


def next_in_order(known: Mapping[Measure, Known], measurement: Find) -> Callable[[], None] | None:
    """What to run next where the first samples are to decide: all stages of the first micro-batch that is left."""
    found = (measurement(measure) for measure in known if not known[measure].complete)
    left = [
        (item.ledger.positions(micro_batch).start, number, item, stage, micro_batch)
        for number, item in enumerate(item for item in found if item is not None)
        for micro_batch in range(item.ledger.micro_batches)
        if (stage := item.ledger.todo(micro_batch)) is not None
    ]
    if not left:
        return None
    _, _, item, stage, micro_batch = min(left, key=lambda unit: unit[:2])
    return _unit(item, stage, micro_batch)


def _unit(measurement: Measurement, stage: int, micro_batch: int) -> Callable[[], None]:
    return lambda: measurement.run(stage, micro_batch)


def _holds_if_all_survive(claim: Claim, known: Mapping[Measure, Known]) -> bool:
    best = [sum(float(f * known[m].high) for m, f in d.terms) + float(d.constant) for d in claim.differences]
    return min(best) >= 0


def _width(known: Known) -> float:
    return float(known.high) - float(known.low)
