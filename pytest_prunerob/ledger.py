"""The outcomes of one subject under one plan on one slice, as a union of immutable segments.

A segment is what one attack stage did to one micro-batch. A ledger only grows: a sample that has a witness stays
broken, whatever a later segment says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pytest_prunerob.errors import StoreError

Kind = Literal["clean", "decide", "returned", "minimise"]
KINDS: tuple[Kind, ...] = ("clean", "decide", "returned", "minimise")


@dataclass(frozen=True)
class Cost:
    """Work done: samples forwarded, samples whose gradient was taken, wall-clock seconds."""

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward, self.seconds + other.seconds)


@dataclass(frozen=True)
class Segment:
    """What stage number ``stage`` did to micro-batch number ``micro_batch``; samples are positions in the slice.

    ``attacked`` are the samples given to the stage, ``broken`` those with a witness (and its distance; in kind
    "returned" those misclassified on the returned input), ``errors`` those whose output was not finite or whose attack
    failed, ``values`` the predicted label (kind "clean") or signed distance (kind "minimise") of each sample.
    """

    key: str
    stage: int
    micro_batch: int
    attacked: tuple[int, ...]
    broken: Mapping[int, float] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    values: Mapping[int, float] = field(default_factory=dict)
    cost: Cost = Cost()
    witness: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The segment as JSON; +inf becomes the string "inf"."""
        return {
            "key": self.key,
            "unit": [self.stage, self.micro_batch],
            "attacked": list(self.attacked),
            "broken": [[position, _to_json(value)] for position, value in sorted(self.broken.items())],
            "errors": [[position, text] for position, text in sorted(self.errors.items())],
            "values": [[position, _to_json(value)] for position, value in sorted(self.values.items())],
            "cost": asdict(self.cost),
            "witness": self.witness,
        }


def segment_from_json(data: Any, key: str) -> Segment:
    """The segment in ``data``, which must belong to ``key``.

    Raises:
        StoreError: where it belongs to another key or is no segment.
    """
    try:
        if data["key"] != key:
            raise StoreError(f"the segment belongs to {data['key']!r}")
        stage, micro_batch = data["unit"]
        return Segment(
            key,
            _index(stage),
            _index(micro_batch),
            tuple(_index(position) for position in data["attacked"]),
            {_index(position): _from_json(value) for position, value in data["broken"]},
            {_index(position): str(text) for position, text in data["errors"]},
            {_index(position): _from_json(value) for position, value in data["values"]},
            Cost(**data["cost"]),
            data["witness"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"no segment: {error!r}") from None


@dataclass
class Ledger:
    """All segments of one measurement.

    ``n`` samples in micro-batches of ``size``; ``start`` are the positions that the first stage attacks: the clean
    correct ones in kind "decide", all in the others.
    """

    key: str
    kind: Kind
    n: int
    size: int
    stages: tuple[str, ...]
    start: frozenset[int]
    segments: dict[tuple[int, int], Segment] = field(default_factory=dict)

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches."""
        return -(-self.n // self.size)

    def positions(self, micro_batch: int) -> range:
        """The samples of a micro-batch."""
        return range(micro_batch * self.size, min(self.n, (micro_batch + 1) * self.size))

    def add(self, segment: Segment) -> None:
        """Join ``segment`` with what is known of its unit: breaks stay, the smaller distance stays."""
        unit = (segment.stage, segment.micro_batch)
        known = self.segments.get(unit)
        if known is not None:
            segment = _joined(known, segment)
        self.segments[unit] = segment

    def survivors(self, stage: int, micro_batch: int) -> tuple[int, ...]:
        """The samples of a micro-batch that ``stage`` has to attack: no witness and no error in the stages before."""
        gone: set[int] = set()
        for earlier in range(stage):
            segment = self.segments.get((earlier, micro_batch))
            if segment is not None:
                gone.update(segment.broken, segment.errors)
        return tuple(p for p in self.positions(micro_batch) if p in self.start and p not in gone)

    def todo(self, micro_batch: int) -> int | None:
        """The next stage that has samples of ``micro_batch`` to attack, ``None`` when nothing is left to do."""
        for stage in range(len(self.stages)):
            wanted = self.survivors(stage, micro_batch)
            if not wanted:
                return None
            segment = self.segments.get((stage, micro_batch))
            # Where an earlier segment was lost and made again, it may leave samples that this one was never given.
            if segment is None or not set(segment.attacked).issuperset(wanted):
                return stage
        return None

    @property
    def complete(self) -> bool:
        """Whether every micro-batch went through every stage."""
        return all(self.todo(micro_batch) is None for micro_batch in range(self.micro_batches))

    @property
    def broken(self) -> frozenset[int]:
        """All samples with a witness."""
        return frozenset(p for segment in self.segments.values() for p in segment.broken)

    @property
    def errors(self) -> Mapping[int, str]:
        """All samples without a witness whose attack met an error, with the reason."""
        found = {p: text for segment in self.segments.values() for p, text in segment.errors.items()}
        return {p: text for p, text in found.items() if p not in self.broken}

    @property
    def survived(self) -> frozenset[int]:
        """All samples that went through every stage without a witness."""
        gone = self.broken.union(self.errors)
        done = (p for m in range(self.micro_batches) if self.todo(m) is None for p in self.positions(m))
        return frozenset(p for p in done if p in self.start and p not in gone)

    @property
    def values(self) -> dict[int, float]:
        """All per-sample values."""
        return {p: value for segment in self.segments.values() for p, value in segment.values.items()}

    def stage_cost(self, stage: int) -> Cost:
        """What ``stage`` has cost over all micro-batches."""
        return sum((s.cost for (number, _), s in self.segments.items() if number == stage), Cost())

    def stage_broken(self, stage: int) -> int:
        """How many samples ``stage`` has broken."""
        return sum(len(s.broken) for (number, _), s in self.segments.items() if number == stage)


def _joined(first: Segment, second: Segment) -> Segment:
    """Two segments of one unit as one: every break counts, the smaller distance counts, the first one's cost counts."""
    broken = {**first.broken, **second.broken}
    for position in first.broken.keys() & second.broken.keys():
        broken[position] = min(first.broken[position], second.broken[position])
    values = {**second.values, **first.values}
    for position in first.values.keys() & second.values.keys():
        values[position] = min(first.values[position], second.values[position], key=abs)
    errors = {p: text for p, text in {**second.errors, **first.errors}.items() if p not in broken}
    attacked = tuple(sorted({*first.attacked, *second.attacked}))
    witness = first.witness or second.witness
    return Segment(first.key, first.stage, first.micro_batch, attacked, broken, errors, values, first.cost, witness)


def _to_json(value: float) -> float | str:
    return value if value not in (float("inf"), float("-inf")) else repr(value)


def _from_json(value: Any) -> float:
    number = float(value)
    if number != number:
        raise ValueError("NaN")
    return number


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no index")
    return value
