"""The outcomes of one subject under one plan on one slice, as a union of immutable segments.

A segment is what one attack stage did to one micro-batch. A ledger only grows: a sample that has a witness stays
broken, whatever a later segment says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any, Literal

from pytest_prunerob.errors import StoreError

Kind = Literal["clean", "voted", "decide", "returned", "minimise", "crafted", "transferred", "estimate"]
KINDS: tuple[Kind, ...] = ("clean", "voted", "decide", "returned", "minimise", "crafted", "transferred", "estimate")
LARGEST = 2**24  # no index or number of samples is larger (ours: ten times ImageNet's), lest a forged one fill memory
SHA256 = re.compile("[0-9a-f]{64}")
WITNESS_FILE = re.compile(f"wit-{SHA256.pattern}[.]npy")


@dataclass(frozen=True)
class Cost:
    """Work done: samples forwarded, samples whose gradient was taken, wall-clock seconds."""

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward, self.seconds + other.seconds)


@dataclass(frozen=True)
class WitnessSet:
    """The witnesses that a stage found in a micro-batch, one of each sample in ``positions``.

    ``distances`` are their distances and ``hashes`` the SHA-256 (hex) of the bytes of each input. Row i of the stored
    array ``file`` is the witness of ``positions[i]``; where only the hashes were kept (``--prunerob-witness=hash``),
    ``file`` is ``None``.
    """

    positions: tuple[int, ...]
    distances: tuple[float, ...]
    hashes: tuple[str, ...]
    file: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The set as JSON: the file and ``[position, distance, SHA-256]`` of each row."""
        samples = zip(self.positions, self.distances, self.hashes, strict=True)
        return {"file": self.file, "samples": [list(sample) for sample in samples]}


@dataclass(frozen=True)
class Segment:
    """What stage number ``stage`` did to micro-batch number ``micro_batch``; samples are positions in the slice.

    ``attacked`` are the samples given to the stage, ``broken`` those with a witness (and its distance; in the kinds
    "returned" and "transferred" those misclassified on the returned input), ``errors`` those whose output was not
    finite or whose attack failed, ``values`` the predicted label (kind "clean"), 1 or 0 for correct or wrong by the
    votes (kind "voted"), signed distance (kind "minimise"), signed score (kind "estimate") or distance (kind "crafted")
    of each sample, ``witnesses`` the inputs that show the breaks (kinds "decide" and "minimise") or were made (kind
    "crafted"): one set, or several after a union.
    """

    key: str
    stage: int
    micro_batch: int
    attacked: tuple[int, ...]
    broken: Mapping[int, float] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    values: Mapping[int, float] = field(default_factory=dict)
    cost: Cost = Cost()
    witnesses: tuple[WitnessSet, ...] = ()

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
            "witnesses": [found.to_json() for found in self.witnesses],
        }


def segment_from_json(data: Any, key: str) -> Segment:
    """The segment in ``data``, which must belong to ``key``; ``data`` may be anything that JSON can hold.

    Raises:
        StoreError: where it belongs to another key or is no segment.
    """
    try:
        if data["key"] != key:
            raise StoreError(f"the segment belongs to {_shown(data['key'])}")
        stage, micro_batch = data["unit"]
        segment = Segment(
            key,
            _index(stage),
            _index(micro_batch),
            tuple(_index(position) for position in data["attacked"]),
            {_index(position): _length(value) for position, value in data["broken"]},
            {_index(position): _text(text) for position, text in data["errors"]},
            {_index(position): _from_json(value) for position, value in data["values"]},
            _cost(data["cost"]),
            tuple(_witness_set(found) for found in data["witnesses"]),
        )
        shown = (position for found in segment.witnesses for position in found.positions)
        strays = {*segment.broken, *segment.errors, *segment.values, *shown}.difference(segment.attacked)
        if strays:
            raise ValueError(f"sample {min(strays)} was never attacked")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"no segment: {_reason(error)}") from None
    return segment


def empty_ledger(key: str, shape: Any) -> Ledger:
    """The ledger of ``Ledger.shape``, without its segments; ``shape`` may be anything that JSON can hold.

    Raises:
        StoreError: where it is no shape.
    """
    try:
        n, size, stages = _index(shape["n"]), _index(shape["size"]), tuple(map(_text, shape["stages"]))
        left_out = {_index(position) for position in shape["left_out"]}
        if shape["kind"] not in KINDS or not size:
            raise ValueError(f"{_shown(shape)} has no such kind or size")
        return Ledger(key, shape["kind"], n, size, stages, frozenset(range(n)) - left_out)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"no measurement: {_reason(error)}") from None


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

    def shape(self) -> dict[str, Any]:
        """What a reader without the model and the data needs to tell whether the segments are all there."""
        return {
            "kind": self.kind,
            "n": self.n,
            "size": self.size,
            "stages": list(self.stages),
            "left_out": [position for position in range(self.n) if position not in self.start],
        }

    def misfit(self, segment: Segment) -> str:
        """Why ``segment``, intact as it may be, is none of this measurement; empty if it is one.

        A break counts only with its witness, in kind "returned" alone there are none.
        """
        if segment.stage >= len(self.stages) or segment.micro_batch >= self.micro_batches:
            return f"the measurement has no unit {segment.stage}, {segment.micro_batch}"
        strays = set(segment.attacked).difference(self.positions(segment.micro_batch))
        if strays:
            return f"sample {min(strays)} is not of micro-batch {segment.micro_batch}"
        shown = {position for found in segment.witnesses for position in found.positions}
        claimed = set(segment.broken) if self.kind == "decide" else set()
        if self.kind == "minimise":
            claimed = {position for position, value in segment.values.items() if isfinite(value)}
        if self.kind == "crafted":
            claimed = set(segment.values)
        if self.kind == "clean" and not all(isfinite(value) for value in segment.values.values()):
            return "an infinite value is no label"
        if claimed - shown:
            return f"sample {min(claimed - shown)} is broken without a witness"
        return ""

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
        """All per-sample values; of several stages' distances the smallest."""
        found: dict[int, float] = {}
        for segment in self.segments.values():
            for position, value in segment.values.items():
                found[position] = min(found.get(position, value), value, key=abs)
        return found

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
    witnesses = tuple(dict.fromkeys((*first.witnesses, *second.witnesses)))
    return Segment(first.key, first.stage, first.micro_batch, attacked, broken, errors, values, first.cost, witnesses)


def _to_json(value: float) -> float | str:
    return value if value not in (float("inf"), float("-inf")) else repr(value)


def _from_json(value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{_shown(value)} is no number")
    return float(value)


def _length(value: Any) -> float:
    length = _from_json(value)
    if not 0 <= length < inf:
        raise ValueError(f"{_shown(value)} is no distance")
    return length


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no text")
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(f"{_shown(value)} is no index")
    return value


def _cost(data: Any) -> Cost:
    cost = Cost(**data)
    for count in (cost.forward, cost.backward):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{_shown(count)} is no count")
    return Cost(cost.forward, cost.backward, _length(cost.seconds))


def _witness_set(data: Any) -> WitnessSet:
    file, samples = data["file"], [tuple(sample) for sample in data["samples"]]
    if file is not None and not WITNESS_FILE.fullmatch(file):
        raise ValueError(f"{_shown(file)} is no file of witnesses")
    if not samples or len({position for position, _, _ in samples}) != len(samples):
        raise ValueError("a set of witnesses is empty or names a sample twice")
    for _, _, digest in samples:
        if not SHA256.fullmatch(digest):
            raise ValueError(f"{_shown(digest)} is no SHA-256")
    return WitnessSet(
        tuple(_index(position) for position, _, _ in samples),
        tuple(_length(distance) for _, distance, _ in samples),
        tuple(digest for _, _, digest in samples),
        file,
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else _shown(error)


def _shown(value: object) -> str:
    """``value`` in a sentence: one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"
