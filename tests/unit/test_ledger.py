from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_prunerob.errors import StoreError
from pytest_prunerob.ledger import Cost, Kind, Ledger, Segment, WitnessSet, empty_ledger, segment_from_json

KEPT = WitnessSet((0, 2), (0.125, 0.5), ("a" * 64, "b" * 64), f"wit-{'c' * 64}.npy")
HASHED = WitnessSet((0,), (0.25,), ("d" * 64,))
N, SIZE = 5, 3  # micro-batches {0, 1, 2} and {3, 4}


def ledger(*segments: Segment, start: frozenset[int] | None = None) -> Ledger:
    made = Ledger("k", "decide", N, SIZE, ("a", "b"), frozenset(range(N)) if start is None else start)
    for segment in segments:
        made.add(segment)
    return made


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    micro_batch = draw(st.integers(0, 1))
    attacked = draw(st.sets(st.sampled_from([0, 1, 2] if micro_batch == 0 else [3, 4])))
    lengths = st.sampled_from([0.1, 0.2, 0.3])
    broken = {p: draw(lengths) for p in sorted(attacked) if draw(st.booleans())}
    errors = {p: "NaN" for p in sorted(attacked) if p not in broken and draw(st.booleans())}
    values = {p: draw(st.sampled_from([0.1, 0.2, math.inf])) for p in sorted(attacked)}
    return Segment("k", draw(st.integers(0, 1)), micro_batch, tuple(sorted(attacked)), broken, errors, values)


def outcome(made: Ledger) -> tuple[object, ...]:
    smallest = {p: length for s in made.segments.values() for p, length in s.broken.items()}
    return made.survived, made.broken, dict(made.errors), smallest if len(made.segments) == 1 else None, made.complete


@given(st.lists(segments(), max_size=5), st.randoms())
def test_the_union_does_not_depend_on_order_and_repetition(found: list[Segment], random: object) -> None:
    expected = outcome(ledger(*found))
    for order in itertools.islice(itertools.permutations(found), 12):
        assert outcome(ledger(*order)) == expected
        assert outcome(ledger(*order, *found)) == expected


@given(st.lists(segments(), max_size=5), segments())
def test_what_is_broken_stays_broken(found: list[Segment], more: Segment) -> None:
    before, after = ledger(*found), ledger(*found, more)
    assert before.broken <= after.broken
    assert before.survived & more.broken.keys() <= after.broken
    for unit, segment in before.segments.items():
        joined = after.segments[unit]
        assert all(joined.broken[p] <= length for p, length in segment.broken.items())
        assert all(joined.values[p] <= value for p, value in segment.values.items())
    for made in (before, after):
        assert not made.survived & made.broken
        assert not made.survived & made.errors.keys()
        assert not made.broken & made.errors.keys()


@given(st.lists(segments(), max_size=6))
def test_only_samples_that_every_stage_attacked_have_survived(found: list[Segment]) -> None:
    made = ledger(*found)
    for position in made.survived:
        units = [made.segments[stage, position // SIZE] for stage in range(2)]
        assert all(position in unit.attacked for unit in units)


def test_stages_go_on_with_the_survivors() -> None:
    made = ledger(start=frozenset({0, 1, 3, 4}))
    assert (made.micro_batches, list(made.positions(1)), made.survivors(0, 0)) == (2, [3, 4], (0, 1))
    assert made.todo(0) == 0
    made.add(Segment("k", 0, 0, (0, 1), {0: 0.1}, cost=Cost(10, 5, 1.0)))
    assert (made.todo(0), made.survivors(1, 0), made.survived) == (1, (1,), frozenset())
    made.add(Segment("k", 1, 0, (1,), cost=Cost(1, 1, 0.5)))
    assert (made.todo(0), made.survived, made.complete) == (None, {1}, False)
    made.add(Segment("k", 0, 1, (3, 4), {3: 0.1}, {4: "failed"}))
    assert (made.todo(1), made.complete, made.survived, made.errors) == (None, True, {1}, {4: "failed"})
    assert (made.stage_broken(0), made.stage_broken(1), made.stage_cost(0)) == (2, 0, Cost(10, 5, 1.0))


def test_a_later_witness_ends_an_error() -> None:
    made = ledger(Segment("k", 0, 0, (0, 1, 2), {}, {0: "NaN"}), Segment("k", 0, 0, (0, 1, 2), {0: 0.1}))
    assert (made.errors, made.broken) == ({}, {0})


def test_a_first_stage_made_again_sends_its_new_survivors_through_the_second() -> None:
    # The segment in which 0 was broken is lost; made again (another device) it leaves 0, which stage b never saw.
    made = ledger(Segment("k", 1, 0, (1, 2)), Segment("k", 0, 0, (0, 1, 2)))
    assert (made.todo(0), made.survived) == (1, frozenset())
    made.add(Segment("k", 1, 0, (0, 1, 2), {0: 0.1}))
    assert (made.todo(0), made.survived) == (None, {1, 2})


def test_a_union_keeps_every_set_of_witnesses_once() -> None:
    first = Segment("k", 0, 0, (0, 2), {0: 0.125, 2: 0.5}, witnesses=(KEPT,))
    second = Segment("k", 0, 0, (0, 2), {0: 0.25}, witnesses=(HASHED,))
    for order in ((first, second), (second, first), (first, second, first, second)):
        joined = ledger(*order).segments[0, 0]
        assert joined.broken == {0: 0.125, 2: 0.5}
        assert sorted(joined.witnesses, key=lambda found: found.hashes) == [KEPT, HASHED]


@pytest.mark.parametrize(
    ("kind", "segment", "why"),
    [
        ("decide", Segment("k", 1, 1, (3, 4)), ""),
        ("decide", Segment("k", 2, 1, (3, 4)), "the measurement has no unit 2, 1"),
        ("decide", Segment("k", 0, 2, ()), "the measurement has no unit 0, 2"),
        ("decide", Segment("k", 0, 1, (2, 3)), "sample 2 is not of micro-batch 1"),
        ("decide", Segment("k", 0, 0, (0, 1, 2), {0: 0.1, 2: 0.1}, witnesses=(KEPT,)), ""),
        ("decide", Segment("k", 0, 0, (0, 1, 2), {0: 0.1, 1: 0.1}, witnesses=(KEPT,)), "sample 1 is broken without"),
        ("returned", Segment("k", 0, 0, (0, 1, 2), {1: 0.1}), ""),
        ("minimise", Segment("k", 0, 0, (0, 1), {}, {}, {0: -0.1, 1: math.inf}, witnesses=(HASHED,)), ""),
        ("minimise", Segment("k", 0, 0, (0, 1), {}, {}, {1: -0.1}, witnesses=(HASHED,)), "sample 1 is broken without"),
        ("clean", Segment("k", 0, 0, (0, 1), {}, {}, {0: 1.0, 1: 0.0}), ""),
        ("clean", Segment("k", 0, 0, (0, 1), {}, {}, {0: math.inf}), "an infinite value is no label"),
    ],
)
def test_what_does_not_fit_a_measurement_is_told(kind: Kind, segment: Segment, why: str) -> None:
    made = Ledger("k", kind, N, SIZE, ("a", "b"), frozenset(range(N)))
    assert made.misfit(segment).startswith(why)
    assert bool(made.misfit(segment)) == bool(why)


def test_a_ledger_comes_back_from_its_shape() -> None:
    made = ledger(start=frozenset({0, 3, 4}))
    shape = json.loads(json.dumps(made.shape()))
    assert shape["left_out"] == [1, 2]
    assert empty_ledger("k", shape) == made


@pytest.mark.parametrize(
    "change",
    [{"n": 2**25}, {"n": -1}, {"size": 0}, {"kind": "other"}, {"stages": [1]}, {"left_out": ["0"]}, {"n": None}],
)
def test_what_is_no_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="no measurement"):
        empty_ledger("k", {**ledger().shape(), **change})


def test_segments_come_back_from_json() -> None:
    segment = Segment(
        "k",
        1,
        0,
        (0, 1, 2),
        {0: 0.125},
        {1: "NaN"},
        {0: -0.5, 2: math.inf, 1: -math.inf},
        Cost(3, 2, 0.5),
        (KEPT, HASHED),
    )
    text = json.dumps(segment.to_json(), allow_nan=False)
    assert segment_from_json(json.loads(text), "k") == segment
    with pytest.raises(StoreError, match="the segment belongs to 'k'"):
        segment_from_json(json.loads(text), "other")


@pytest.mark.parametrize(
    "change",
    [
        {"unit": [0]},
        {"attacked": [2**25]},
        {"broken": [[0, "inf"]]},
        {"broken": [[0, -0.1]]},
        {"broken": [[0, True]]},
        {"broken": [[1, 0.1]]},
        {"values": [[0, 10**400]]},
        {"values": [[0, "1"]]},
        {"errors": [[0, None]]},
        {"errors": [[7, "NaN"]]},
        {"cost": {"forward": -1}},
        {"cost": {"forward": 1.5}},
        {"cost": {"seconds": "inf"}},
        {"witnesses": [{"file": None, "samples": []}]},
        {"witnesses": [{"file": "../wit.npy", "samples": [[0, 0.1, "a" * 64]]}]},
        {"witnesses": [{"file": None, "samples": [[0, 0.1, "a" * 64], [0, 0.1, "b" * 64]]}]},
        {"witnesses": [{"file": None, "samples": [[0, 0.1, "A" * 64]]}]},
        {"witnesses": [{"file": None, "samples": [[5, 0.1, "a" * 64]]}]},
        {"unit": [0, -1]},
        {"unit": [0, True]},
        {"attacked": [1.5]},
        {"attacked": 3},
        {"broken": [[0, "NaN"]]},
        {"broken": [["0", 0.1]]},
        {"values": [[0, None]]},
        {"cost": {"forwards": 1}},
        {"errors": None},
    ],
)
def test_what_is_no_segment_is_refused(change: dict[str, object]) -> None:
    data = {**Segment("k", 0, 0, (0,)).to_json(), **change}
    with pytest.raises(StoreError, match="no segment"):
        segment_from_json(data, "k")
    with pytest.raises(StoreError, match="no segment"):
        segment_from_json({k: v for k, v in data.items() if k not in change}, "k")
    for other in (None, [], 3, "text"):
        with pytest.raises(StoreError, match="no segment"):
            segment_from_json(other, "k")
