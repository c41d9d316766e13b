"""Answers quantities and claims: decides what to measure, and measures no more than what decides.

One :class:`TestEvaluation` belongs to one running test. It records every claim that the test makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

from pytest_prunerob import facts, metrics
from pytest_prunerob.claims import Claim, Measure, Quantity, Subject
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import ClaimError, PrunerobError
from pytest_prunerob.ledger import Cost
from pytest_prunerob.measurement import Bench, Measurement, Prepared
from pytest_prunerob.reported import Number
from pytest_prunerob.verdicts import Known, Verdict, judge, settled

FLIP_GROUPS = {"auc_s10": ("S10", "S11"), "auc_s01": ("S01", "S00"), "p_s10": ("S10", "S11"), "p_s01": ("S01", "S00")}


@dataclass(repr=False)  # tracebacks show subjects, which hold one: its tensors and ledgers would fill the screen
class TestEvaluation:
    """The evaluation of one test: its claims, its subjects, what it measured.

    ``reported`` is the published number of the cell: where there is one, measurements are completed so that the report
    can put the re-evaluated number beside it. After ``close`` no more claims are taken.
    """

    __test__ = False

    bench: Bench
    population: str
    confidence: float
    reported: Number | None = None
    claims: list[Claim] = field(default_factory=list)
    measured: dict[str, Measurement] = field(default_factory=dict)
    prepared: dict[Subject, Prepared] = field(default_factory=dict)
    closed: bool = False
    spent_before: Cost = Cost()

    def __post_init__(self) -> None:
        self.spent_before = self.bench.cost

    def subject(self, model: object, data: Dataset, role: str) -> Subject:
        """The subject ``model`` on ``data`` in ``role``.

        Raises:
            ModelError: where it is no model, or what it is made of cannot be identified.
        """
        prepared = self.bench.prepare(model, data, role)
        subject = Subject(role, prepared.loaded.digest, data.name, data.digest, self)
        self.prepared[subject] = prepared
        return subject

    def built(self, claim: Claim) -> None:
        """Record ``claim``."""
        if self.closed:
            raise ClaimError(f"'{claim.text}' was made after its test had ended: claims belong into the test function")
        self.claims.append(claim)

    def judge(self, claim: Claim) -> Verdict:
        """Measure what decides ``claim`` and return its verdict; bad input becomes the verdict ``error``."""
        measures = list(dict.fromkeys(m for difference in claim.differences for m, _ in difference.terms))
        complete = self.population == "distribution" or any(self._compared(measure) for measure in measures)
        try:
            self._require_unchanged(measures)
            known = self._settle(claim, measures, complete=complete)
        except PrunerobError as error:
            known = {
                measure: Known(Fraction(0), float("inf"), complete=False, error=str(error)) for measure in measures
            }
        return judge(claim, known, population=self.population, confidence=self.confidence, flags=self._flags)

    def measure(self, quantity: Quantity) -> float:
        """The number of ``quantity``, completely measured.

        Raises:
            ClaimError: where it has none that counts: samples are undecided, a group is too small, a finding is there.
        """
        self._require_unchanged([measure for measure, _ in quantity.terms])
        total: Fraction | float = quantity.constant
        for measure, factor in quantity.terms:
            self._finish(measure)
            known = self._known(measure)
            number = measure.number.value if measure.number is not None else known.number
            if known.error or known.distrust or number is None:  # as a constant of a claim it would count in full
                raise ClaimError(f"{measure.text} has no number: {known.error or known.distrust or known.note}")
            total = total + factor * number
        return float(total)

    def ids(self, measure: Measure) -> tuple[int, ...]:
        """Original indices of the samples of a flip population."""
        self._require_unchanged([measure])
        positions = self._populations(measure)[dict(measure.options)["population"]]
        indices = self._of(measure.subjects[0]).data.ids
        return tuple(sorted(indices[position] for position in positions))

    def close(self) -> None:
        """Take no more claims."""
        self.closed = True

    @property
    def cost(self) -> Cost:
        """What this test spent."""
        now, before = self.bench.cost, self.spent_before
        return Cost(now.forward - before.forward, now.backward - before.backward, now.seconds - before.seconds)

    def _settle(self, claim: Claim, measures: Sequence[Measure], *, complete: bool) -> dict[Measure, Known]:
        """Run units until the claim is settled, or (``complete``) until nothing is left."""
        while True:
            known = {measure: self._known(measure) for measure in measures}
            if any(item.error for item in known.values()):
                return known
            if settled(claim, known) is not None and not complete:
                return known
            unit = self._next_unit(claim, known)
            if unit is None:
                return known
            unit()

    def _next_unit(self, claim: Claim, known: Mapping[Measure, Known]) -> Callable[[], None] | None:
        """What to run next: first the stage that refutes cheaply, then whatever settles the claim soonest.

        Stage by stage over all samples finds breaks fastest; micro-batch by micro-batch through all stages is the only
        way to show survival. So the first stage runs over all samples of every measure. After that, if every undecided
        sample survived, the claim would come out one way: the measures whose survivors that verdict needs go first,
        micro-batch by micro-batch; those whose breaks it needs follow, stage by stage.
        """
        weights = {m: factor for difference in claim.differences for m, factor in difference.terms}
        unfinished = [(m, self._measurement(m)) for m in known if not known[m].complete]
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

    def _finish(self, measure: Measure) -> None:
        if not self._problem(measure, "error"):
            found = self._measurement(measure)
            if found is not None:
                found.finish()

    def _known(self, measure: Measure) -> Known:
        if measure.number is not None:
            return Known(measure.number.low, measure.number.high, value=measure.number.value)
        if measure.metric in ("sparsity", "parameters", "size_bytes"):
            value = self._fact(measure)
            return Known(value, value)
        error = self._problem(measure, "error")
        if error:
            return Known(Fraction(0), Fraction(1), len(self._of(measure.subjects[0]).data), error=error)
        first = self._of(measure.subjects[0])
        if measure.metric == "accuracy":
            predictions = first.predictions()
            return metrics.accuracy(len(first.correct()), predictions.count(None), len(predictions))
        if measure.metric == "share":
            groups = self._populations(measure)
            return metrics.share(len(groups[dict(measure.options)["population"]]), len(first.data))
        return self._attacked(measure, first)

    def _attacked(self, measure: Measure, first: Prepared) -> Known:
        """Metrics that rest on an attack."""
        assert measure.plan is not None
        distrust = self._problem(measure, "inconclusive")
        if measure.metric in FLIP_GROUPS:
            names = FLIP_GROUPS[measure.metric]
            groups = self._populations(measure)
            small = metrics.small_groups(groups[names[0]], groups[names[1]], names)
            if small:  # decided by the clean predictions alone, so nothing is attacked
                n = len(groups[names[0]]) + len(groups[names[1]])
                return Known(Fraction(0), Fraction(1), n, distrust=small, settle="more samples")
        found = self._measurement(measure)
        assert found is not None
        attack = measure.plan.attack_set
        if measure.metric in ("robust_accuracy", "accuracy_under"):
            if measure.metric == "accuracy_under":  # a plain fact about this attack, which needs no adequacy
                return metrics.surviving(found.ledger, attack)
            return metrics.surviving(found.ledger, attack, distrust, first.predictions().count(None))
        if not found.ledger.complete:
            return Known(Fraction(0), float("inf"), found.ledger.n, complete=False, measurement=found.ledger.key)
        unknown = first.predictions().count(None)
        if unknown and measure.metric in ("distance", "failed"):  # neither correct nor wrong, so of no group
            problem = f"{unknown} of {len(first.data)} samples have a clean output that is not finite"
            return metrics.unknown_distance(found.ledger, attack, problem)
        if measure.metric == "distance":
            quantile = Fraction(dict(measure.options).get("quantile", "1/2"))
            return metrics.distance_quantile(found.ledger, first.correct(), quantile, attack, distrust)
        if measure.metric == "failed":
            return metrics.distance_failed(found.ledger, first.correct(), attack)
        return metrics.separation(
            found.ledger,
            groups[names[0]],
            groups[names[1]],
            names,
            attack,
            p_value=measure.metric.startswith("p_"),
            distrust=distrust,
        )

    def _measurement(self, measure: Measure) -> Measurement | None:
        """The measurement that ``measure`` rests on, if it is one that runs in units."""
        if measure.plan is None:
            return None
        kind = {"robust_accuracy": "decide", "accuracy_under": "returned"}.get(measure.metric, "minimise")
        prepared = self._of(measure.subjects[0])
        prepared.predictions()  # the report tells the clean errors, when the model may be another one
        found = prepared.measurement(kind, measure.plan)  # type: ignore[arg-type]
        self.measured[found.ledger.key] = found
        return found

    def _populations(self, measure: Measure) -> Mapping[str, tuple[int, ...]]:
        flags = []
        for subject in measure.subjects:
            prepared = self._of(subject)
            if None in prepared.predictions():
                raise ClaimError(f"{subject.role} has clean outputs that are not finite")
            correct = set(prepared.correct())
            flags.append([position in correct for position in range(len(prepared.data))])
        return metrics.populations(flags[0], flags[1])

    def _fact(self, measure: Measure) -> Fraction:
        module = self._of(measure.subjects[0]).loaded.module
        if measure.metric == "sparsity":
            return facts.sparsity(module, **cast("dict[str, facts.Unit]", dict(measure.options)))  # type: ignore[arg-type]
        count = facts.parameters if measure.metric == "parameters" else facts.size_bytes
        return Fraction(count(module))

    def _problem(self, measure: Measure, level: str) -> str:
        """The findings of ``level`` about the subjects of ``measure``, in one sentence."""
        found = [
            f"{subject.role}: {finding.message}"
            for subject in measure.subjects
            for finding in self._of(subject).findings()
            if finding.level == level
        ]
        return "; ".join(found)

    def _compared(self, measure: Measure) -> bool:
        if measure.number is not None:
            return True
        return self.reported is not None and measure.metric == self.reported.metric

    def _flags(self, measure: Measure) -> Sequence[bool]:
        first = self._of(measure.subjects[0])
        if measure.metric == "accuracy":
            members = set(first.correct())
        elif measure.metric == "share":
            members = set(self._populations(measure)[dict(measure.options)["population"]])
        else:
            found = self._measurement(measure)
            assert found is not None
            members = set(found.ledger.survived)
        return [position in members for position in range(len(first.data))]

    def _require_unchanged(self, measures: Sequence[Measure]) -> None:
        for subject in dict.fromkeys(subject for measure in measures for subject in measure.subjects):
            self._of(subject).require_unchanged(subject.role)

    def _of(self, subject: Subject) -> Prepared:
        return self.prepared[subject]


def _unit(measurement: Measurement, stage: int, micro_batch: int) -> Callable[[], None]:
    return lambda: measurement.run(stage, micro_batch)


def _holds_if_all_survive(claim: Claim, known: Mapping[Measure, Known]) -> bool:
    best = [sum(float(f * known[m].high) for m, f in d.terms) + float(d.constant) for d in claim.differences]
    return min(best) >= 0


def _width(known: Known) -> float:
    return float(known.high) - float(known.low)
