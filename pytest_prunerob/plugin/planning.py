"""What a selection of claim tests would measure, found out without measuring: the pytest side of ``prunerob plan``.

Claims are known only when their test runs. So each test runs on an evaluation that judges a claim from the store alone;
where the store does not decide it, the claim counts as true and what it asks for is written down. Nothing is reported
as a test, nothing is written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from pytest_prunerob.adequacy import PROBES
from pytest_prunerob.budget import Budget
from pytest_prunerob.cells import Cell
from pytest_prunerob.claims import FACTS, Claim, Measure, Quantity, Subject
from pytest_prunerob.datasets import Dataset, Splits
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import BudgetSpentError, PrunerobError, StoreMissError
from pytest_prunerob.evaluation import TestEvaluation, kind_of
from pytest_prunerob.fingerprint import digest, fingerprint
from pytest_prunerob.ledger import Cost, Kind
from pytest_prunerob.measurement import Bench, Measurement
from pytest_prunerob.models import Builder, scheme
from pytest_prunerob.planned import (
    PlannedCell,
    PlannedMeasurement,
    StagePlan,
    architecture,
    audit_bound,
    load_of,
    measurement_left,
)
from pytest_prunerob.plans import Plan, resolve
from pytest_prunerob.plugin.collection import grid_of
from pytest_prunerob.plugin.options import Options
from pytest_prunerob.plugin.runtime import HEARTBEAT_SECONDS, Heartbeat, Runtime
from pytest_prunerob.plugin.stash import EVALUATION, OPTIONS, RUNTIME, STDERR
from pytest_prunerob.probes import DRAWN
from pytest_prunerob.reported import Number
from pytest_prunerob.store import Store
from pytest_prunerob.verdicts import LEANING, Verdict

STORED_NOWHERE = (*FACTS, "reported")


class PlanStop(BaseException):
    """Ends a test that asks for a number which is not in the store; a BaseException, so that no test swallows it."""


@dataclass
class Planner:
    """A plugin for one pytest session that plans instead of testing."""

    __name__ = "prunerob-planner"

    cells: list[PlannedCell] = field(default_factory=list)
    measurements: dict[str, PlannedMeasurement] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    spent: dict[tuple[str, str], list[Cost]] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)
    probed: dict[tuple[str, str], int] = field(default_factory=dict)
    device: str = ""
    others: int = 0
    adequacy: str = "basic"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the claim tests of the session for their claims alone."""
        if session.testsfailed:
            return True
        self._prepare(session.config)
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            if grid_of(item) is None:
                self.others += 1
            else:
                self._plan(item, following)
        return True

    def seconds(self, architecture: str, attack: str, forward: int) -> float | None:
        """About how long ``forward`` samples take by what the store knows of such a network on this device."""
        known = self.spent.get((architecture, attack)) or [
            cost for (network, _), costs in self.spent.items() if network == architecture for cost in costs
        ]
        total = sum(known, Cost())
        return total.seconds / total.forward * forward if total.forward else None

    def _prepare(self, config: pytest.Config) -> None:
        options = config.stash[OPTIONS]
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = auto if options.device == "auto" else options.device.split(",")[0]
        self.adequacy = options.adequacy
        # With store-mode=refresh nothing that is stored counts.
        root = options.store if options.store_mode != "refresh" else Path("/nonexistent")
        store = Store(root, "ro")
        beat = Heartbeat(config.stash[STDERR], HEARTBEAT_SECONDS)
        runs_on = self.device if torch.cuda.is_available() or not self.device.startswith("cuda") else "cpu"
        bench = Bench(store, Engine(runs_on, options.batch_size, options.seed), beat.report, budget=Budget(0.0))
        builder = PlanningBuilder(Builder(store, runs_on, False, beat.report, options.root), self.models)
        config.stash[RUNTIME] = Runtime(bench, cast(Any, builder), beat, config)

    def _plan(self, item: pytest.Item, following: pytest.Item | None) -> None:
        cell = PlannedCell(item.nodeid)
        self.cells.append(cell)
        runtime = item.config.stash[RUNTIME]
        parameters: Cell = item.callspec.params["cell"]  # type: ignore[attr-defined]
        number = None
        if parameters.reported is not None:
            number = parameters.reported.look_up(parameters.parameters, item.path.parent)
        evaluation = PlanningEvaluation(self, cell, item.config.stash[OPTIONS], runtime, number)
        item.stash[EVALUATION] = cast(Any, evaluation)
        for when, hook in (("setup", item.ihook.pytest_runtest_setup), ("call", item.ihook.pytest_runtest_call)):
            call = pytest.CallInfo.from_call(lambda hook=hook: hook(item=item), when=when)  # type: ignore[arg-type,misc]
            if call.excinfo is not None:
                cell.note = cell.note or _why(call.excinfo)
                break
        item.ihook.pytest_runtest_teardown(item=item, nextitem=following)
        del item.stash[EVALUATION]


@dataclass
class PlanningBuilder:
    """Models from the store; for one that is not there the untrained network stands in, and it is written down."""

    builder: Builder
    models: dict[str, str]
    progress: bool = False
    missing: dict[int, tuple[nn.Module, str]] = field(default_factory=dict)

    def splits(self, name: str) -> Splits:
        """The test and training half of the dataset ``name``."""
        return self.builder.splits(name)

    def dense(self, cell: Cell) -> nn.Module:
        """The dense model of ``cell``, or its untrained network."""
        try:
            return self.builder.dense(cell)
        except StoreMissError:
            what = f"train {cell.network} ({cell.training}, {cell.dataset}, seed {cell.seed})"
            return self._stand_in(self.builder.untrained(cell), what)

    def pruned(self, cell: Cell, dense: nn.Module) -> nn.Module:
        """``dense`` pruned as ``cell`` says, or a copy of it."""
        of = self.identity(dense)
        if not of:
            try:
                return self.builder.pruned(cell, dense)
            except StoreMissError:
                of = fingerprint(dense)
        tuned = f" with {scheme(cell).name} ({cell.training})" if "training" in cell.parameters else ""
        seed = f", seed {cell.seed}" if "training" in cell.parameters else ""
        what = f"prune by {cell.method} to {cell.amount_text}{tuned}{seed}"
        return self._stand_in(copy.deepcopy(dense), what, of)

    def identity(self, model: object) -> str:
        """What a stand-in stands in for, or the empty string for a model that is there."""
        known = self.missing.get(id(model))
        return known[1] if known is not None else ""

    def _stand_in(self, model: nn.Module, what: str, of: str = "") -> nn.Module:
        identity = digest([what, of])
        self.models[identity] = what
        self.missing[id(model)] = (model, identity)  # the model is kept, so that no other one gets its id
        return model


@dataclass(eq=False)
class PlanningEvaluation:
    """Answers the claims of one test from the store, and writes down what is not there."""

    planner: Planner
    cell: PlannedCell
    options: Options
    runtime: Runtime
    reported: Number | None = None
    claims: list[Claim] = field(default_factory=list)
    interrupted: str = ""
    identities: dict[Subject, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stored = TestEvaluation(
            self.runtime.bench, self.options.population, self.options.confidence, self.reported, self.options.decide
        )
        self.missing = ""  # the stand-ins that this test was given: another model of it may be made of them

    def subject(self, model: object, data: Dataset, role: str) -> Subject:
        """The subject ``model`` on ``data`` in ``role``."""
        prepared = self.stored.subject(model, data, role)
        subject = Subject(role, prepared.digest, data.name, data.digest, self)
        self.stored.prepared[subject] = self.stored.prepared[prepared]
        identity = cast(Any, self.runtime.builder).identity(model)
        if identity:
            self.missing = digest([self.missing, identity])
        elif self.missing:
            identity = digest([self.missing, subject.digest])
        self.identities[subject] = identity
        return subject

    def built(self, claim: Claim) -> None:
        """Record ``claim``."""
        self.claims.append(claim)
        self.cell.claims += 1

    def judge(self, claim: Claim) -> Verdict:
        """Write down what is left to measure for ``claim``; it counts as true, so that the test goes on."""
        measures = list(dict.fromkeys(m for difference in claim.differences for m, _ in difference.terms))
        self._probe(measures)
        if self._decided(claim, measures):
            self.cell.settled += 1
        else:
            self._needed(measures)
        return Verdict("supported", "not measured", None, (), self.options.population, self.options.confidence)

    def measure(self, quantity: Quantity) -> float:
        """The number of ``quantity`` where the store has it; ends the test else."""
        measures = [measure for measure, _ in quantity.terms]
        if not self._stand_ins(measures):
            try:
                return self.stored.measure(quantity)
            except BudgetSpentError:
                self.stored.interrupted = ""
        raise self._stop(measures)

    def ids(self, measure: Measure) -> tuple[int, ...]:
        """The samples of a flip population where the store has them; ends the test else."""
        if not self._stand_ins([measure]):
            try:
                return self.stored.ids(measure)
            except BudgetSpentError:
                self.stored.interrupted = ""
        raise self._stop([measure])

    def close(self) -> None:
        """Nothing is recorded after a test."""

    def _stop(self, measures: list[Measure]) -> PlanStop:
        self._probe(measures)
        self._needed(measures)
        self.cell.note = "depends on measured numbers: what it claims after the first of them is not known"
        return PlanStop()

    def _probe(self, measures: list[Measure]) -> None:
        """Each test forwards the probes of a stored subject, to see that what is stored is about it."""
        for measure, subject in (
            (m, subject) for m in measures if m.metric not in STORED_NOWHERE for subject in m.subjects
        ):
            n, of = min(PROBES, len(self.stored.prepared[subject].data)), self.identities[subject] or subject.digest
            self.planner.probed[self.cell.id, of] = n
            if measure.plan is not None and measure.plan.randomised:
                self.planner.probed[self.cell.id, f"{of}, by votes"] = n * DRAWN

    def _stand_ins(self, measures: list[Measure]) -> bool:
        return any(self.identities.get(subject) for measure in measures for subject in measure.subjects)

    def _decided(self, claim: Claim, measures: list[Measure]) -> bool:
        if self._stand_ins(measures):
            return all(measure.metric in STORED_NOWHERE for measure in measures)
        before = len(self.stored.unfinished)
        verdict = self.stored.judge(claim)
        for measurement in self.stored.measured.values():
            self._learn(measurement)
        left = verdict.status == "inconclusive" and len(self.stored.unfinished) > before
        return not left

    def _learn(self, measurement: Measurement) -> None:
        """Remember what the stored stages of ``measurement`` took, if they ran on such a device."""
        key = measurement.ledger.key
        if key in self.planner.learned:
            return
        self.planner.learned.add(key)
        content = measurement.prepared.bench.store.manifest(key) or {}
        if str(content.get("provenance", {}).get("device", "")).split(":")[0] != self.planner.device.split(":")[0]:
            return
        network = architecture(measurement.prepared.loaded.module, measurement.prepared.data)
        for number, attack in enumerate(measurement.ledger.stages):
            costs = [s.cost for (stage, _), s in measurement.ledger.segments.items() if stage == number]
            self.planner.spent[network, attack] = [*self.planner.spent.get((network, attack), ()), *costs]

    def _needed(self, measures: list[Measure]) -> None:
        for measure in measures:
            for subject in measure.subjects if measure.metric not in STORED_NOWHERE else ():
                voted = measure.plan is not None and measure.plan.randomised
                self._need(subject, "voted" if voted else "clean", None, leaning=False)
            if measure.plan is not None:
                kind = kind_of(measure.metric)
                source = measure.subjects[1] if kind == "transferred" else None
                if source is not None:
                    self._need(source, "crafted", measure.plan, leaning=False)
                attacked = measure.subjects if measure.metric == "critical_strength" else measure.subjects[:1]
                for subject in attacked:
                    self._need(subject, kind, measure.plan, leaning=measure.metric in LEANING, source=source)

    def _need(
        self, subject: Subject, kind: Kind, plan: Plan | None, *, leaning: bool, source: Subject | None = None
    ) -> None:
        prepared = self.stored.prepared[subject]
        data = prepared.data
        identity = self.identities[subject]
        plan = None if plan is None else resolve(plan, data.classes)
        of_source = "" if source is None else self.identities[source] or source.digest
        made = None if plan is None else plan.material()
        key = digest([identity or subject.digest, data.digest, kind, made, of_source])
        planned = self.planner.measurements.get(key)
        if planned is None:
            ledger = None
            if not identity and (source is None or not self.identities[source]):
                try:
                    crafting = None if source is None else self.stored.prepared[source]
                    measurement = prepared.measurement(kind, plan, crafting)
                    self._learn(measurement)
                    ledger = measurement.ledger
                except PrunerobError:  # without clean predictions it is not known which samples are attacked
                    ledger = None
            built = subject.digest[:12] if not identity else self.planner.models.get(identity, "of a model to be built")
            title = f"{subject.role}: {built}"
            planned = measurement_left(key, title, data, kind, plan, ledger)
            planned.architecture = architecture(prepared.loaded.module, data)
            self.planner.measurements[key] = planned
        if key not in self.cell.needs:
            self.cell.needs.append(key)
        if leaning and plan is not None:
            planned.claims += 1
            twin = prepared.loaded.twin is not None
            planned.audit = audit_bound(plan, kind, load_of(data, len(data)), twin=twin)


def _why(error: pytest.ExceptionInfo[BaseException]) -> str:
    """Why a test ended before its end, in a sentence."""
    if error.errisinstance(PlanStop):
        return "depends on measured numbers"
    if error.errisinstance(pytest.skip.Exception):
        return "skipped"
    if error.errisinstance(pytest.xfail.Exception):
        return "not run by its xfail"
    first = next(iter(str(error.value).splitlines()), "")
    return f"ends with {error.typename}: {first}"


def stages_with_time(planner: Planner) -> Iterator[PlannedMeasurement]:
    """The measurements that something is left of, each stage with its estimated time."""
    for planned in planner.measurements.values():
        planned.stages = [
            StagePlan(
                stage.name,
                stage.left,
                stage.of,
                stage.forward,
                stage.backward,
                planner.seconds(planned.architecture, stage.name, stage.forward),
            )
            for stage in planned.stages
        ]
        if planned.bound.forward:
            yield planned
