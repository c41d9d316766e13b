"""A subject on a slice of a dataset, and its measurements: ledgers that are continued from the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pytest_prunerob import adequacy, probes
from pytest_prunerob.adequacy import PROBES, Audit, Check, Finding, audit, off_declared, outcomes
from pytest_prunerob.attacks import ATTACKS, Pool
from pytest_prunerob.budget import Budget
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.engine import Engine
from pytest_prunerob.errors import ModelError, StoreError
from pytest_prunerob.fingerprint import digest, sources
from pytest_prunerob.ledger import Cost, Kind, Ledger, Segment, WitnessSet
from pytest_prunerob.material import key_material, made_of, state, training
from pytest_prunerob.plans import MICRO_BATCH, Plan, resolve
from pytest_prunerob.store import SCHEMA, Store
from pytest_prunerob.subjects import LoadedSubject, plain_attributes, prepare

KEPT = 8  # prepared subjects kept in memory (ours)


@dataclass
class Bench:
    """What all measurements of a run share. ``report`` is told in words what is being done."""

    store: Store
    engine: Engine
    report: Callable[[str], None]
    cost: Cost = Cost()
    adequacy: Literal["basic", "full"] = "basic"
    budget: Budget = Budget()
    _prepared: OrderedDict[tuple[object, ...], Prepared] = field(default_factory=OrderedDict)

    def prepare(self, model: object, data: Dataset, role: str) -> Prepared:
        """``model`` on ``data``; the last few are kept, so that a dense model shared by many cells is probed once.

        Raises:
            ModelError: where it is no model, or what it is made of cannot be identified.
        """
        loaded = prepare(model, role=role, device=self.engine.device)
        key = (loaded.digest, training(loaded.module), data.digest, loaded.accuracy)
        known = self._prepared.get(key)
        if known is None:
            self._prepared[key] = Prepared(loaded, data, self)
        else:  # the module seen before may have become another model since, and this one may yet
            known.loaded = replace(loaded, role=known.loaded.role)
        self._prepared.move_to_end(key)
        while len(self._prepared) > KEPT:
            self._prepared.popitem(last=False)
        return self._prepared[key]

    def spent(self, cost: Cost) -> None:
        """Add to the cost of the run."""
        self.cost = self.cost + cost


@dataclass
class Prepared:
    """A subject on the samples it is judged on, with its probe logits, audit and clean predictions."""

    loaded: LoadedSubject
    data: Dataset
    bench: Bench
    _probes: Tensor | None = None
    _drawn_probes: Tensor | None = None
    _votes: Measurement | None = None
    known_logits: dict[int, Tensor] = field(default_factory=dict)
    _findings: tuple[Finding, ...] | None = None
    _measurements: dict[str, Measurement] = field(default_factory=dict)
    _state: str = ""
    _attributes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._state = state(self.loaded.module)
        self._attributes = plain_attributes(self.loaded.module)

    @property
    def changed(self) -> bool:
        """Whether the module has other weights, settings or another mode than when it was identified."""
        now = plain_attributes(self.loaded.module)  # a forward may set new ones, such as a size that it remembers
        same = all(
            name in now and (now[name] is value or now[name] == value) for name, value in self._attributes.items()
        )
        return not same or state(self.loaded.module) != self._state

    def require_unchanged(self, role: str) -> None:
        """Refuse to measure, or to answer for, what is no longer the subject.

        Raises:
            ModelError: where the module has changed.
        """
        if self.changed:
            raise ModelError(
                f"the {role} model was changed after it became a subject: prune or train a copy, copy.deepcopy(model)"
            )

    @property
    def probes(self) -> Tensor:
        """Logits (≤64, K) of the first samples: they show that a stored result is about this very subject."""
        if self._probes is None:
            first = range(min(PROBES, len(self.data)))
            known = self.clean_logits(first)
            if known is None:
                known, cost = self.bench.engine.clean(self.loaded.module, self.data.x[:PROBES])
                self.bench.spent(cost)
                self.known_logits.update(zip(first, known, strict=True))
            self._probes = known
        return self._probes

    @property
    def drawn_probes(self) -> Tensor:
        """The same of a model that draws: means over forwards whose draws follow the seed, so that they repeat."""
        if self._drawn_probes is None:
            x = self.data.x[:PROBES]
            self._drawn_probes, cost = self.bench.engine.mean_logits(self.loaded.module, x, probes.DRAWN)
            self.bench.spent(cost)
        return self._drawn_probes

    def clean_logits(self, positions: Sequence[int]) -> Tensor | None:
        """Clean logits (N, K) of the samples at ``positions`` if this process has forwarded them all."""
        if not all(position in self.known_logits for position in positions):
            return None
        return torch.stack([self.known_logits[position] for position in positions])

    def findings(self) -> tuple[Finding, ...]:
        """The indicators of the model; those on the probes are kept in the store, that on its accuracy needs all."""
        if self._findings is None:
            found = self._audited()
            if self.loaded.accuracy is not None and all(f.level != "error" or f.randomness for f in found):
                right = len(self.correct(voted=any(finding.randomness for finding in found)))
                off = off_declared(right, len(self.data), self.loaded.accuracy)
                found = found if off is None else (*found, off)
            self._findings = found
        return self._findings

    @property
    def draws(self) -> bool:
        """Whether the model draws at inference, as its check found."""
        return any(finding.randomness for finding in self.findings())

    def _audited(self) -> tuple[Finding, ...]:
        store, key = self.bench.store, self.key("audit", None, indicators=sources(adequacy))
        material, content = self.material("audit", None), store.manifest(key)
        found = None if content is None else _stored_findings(content, material)
        if content is not None and found is None:
            store.set_aside(key, "the findings are not those of this model")
        if found is None:
            self.bench.budget.require(f"the check of the {self.loaded.role} model")
            self.bench.report(f"{self.loaded.role}: checking the model")
            x = self.data.x[:PROBES].to(self.bench.engine.device)
            found = audit(self.loaded.module, x, classes=self.data.classes, exported=self.loaded.exported)
            if store.mode != "ro":
                store.create(key, {**material, "findings": [asdict(finding) for finding in found]})
        return found

    @property
    def known_findings(self) -> tuple[Finding, ...]:
        """The findings as far as the model was checked; asking measures nothing."""
        return self._findings or ()

    @property
    def known_checks(self) -> tuple[Check, ...]:
        """The outcomes of all indicators of the model, none where it was not checked; asking measures nothing."""
        if self._findings is None:
            return ()
        return outcomes(self._findings, declared=self.loaded.accuracy is not None)

    def key(self, kind: str, plan: Plan | None, **more: object) -> str:
        """The key of a measurement: everything that decides its outcomes (design 4.2)."""
        return digest({"schema": SCHEMA, **self.material(kind, plan), **more})

    def material(self, kind: str, plan: Plan | None) -> dict[str, Any]:
        """The key material; forward chunk, worker and device are provenance and no part of it."""
        return key_material(kind, plan, self.loaded, self.data, self.bench.engine)

    def measurement(self, kind: Kind, plan: Plan | None = None, source: Prepared | None = None) -> Measurement:
        """The measurement of ``kind`` under ``plan``, as far as it is in the store.

        In kind "transferred" the inputs are crafted on ``source``.
        """
        if plan is not None:
            plan = resolve(plan, self.data.classes)
            attacked = None if source is not None else self.loaded.module
            for stage in plan.stages:
                attack = ATTACKS[stage.attack]
                attack.require(plan.threat.norm, target=plan.threat.target, module=attacked)
                if attack.check is not None:
                    attack.check(stage, self.data.inputs)
        crafted = None if source is None else source.measurement("crafted", plan)
        key = self.key(kind, plan) if crafted is None else self.key(kind, plan, crafted=crafted.ledger.key)
        known = self._measurements
        if key not in known:
            start: frozenset[int] = frozenset(range(len(self.data)))
            if kind == "decide":
                start = frozenset(self.correct(voted=plan is not None and plan.randomised))
            stages = tuple(stage.attack for stage in plan.stages) if plan else ("clean",)
            size = plan.size(len(self.data)) if plan else MICRO_BATCH
            ledger = Ledger(key, kind, len(self.data), size, stages, start)
            known[key] = Measurement(self, kind, plan, ledger, crafted=crafted)
            known[key].open()
        return known[key]

    def predictions(self) -> list[int | None]:
        """The predicted label of every sample on the clean input; ``None`` where an output is not finite."""
        measurement = self.measurement("clean")
        measurement.finish()
        values = measurement.ledger.values
        return [int(values[p]) if p in values else None for p in range(len(self.data))]

    def pool(self) -> Pool:
        """All samples whose output is finite, with the labels the model predicts, for attacks that start from some."""
        predicted = {p: label for p, label in enumerate(self.predictions()) if label is not None}
        return Pool(self.data.x[list(predicted)], torch.tensor(list(predicted.values()), dtype=torch.int64))

    def standing(self, *, voted: bool = False) -> list[bool | None]:
        """Whether each sample is classified correctly on the clean input; ``None`` where that is not known.

        By one forward, which leaves open the outputs that are not finite; or, ``voted``, by votes of repeated forwards,
        which leave open also what is too near to a tie.
        """
        if not voted:
            labels = self.data.y.tolist()
            return [None if found is None else found == labels[p] for p, found in enumerate(self.predictions())]
        measurement = self.votes()
        return [
            measurement.ledger.values.get(p, 0) > 0 if p not in measurement.ledger.errors else None
            for p in range(len(self.data))
        ]

    def why_unknown(self, *, voted: bool) -> str:
        """Why samples are neither right nor wrong on the clean input: of the first of them."""
        if not voted:
            return "the clean output is not finite"
        return f"on the clean input, {next(iter(self.votes().ledger.errors.values()), 'nothing is open')}"

    def votes(self) -> Measurement:
        """The votes on the clean inputs, completely measured (kind "voted")."""
        if self._votes is None:
            self._votes = self.measurement("voted")
        self._votes.finish()
        return self._votes

    def correct(self, *, voted: bool = False) -> list[int]:
        """The positions that are classified correctly on the clean input (see :meth:`standing`)."""
        return [p for p, right in enumerate(self.standing(voted=voted)) if right]


@dataclass
class Measurement:
    """One measurement of a subject: a ledger with its place in the store.

    ``cost`` is what this run spent on it; the ledger's segments carry what they cost whenever they were made.
    ``checks`` are the outcomes of its last audit, ``audits`` all of them by key (see ``auditing``). ``crafted`` is the
    measurement that made the inputs which are tried here (kind "transferred").
    """

    prepared: Prepared
    kind: Kind
    plan: Plan | None
    ledger: Ledger
    cost: Cost = Cost()
    checks: tuple[Check, ...] = ()
    audits: dict[str, Audit] = field(default_factory=dict)
    crafted: Measurement | None = None
    _seen: set[str] = field(default_factory=set)

    def open(self) -> None:
        """Join what the store holds, if it is about this very subject."""
        store, key = self.prepared.bench.store, self.ledger.key
        content = store.manifest(key)
        if content is None:
            store.misses += 1
            return
        if not made_of(content, self.material):
            store.set_aside(key, "the manifest is that of another measurement")
            store.misses += 1
            return
        if not probes.same(content.get("probes"), self._probes):
            store.set_aside(key, "the stored probe logits are not those of the model")
            store.misses += 1
            return
        store.hits += 1
        self.join()

    def run(self, stage: int, micro_batch: int) -> None:
        """Run one unit unless the store has it by now, and store it.

        Raises:
            StoreMissError: where the store is read-only.
            BudgetSpentError: where no time is left for a unit that the store does not have.
        """
        bench, key = self.prepared.bench, self.ledger.key
        if bench.store.mode == "ro":
            bench.budget.require(self.text)
            raise bench.store.missing(f"{self.text}")
        with bench.store.lock(key, f"{stage}-{micro_batch}"):
            self.join()
            if self.ledger.todo(micro_batch) != stage:
                return
            bench.budget.require(f"{self.text}: {self.ledger.stages[stage]}")
            bench.report(
                f"{self.text}: {self.ledger.stages[stage]}, micro-batch {micro_batch + 1} of "
                f"{self.ledger.micro_batches}, {len(self.ledger.broken)} of {len(self.ledger.start)} samples broken"
            )
            segment = self._measured(stage, micro_batch)
            if not bench.store.holds(key):
                bench.store.create(key, self._manifest())
            bench.store.add(segment)
            self.ledger.add(segment)

    @property
    def material(self) -> dict[str, Any]:
        """The key material; of inputs that are tried on another model than theirs, the key of their making too."""
        made = {} if self.crafted is None else {"crafted": self.crafted.ledger.key}
        return {**self.prepared.material(self.kind, self.plan), **made}

    def finish(self) -> None:
        """Run every unit that is left."""
        for micro_batch in range(self.ledger.micro_batches):
            while (stage := self.ledger.todo(micro_batch)) is not None:
                self.run(stage, micro_batch)

    @property
    def text(self) -> str:
        """What is measured, in words."""
        clean = "clean accuracy by votes" if self.kind == "voted" else "clean accuracy"
        return f"{self.prepared.loaded.role} model, {self.attack or clean}"

    @property
    def attack(self) -> str:
        """The plan in words, and on which model its inputs were crafted; empty for clean predictions."""
        text = "" if self.plan is None else self.plan.text
        return text if self.crafted is None else f"{text}, crafted on the {self.crafted.prepared.loaded.role} model"

    def _measured(self, stage: int, micro_batch: int) -> Segment:
        prepared, engine, key = self.prepared, self.prepared.bench.engine, self.ledger.key
        module, data = prepared.loaded.module, prepared.data
        positions = self.ledger.survivors(stage, micro_batch)
        x, y = data.x[list(positions)], data.y[list(positions)]
        if self.kind == "voted":
            ballot, cost = engine.votes(module, x, y)
            self.spend(cost)
            broken, holds = ballot.broken.tolist(), ballot.holds.tolist()
            called = {p: float(holds[i]) for i, p in enumerate(positions) if broken[i] or holds[i]}
            errors = {p: ballot.reason(i) for i, p in enumerate(positions) if p not in called}
            return Segment(key, stage, micro_batch, positions, {}, errors, called, cost)
        if self.plan is None:
            logits, cost = engine.clean(module, x)
            self.spend(cost)
            prepared.known_logits.update(zip(positions, logits, strict=True))
            finite = logits.isfinite().all(1).tolist()
            labels = logits.argmax(1).tolist()
            values = {p: float(labels[i]) for i, p in enumerate(positions) if finite[i]}
            errors = {p: "the output is not finite" for i, p in enumerate(positions) if not finite[i]}
            return Segment(key, stage, micro_batch, positions, {}, errors, values, cost)
        if self.crafted is not None:
            return self._transferred(stage, micro_batch, positions)
        clean = prepared.clean_logits(positions)
        pool = prepared.pool() if ATTACKS[self.plan.stages[stage].attack].starts else None
        result = engine.run(self.kind, module, self.plan, stage, x, y, data.classes, clean, pool=pool)
        self.spend(result.cost)
        witnesses: tuple[WitnessSet, ...] = ()
        if result.witness is not None:
            lengths = result.values if self.kind == "crafted" else result.broken
            places = sorted(lengths)
            found, far = [positions[i] for i in places], [lengths[i] for i in places]
            kept = prepared.bench.store.add_witnesses(key, found, far, result.witness, always=self.kind == "crafted")
            witnesses = (kept,)
        return Segment(
            key,
            stage,
            micro_batch,
            positions,
            {} if self.kind == "minimise" else {positions[i]: length for i, length in result.broken.items()},
            {positions[i]: reason for i, reason in result.errors.items()},
            {positions[i]: value for i, value in result.values.items()},
            result.cost,
            witnesses,
        )

    def _transferred(self, stage: int, micro_batch: int, positions: Sequence[int]) -> Segment:
        """What the inputs that were crafted on another model do to this one."""
        prepared, crafted, plan = self.prepared, self.crafted, self.plan
        assert crafted is not None
        assert plan is not None
        made = crafted.inputs(stage, micro_batch)
        usable = [position for position in positions if position in made]
        failed = crafted.ledger.errors
        errors = {p: failed.get(p, "no input was crafted") for p in positions if p not in made}
        if not usable:
            return Segment(self.ledger.key, stage, micro_batch, tuple(positions), {}, errors)
        z = torch.stack([made[position] for position in usable])
        data, module = prepared.data, prepared.loaded.module
        result = prepared.bench.engine.judge(module, data.x[usable], z, data.y[usable], plan.threat.norm,
                                             voted=plan.randomised)  # fmt: skip
        self.spend(result.cost)
        broken = {usable[i]: length for i, length in result.broken.items()}
        errors |= {usable[i]: reason for i, reason in result.errors.items()}
        return Segment(self.ledger.key, stage, micro_batch, tuple(positions), broken, errors, cost=result.cost)

    def inputs(self, stage: int, micro_batch: int) -> dict[int, Tensor]:
        """The crafted inputs (C, H, W) of a unit by position (kind "crafted"), made first where the store has none.

        Raises:
            StoreError: where the store loses one of them again and again.
            BudgetSpentError: where no time is left to make them.
        """
        self._craft(stage, micro_batch)
        try:
            return self._stored_inputs(stage, micro_batch)
        except StoreError:  # damaged since they were joined: set aside and reported by now
            self.ledger.segments.clear()
            self._seen.clear()
            self.join()
            self._craft(stage, micro_batch)
            return self._stored_inputs(stage, micro_batch)

    def _craft(self, stage: int, micro_batch: int) -> None:
        while (first := self.ledger.todo(micro_batch)) is not None and first <= stage:
            self.run(first, micro_batch)

    def _stored_inputs(self, stage: int, micro_batch: int) -> dict[int, Tensor]:
        store, segment = self.prepared.bench.store, self.ledger.segments.get((stage, micro_batch))
        if segment is None:  # every sample of it failed in a stage before
            return {}
        found: dict[int, tuple[float, str, Tensor]] = {}
        for kept in segment.witnesses:
            rows = store.rows(self.ledger.key, kept)
            for place, position in enumerate(kept.positions if rows is not None else ()):
                assert rows is not None
                # Where two processes made the unit, the order in which their files were read decides nothing.
                one = (kept.distances[place], kept.hashes[place], torch.from_numpy(rows[place].copy()))
                found[position] = min(found.get(position, one), one, key=lambda item: item[:2])
        if lost := set(segment.values) - found.keys():
            raise StoreError(f"{self.text}: the store has lost the input crafted for sample {min(lost)}; run again")
        return {position: tensor for position, (_, _, tensor) in found.items()}

    def spend(self, cost: Cost) -> None:
        """Count work done for this measurement."""
        self.cost = self.cost + cost
        self.prepared.bench.spent(cost)

    def join(self) -> None:
        """Add what other processes have stored since."""
        store, key = self.prepared.bench.store, self.ledger.key
        for name, segment in store.segments(key, skip=self._seen).items():
            self._seen.add(name)
            misfit = self.ledger.misfit(segment)
            if misfit:
                store.refuse(key, name, misfit)
            else:
                self.ledger.add(segment)

    def _manifest(self) -> dict[str, Any]:
        return {
            **self.material,
            "probes": probes.to_json(self._probes),
            "shape": self.ledger.shape(),
            "provenance": {
                "role": self.prepared.loaded.role,
                "plan": self.attack,
                "data": self.prepared.data.name,
                "device": self.prepared.bench.engine.device,
                "chunk": self.prepared.bench.engine.chunk,
            },
        }

    @property
    def voted(self) -> bool:
        """Whether votes decide the outcomes, so that the subject may draw."""
        return self.kind == "voted" or (self.plan is not None and self.plan.randomised)

    @property
    def _probes(self) -> Tensor:
        return self.prepared.drawn_probes if self.voted else self.prepared.probes


def _stored_findings(content: Mapping[str, Any], material: Mapping[str, Any]) -> tuple[Finding, ...] | None:
    try:
        found = tuple(Finding(**finding) for finding in content["findings"])
    except (KeyError, TypeError):
        return None
    return found if made_of(content, material) else None
