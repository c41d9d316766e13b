"""Locks only avoid double work: two processes without them come to the same outcomes, and nothing is damaged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pytest_prunerob.engine import Result
from pytest_prunerob.ledger import Cost
from pytest_prunerob.plans import Plan
from pytest_prunerob.store import Store
from pytest_prunerob.store.inventory import check
from tests.faults import tiny

ROUNDS = 5


@pytest.fixture(autouse=True)
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nothing(store: Store, key: str, name: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(Store, "lock", nothing)


class Slow(tiny.Scripted):
    """An engine during whose units another process gets its turn."""

    def run(
        self,
        kind: str,
        module: nn.Module,
        plan: Plan,
        stage: int,
        x: Tensor,
        y: Tensor,
        classes: int,
        clean: Tensor | None = None,
        **more: object,
    ) -> Result:
        time.sleep(0.002)
        return super().run(kind, module, plan, stage, x, y, classes, clean, **more)

    def clean(self, module: nn.Module, x: Tensor) -> tuple[Tensor, Cost]:
        time.sleep(0.002)
        return super().clean(module, x)


def together(*works: Callable[[], None]) -> None:
    """Run each in its own process, all starting at the same moment, and expect each to end well."""
    start, go = os.pipe()

    def waiting(work: Callable[[], None]) -> Callable[[], None]:
        def begin() -> None:
            os.read(start, 1)
            work()

        return begin

    children = [tiny.forked(waiting(work)) for work in works]
    os.write(go, b"." * len(works))
    codes = [tiny.ended(child) for child in children]
    os.close(start)
    os.close(go)
    assert codes == [0] * len(works)


def test_22_two_processes_on_one_measurement(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        root = tmp_path / str(number)

        def work(root: Path = root) -> None:
            used = tiny.bench(root, engine=Slow("cpu", 250, 0))
            assert tiny.outcomes(tiny.measured(used)) == tiny.OUTCOMES
            assert used.store.quarantined == []

        together(work, work)
        engine = tiny.Scripted("cpu", 250, 0)
        again = tiny.bench(root, engine=engine)
        assert tiny.outcomes(tiny.measured(again)) == tiny.OUTCOMES
        assert (engine.units, again.store.misses, again.store.quarantined) == (0, 0, [])
        store = Store(root, "ro")
        assert check(store) >= 9
        assert store.quarantined == []
        assert not list(root.rglob(".tmp-*"))


def test_22_what_either_process_breaks_is_broken_and_keeps_its_witness(tmp_path: Path) -> None:
    """Two devices may disagree on a sample; its break counts, whoever was first."""
    for number in range(ROUNDS):
        root = tmp_path / str(number)

        def work(blind: tuple[int, ...], root: Path = root) -> Callable[[], None]:
            return lambda: tiny.measured(tiny.bench(root, engine=Slow("cpu", 250, 0, blind=blind)))

        together(work((1, 3)), work((2, 4)))
        used = tiny.bench(root, engine=tiny.Scripted("cpu", 250, 0, blind=(1, 2, 3, 4)))
        found = tiny.measured(used)
        broken = set(found.ledger.broken)
        witnesses = used.store.witnesses(found.ledger.key)
        assert broken == set(witnesses)
        # Whoever came later to a unit adopted what was there, so that not every unit was measured twice.
        written = [json.loads(path.read_bytes())["broken"] for path in root.rglob("seg-*.json")]
        assert broken == {position for found in written for position, _ in found}
        assert broken & {0, 1}
        assert broken & {2, 3}
        for position in broken:
            assert witnesses[position].distance == pytest.approx(0.01 * (position + 1))
            array = witnesses[position].array
            assert array is not None
            assert torch.equal(torch.from_numpy(array), 1 - tiny.data().x[position])
        assert used.store.quarantined == []


def test_22_a_union_of_unequal_segments_keeps_every_witness(tmp_path: Path) -> None:
    root = tmp_path / "one"
    # Both had looked before the other one wrote: two segments of each unit.
    for name, blind in (("one", (1, 3)), ("two", (2, 4))):
        tiny.measured(tiny.bench(tmp_path / name, engine=tiny.Scripted("cpu", 250, 0, blind=blind)))
    for path in (tmp_path / "two").rglob("*-*"):
        place = root / path.relative_to(tmp_path / "two")
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    engine = tiny.Scripted("cpu", 250, 0)
    used = tiny.bench(root, engine=engine)
    found = tiny.measured(used)
    assert tiny.outcomes(found) == tiny.OUTCOMES
    assert engine.units == 0
    assert [len(found.ledger.segments[unit].witnesses) for unit in ((0, 0), (1, 0))] == [2, 2]
    witnesses = used.store.witnesses(found.ledger.key)
    assert {p: round(w.distance, 6) for p, w in witnesses.items()} == {0: 0.01, 1: 0.02, 2: 0.03, 3: 0.04}
    assert all(w.array is not None for w in witnesses.values())


def test_22_two_processes_that_train_the_same_model_end_up_with_one(tmp_path: Path) -> None:
    key = "ab" + "0" * 62
    for number in range(ROUNDS):
        root = tmp_path / str(number)

        def work(value: float, root: Path = root) -> Callable[[], None]:
            def publish() -> None:
                store = Store(root)
                store.add_model(key, {"w": torch.full((3,), value)}, {"kind": "model"})
                found = store.model(key)
                assert found is not None
                (root / f"{value}").write_text(str(found[0]["w"].tolist()))

            return publish

        together(work(1.0), work(2.0))
        adopted = {(root / name).read_text() for name in ("1.0", "2.0")}
        assert len(adopted) == 1
        assert adopted <= {"[1.0, 1.0, 1.0]", "[2.0, 2.0, 2.0]"}
