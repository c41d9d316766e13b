"""Answers quantities and claims: decides what to measure, and measures no more than what decides.

One :class:`TestEvaluation` belongs to one running test. It records every claim that the test makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf

from pytest_prunerob import metrics
from pytest_prunerob.adequacy.distances import undercut
from pytest_prunerob.auditing import audited
from pytest_prunerob.claims import FACTS, OF_FORWARDS, Claim, Measure, Quantity, Subject
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import BudgetSpentError, ClaimError, PrunerobError
from pytest_prunerob.factsheet import Factsheet
from pytest_prunerob.known import Known, settled
from pytest_prunerob.ledger import Cost, Kind
from pytest_prunerob.measurement import Bench, Measurement, Prepared
from pytest_prunerob.reported import Number
from pytest_prunerob.scheduling import next_in_order, next_unit
from pytest_prunerob.verdicts import LEANING, Verdict, judge, leaning, may_stop, stopped

# What each metric that rests on an attack measures; the others measure smallest distances.
_KINDS: Mapping[str, Kind] = {
    "robust_accuracy": "decide",
    "accuracy_under": "returned",
    "transfer": "transferred",
    "corruption_accuracy": "returned",
    "clever": "estimate",
}
FLIP_GROUPS = {"auc_s10": ("S10", "S11"), "auc_s01": ("S01", "S00"), "p_s10": ("S10", "S11"), "p_s01": ("S01", "S00")}


# Plain facts about what an attack, a corruption or another model's attack returned: they need no adequacy.
PLAIN = ("accuracy_under", "transfer", "corruption_accuracy")


def kind_of(metric: str) -> Kind:
    """The kind of measurement that ``metric`` rests on."""
    return _KINDS.get(metric, "minimise")


def _voted(measure: Measure) -> bool:
    """Whether votes decide the outcomes behind ``measure`` where its subject draws, so that it may."""
    return measure.metric == "accuracy" or (measure.plan is not None and measure.plan.randomised)


def _strengths(measure: Measure) -> list[float]:
    """The ε at which ``measure`` asks who survives, where it asks that of distances."""
    if measure.metric not in ("security_curve", "critical_strength"):
        return []
    return [float(Fraction(text)) for text in dict(measure.options)["eps"].split()]


@dataclass(repr=False)  # tracebacks show subjects, which hold one: its tensors and ledgers would fill the screen
class TestEvaluation:
    """The evaluation of one test: its claims, its subjects, what it measured.

    ``reported`` is the published number of the cell: where there is one, measurements are completed so that the report
    can put the re-evaluated number beside it. With ``decide="sequential"`` the samples are measured in their order, and
    a claim is decided by the first ones as soon as they suffice. After ``close`` no more claims are taken.

    ``weak`` says why the attack behind a measure may not have worked, ``stands_on`` which of its stages could have;
    ``audit_errors`` why that is not known.

    ``unfinished`` are the claims that are open because the time budget was spent; ``interrupted`` says why the test did
    not get a number it asked for, after which nothing that it does counts.
    """

    __test__ = False

    bench: Bench
    population: str
    confidence: float
    reported: Number | None = None
    decide: str = "exact"
    claims: list[Claim] = field(default_factory=list)
    measured: dict[str, Measurement] = field(default_factory=dict)
    prepared: dict[Subject, Prepared] = field(default_factory=dict)
    closed: bool = False
    weak: dict[Measure, str] = field(default_factory=dict)
    stands_on: dict[Measure, str] = field(default_factory=dict)
    audit_errors: dict[Measure, str] = field(default_factory=dict)
    _audited: set[tuple[Measure, tuple[tuple[int, int], ...]]] = field(default_factory=set)
    unfinished: list[Claim] = field(default_factory=list)
    interrupted: str = ""
    spent_before: Cost = Cost()
    _out_of_time: str = ""

    def __post_init__(self) -> None:
        self.spent_before = self.bench.cost
        self.facts = Factsheet(self.bench, self.confidence)

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
        """Measure what decides ``claim`` and return its verdict; bad input becomes the verdict ``error``.

        Where the verdict leans on survival, the attacks are audited: that may take the survivors away, or break some.
        """
        self._out_of_time = ""
        verdict = self._judged(claim, ())
        news = self._audit(leaning(claim, verdict))
        while news:
            verdict = self._judged(claim, news)
            news = self._audit(leaning(claim, verdict))
        if self._out_of_time and verdict.status == "inconclusive":
            self.unfinished.append(claim)
            again = "running again, which goes on where this run stopped"
            if self._out_of_time in verdict.reason and not verdict.settle.startswith(again):
                verdict = replace(verdict, settle=again)
        if self.reported is not None and any(self._compared(m) for term in verdict.terms for m in [term.measure]):
            reason = "; ".join(dict.fromkeys(part for part in (verdict.reason, self.reported.impossible) if part))
            verdict = replace(verdict, reason=reason)
        stands = (self.stands_on[m] for m in leaning(claim, verdict) if m in self.stands_on)
        return replace(verdict, stands_on="; ".join(dict.fromkeys(stands)))

    def _audit(self, measures: Sequence[Measure]) -> list[Measure]:
        """Audit the attacks behind ``measures``, and return those where that was news."""
        news = []
        for measure in measures:
            found = self._measurements(measure)
            state = (measure, tuple(unit for one in found for unit in sorted(one.ledger.segments)))
            if state in self._audited:
                continue
            self._audited.add(state)
            news.append(measure)
            try:
                audits = [audited(one, self.bench.adequacy) for one in found]
            except BudgetSpentError as spent:
                self.weak[measure] = self._out_of_time = str(spent)
            except PrunerobError as error:
                self.audit_errors[measure] = str(error)
            else:
                of = [(subject.role, audit) for subject, audit in zip(measure.subjects, audits, strict=False)]
                problems = [f"{role}: {audit.problem}" for role, audit in of if audit.problem]
                problems += [
                    f"{subject.role}: {problem}"
                    for subject, one, audit in zip(measure.subjects, found, audits, strict=False)
                    for eps in _strengths(measure)
                    if (problem := undercut(one.ledger.values, audit.nearest, eps))
                ]
                self.weak[measure] = "; ".join(dict.fromkeys(problems))
                self.stands_on[measure] = "; ".join(f"{role}: {', '.join(audit.adequate)}" for role, audit in of)
        return news

    def _judged(self, claim: Claim, audited_for_it: Sequence[Measure]) -> Verdict:
        """The verdict on ``claim`` as far as the attacks are trusted by now.

        Where attacks ``audited_for_it`` are not trusted, no more is measured: what stood on survival was supported, or
        refuted, by everything that was measured, and more outcomes of such an attack cannot turn it round.
        """
        measures = list(dict.fromkeys(m for difference in claim.differences for m, _ in difference.terms))
        complete = self.population == "distribution" or any(self._compared(measure) for measure in measures)
        unfinished = ""
        try:
            self._require_unchanged(measures)
            try:
                if self.interrupted:  # the claim may have been made for want of the number that was refused
                    raise BudgetSpentError(self.interrupted)
                known = self._settle(claim, measures, audited_for_it, complete=complete)
            except BudgetSpentError as spent:
                unfinished = self._out_of_time = str(spent)
                known = {measure: self._known_so_far(measure) for measure in measures}
        except PrunerobError as error:
            known = {
                measure: Known(Fraction(0), float("inf"), complete=False, error=str(error)) for measure in measures
            }
        return judge(
            claim,
            known,
            population=self.population,
            confidence=self.confidence,
            flags=self._flags,
            unfinished=unfinished,
            prefix=self._prefix if self.decide == "sequential" and not complete else None,
        )

    def measure(self, quantity: Quantity) -> float:
        """The number of ``quantity``, completely measured.

        Raises:
            ClaimError: where it has none that counts: samples are undecided, a group is too small, a finding is there.
        """
        self._require_unchanged([measure for measure, _ in quantity.terms])
        total: Fraction | float = quantity.constant
        for measure, factor in quantity.terms:
            with self._interruptible():
                self._finish(measure)
                if measure.metric in LEANING and self._known(measure).error == "":
                    self._out_of_time = ""
                    self._audit([measure])
                    if self._out_of_time:
                        raise BudgetSpentError(self._out_of_time)
                known = self._known(measure)
            number = measure.number.value if measure.number is not None else known.number
            if known.error or known.distrust or number is None:  # as a constant of a claim it would count in full
                raise ClaimError(f"{measure.text} has no number: {known.error or known.distrust or known.note}")
            total = total + factor * number
        return float(total)

    def ids(self, measure: Measure) -> tuple[int, ...]:
        """Original indices of the samples of a flip population."""
        self._require_unchanged([measure])
        with self._interruptible():
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

    def _settle(
        self, claim: Claim, measures: Sequence[Measure], audited_for_it: Sequence[Measure], *, complete: bool
    ) -> dict[Measure, Known]:
        """Run units until the claim is settled, or (``complete``) until nothing is left."""
        while True:
            known = {measure: self._known(measure) for measure in measures}
            if any(item.error for item in known.values()) or any(self.weak.get(m) for m in audited_for_it):
                return known
            if settled(claim, known) is not None and not complete:
                return known
            in_order = self.decide == "sequential" and not complete and may_stop(claim, known)
            if in_order and stopped(claim, known, self._prefix, self.confidence) is not None:
                return known
            unit = next_in_order(known, self._measurement) if in_order else next_unit(claim, known, self._measurement)
            if unit is None:
                return known
            unit()

    def _known_so_far(self, measure: Measure) -> Known:
        """What is known once the time budget is spent: where not even the clean predictions are there, nothing."""
        try:
            if not self.interrupted:
                return self._known(measure)
        except BudgetSpentError:
            pass
        n = len(self._of(measure.subjects[0]).data) if measure.subjects else 0
        return Known(float("-inf"), float("inf"), n, complete=False)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Remember that a number was refused: a test that goes on without it must not pass."""
        try:
            yield
        except BudgetSpentError as spent:
            self.interrupted = str(spent)
            raise

    def _finish(self, measure: Measure) -> None:
        if measure.plan is not None and not self._problem(measure, "error"):
            for found in self._measurements(measure):
                found.finish()

    def _known(self, measure: Measure) -> Known:
        if measure.number is not None:
            number = measure.number
            if number.impossible:
                settle = "the number as it was measured, or the number of samples that it was measured on"
                return Known(-inf, inf, distrust=number.impossible, value=number.value, settle=settle)
            return Known(number.low, number.high, value=number.value)
        if measure.metric in FACTS:
            wrong = self._problem(measure, "error") if measure.metric in OF_FORWARDS else ""
            if wrong:
                return Known(-inf, inf, complete=False, error=wrong)
            return self.facts.known(measure, [self._of(subject) for subject in measure.subjects])
        error = self._problem(measure, "error")
        if error:
            return Known(Fraction(0), Fraction(1), len(self._of(measure.subjects[0]).data), error=error)
        first = self._of(measure.subjects[0])
        if measure.metric == "accuracy":
            standing = first.standing(voted=first.draws)
            near = first.why_unknown(voted=True) if first.draws else ""
            return metrics.accuracy(standing.count(True), standing.count(None), len(standing), near)
        if measure.metric == "share":
            groups = self._populations(measure)
            return metrics.share(len(groups[dict(measure.options)["population"]]), len(first.data))
        return self._attacked(measure, first)

    def _attacked(self, measure: Measure, first: Prepared) -> Known:
        """Metrics that rest on an attack."""
        assert measure.plan is not None
        if measure in self.audit_errors:
            return Known(Fraction(0), Fraction(1), len(first.data), error=self.audit_errors[measure])
        distrust = self._problem(measure, "inconclusive") or self.weak.get(measure, "")
        if measure.metric in FLIP_GROUPS:
            names = FLIP_GROUPS[measure.metric]
            groups = self._populations(measure)
            small = metrics.small_groups(groups[names[0]], groups[names[1]], names)
            if small:  # decided by the clean predictions alone, so nothing is attacked
                n = len(groups[names[0]]) + len(groups[names[1]])
                enough = metrics.enough_for_groups(groups[names[0]], groups[names[1]], names, len(first.data))
                return Known(Fraction(0), Fraction(1), n, distrust=small, settle=enough)
        found = self._measurement(measure)
        assert found is not None
        attack = measure.plan.attack_set
        if measure.metric in ("robust_accuracy", *PLAIN):
            missing = tuple(first.data.ids[p] for p in sorted({*found.ledger.errors, *self._unknown(measure)}))
            if measure.metric in PLAIN:
                # Whatever a target does, an attack on a source that speaks against attacks shows little of it.
                doubt = self._problem(measure, "inconclusive", measure.subjects[1:])
                return replace(metrics.surviving(found.ledger, attack, doubt), missing=missing)
            unknown = first.standing(voted=found.voted).count(None)
            why = first.why_unknown(voted=found.voted)
            return replace(metrics.surviving(found.ledger, attack, distrust, unknown, why), missing=missing)
        unknown = first.predictions().count(None)
        if measure.metric == "security_curve":
            eps = Fraction(dict(measure.options)["eps"])
            return metrics.surviving_at(found.ledger, first.correct(), unknown, eps, attack, distrust)
        if not found.ledger.complete:
            return Known(Fraction(0), float("inf"), found.ledger.n, complete=False, measurement=found.ledger.key)
        if measure.metric == "critical_strength":
            return self._critical(measure, attack, distrust)
        if unknown and measure.metric in ("distance", "failed", "clever"):  # neither correct nor wrong, so of no group
            problem = f"{unknown} of {len(first.data)} samples have a clean output that is not finite"
            return metrics.unknown_distance(found.ledger, attack, problem)
        if measure.metric == "distance":
            quantile = Fraction(dict(measure.options).get("quantile", "1/2"))
            return metrics.distance_quantile(found.ledger, first.correct(), quantile, attack, distrust)
        if measure.metric == "clever":
            most = Fraction(str(measure.plan.stages[0].get("radius")))
            doubt = self._problem(measure, "inconclusive")
            return metrics.mean_score(found.ledger, first.correct(), dict(measure.options), most, attack, doubt)
        if measure.metric == "failed":
            return metrics.distance_failed(found.ledger, first.correct(), attack, distrust)
        return metrics.separation(
            found.ledger,
            groups[names[0]],
            groups[names[1]],
            names,
            attack,
            p_value=measure.metric.startswith("p_"),
            distrust=distrust,
        )

    def _critical(self, measure: Measure, attack: str, distrust: str) -> Known:
        """The strength at which the two subjects of ``measure`` part, both completely measured."""
        options = dict(measure.options)
        sweep = [Fraction(text) for text in options["eps"].split()]
        curves = []
        for subject, found in zip(measure.subjects, self._measurements(measure), strict=True):
            correct, unknown = self._of(subject).correct(), self._of(subject).predictions().count(None)
            curves.append(
                [metrics.surviving_at(found.ledger, correct, unknown, eps, attack, distrust) for eps in sweep]
            )
        return metrics.critical_strength(curves[0], curves[1], sweep, Fraction(options["tolerance"]))

    def _measurements(self, measure: Measure) -> tuple[Measurement, ...]:
        """The measurements that ``measure`` rests on: of a comparison by strength those of both subjects."""
        if measure.metric == "critical_strength":
            return tuple(self._attacked_subject(measure, subject) for subject in measure.subjects)
        found = self._measurement(measure)
        return () if found is None else (found,)

    def _measurement(self, measure: Measure) -> Measurement | None:
        """The measurement that ``measure`` rests on, if it is one that runs in units; of several the next to run."""
        if measure.plan is None:
            return None
        if measure.metric == "critical_strength":
            both = self._measurements(measure)
            return next((one for one in both if not one.ledger.complete), both[0])
        return self._attacked_subject(measure, measure.subjects[0])

    def _attacked_subject(self, measure: Measure, subject: Subject) -> Measurement:
        assert measure.plan is not None
        prepared = self._of(subject)
        # Now, since the report tells the clean errors when the model may be another one.
        prepared.standing(voted=measure.plan.randomised)
        source = self._of(measure.subjects[1]) if measure.metric == "transfer" else None
        found = prepared.measurement(kind_of(measure.metric), measure.plan, source)
        for one in (found, found.crafted):
            if one is not None:
                self.measured[one.ledger.key] = one
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

    def _problem(self, measure: Measure, level: str, subjects: Sequence[Subject] | None = None) -> str:
        """The findings of ``level`` about the subjects of ``measure`` (or those given), in one sentence."""
        found = [
            f"{subject.role}: {finding.message}"
            for subject in (measure.subjects if subjects is None else subjects)
            for finding in self._of(subject).findings()
            if finding.level == level and not (finding.randomness and _voted(measure))
        ]
        return "; ".join(found)

    def _compared(self, measure: Measure) -> bool:
        if measure.number is not None:
            return True
        return self.reported is not None and measure.metric == self.reported.metric

    def _unknown(self, measure: Measure) -> list[int]:
        """The positions that were not attacked although they may be robust: their clean output is not finite."""
        if measure.metric != "robust_accuracy":
            return []
        standing = self._of(measure.subjects[0]).standing(voted=_voted(measure))
        return [position for position, right in enumerate(standing) if right is None]

    def _prefix(self, measure: Measure) -> Sequence[bool]:
        """The outcomes of the samples in their order, up to the first that has none."""
        found = self._measurement(measure)
        if measure.metric == "security_curve":  # complete, or no share: nothing of it is decided sample by sample
            assert found is not None
            predictions, correct = (
                self._of(measure.subjects[0]).predictions(),
                set(self._of(measure.subjects[0]).correct()),
            )
            lost = (p for p, label in enumerate(predictions)
                    if label is None or (p in correct and p not in found.ledger.values))  # fmt: skip
            return self._flags(measure)[: next(lost, len(predictions))]
        if found is None:
            return self._flags(measure)
        survived, broken, unknown = found.ledger.survived, found.ledger.broken, set(self._unknown(measure))
        outcomes: list[bool] = []
        for position in range(found.ledger.n):
            decided = position in broken or (position not in found.ledger.start and position not in unknown)
            if position not in survived and not decided:
                break
            outcomes.append(position in survived)
        return outcomes

    def _flags(self, measure: Measure) -> Sequence[bool]:
        first = self._of(measure.subjects[0])
        if measure.metric == "accuracy":
            members = set(first.correct(voted=first.draws))
        elif measure.metric == "share":
            members = set(self._populations(measure)[dict(measure.options)["population"]])
        elif measure.metric == "security_curve":
            found = self._measurement(measure)
            assert found is not None
            eps = float(Fraction(dict(measure.options)["eps"]))
            members = {position for position, value in found.ledger.values.items() if value > eps}
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
