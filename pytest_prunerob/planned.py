"""What is left to measure, as plain data: the most that it costs, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from pytest_prunerob.adequacy import how_many, how_many_distances
from pytest_prunerob.adequacy.check import NEIGHBOURS
from pytest_prunerob.adequacy.distances import rerun
from pytest_prunerob.adequacy.stages import again, second_opinion
from pytest_prunerob.attacks import ATTACKS, Load
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.estimates import stage_bound
from pytest_prunerob.fingerprint import digest
from pytest_prunerob.ledger import Cost, Kind, Ledger
from pytest_prunerob.plans import MICRO_BATCH, Plan, Stage
from pytest_prunerob.votes import LOOKS

_AS: Mapping[Kind, str] = {
    "returned": ", as returned",
    "crafted": ", crafted for others",
    "transferred": ", crafted on another model",
}


@dataclass
class PlannedCell:
    """One test: its claims, how many of them need no measuring, and why not everything about it is known."""

    id: str
    claims: int = 0
    settled: int = 0
    needs: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class StagePlan:
    """What is left of one stage: micro-batches, and the most samples it sends forward and backward."""

    name: str
    left: int
    of: int
    forward: int
    backward: int
    seconds: float | None = None


@dataclass
class PlannedMeasurement:
    """What is left of one measurement, whatever number of claims needs it.

    ``easiest`` is what it costs if the first input of the first stage breaks every sample.
    """

    key: str
    subject: str
    plan: str
    n: int
    stages: list[StagePlan]
    easiest: Cost
    architecture: str = ""
    claims: int = 0
    audit: Cost = Cost()

    @property
    def bound(self) -> Cost:
        """The most that it costs, audits included; ``seconds`` of it are not known here."""
        stages = sum((Cost(stage.forward, stage.backward) for stage in self.stages), Cost())
        return stages + Cost(self.audit.forward * self.claims, self.audit.backward * self.claims)


def architecture(module: nn.Module, data: Dataset) -> str:
    """What decides how long a forward takes, whatever the weights: classes, shapes and inputs."""
    shapes = [[name, list(tensor.shape)] for name, tensor in module.named_parameters()]
    return digest([[type(part).__qualname__ for part in module.modules()], shapes, list(data.inputs)])


def measurement_left(
    key: str, title: str, data: Dataset, kind: Kind, plan: Plan | None, ledger: Ledger | None
) -> PlannedMeasurement:
    """What is left of the measurement of ``kind`` under ``plan`` on ``data``: all of it without a ``ledger``."""
    size = plan.size(len(data)) if plan else MICRO_BATCH
    sizes = [min(size, len(data) - start) for start in range(0, len(data), size)]
    names = [stage.attack for stage in plan.stages] if plan else ["clean"]
    bounds: list[list[Cost]] = [[] for _ in names]
    easiest = Cost()
    for micro_batch, attacked in enumerate(sizes):
        first: int | None = 0
        if ledger is not None:
            first = ledger.todo(micro_batch)
            attacked = 0 if first is None else len(ledger.survivors(first, micro_batch))
        if first is None:
            continue
        for number in range(first, len(names)):
            bounds[number].append(_bound(plan, number, kind, load_of(data, attacked)))
        if plan is not None and kind == "decide" and not plan.randomised:
            easiest += Cost(2 * attacked, attacked if ATTACKS[names[first]].gradient else 0)
        else:  # the others run to their end whatever breaks
            easiest += bounds[first][-1]
    stages = []
    for name, left in zip(names, bounds, strict=True):
        total = sum(left, Cost())
        stages.append(StagePlan(name, len(left), len(sizes), total.forward, total.backward))
    text = plan.text if plan is not None else "clean predictions"
    return PlannedMeasurement(key, title, f"{text}{_AS.get(kind, '')}", len(data), stages, easiest)


def load_of(data: Dataset, samples: int) -> Load:
    """``samples`` of ``data`` as a stage is given them."""
    return Load(samples, data.classes, data.x[0].numel())


def _bound(plan: Plan | None, number: int, kind: Kind, load: Load) -> Cost:
    if plan is None or kind == "transferred":
        voted = kind == "voted" or (plan is not None and plan.randomised)
        return Cost(load.samples * (LOOKS[-1] if voted else 1))
    if plan.threat.eps is not None:
        load = replace(load, eps=float(plan.threat.radius))
    return stage_bound(plan.stages[number], plan.threat.norm, kind, load)


def audit_bound(plan: Plan, kind: Kind, load: Load, *, twin: bool) -> Cost:
    """The most that one audit of the attacks of ``plan`` on the samples of ``load`` costs, at the level "basic".

    With a float ``twin``, what is made on it is transferred to the subject.
    """
    norm, n = plan.threat.norm, load.samples
    if kind == "minimise":
        many, extra = how_many_distances(plan, n), 1
        stages: list[Stage] = list(rerun(plan))
    else:
        many, extra = how_many(plan, n, n), 2 + NEIGHBOURS
        stages = [again(stage, plan) for stage in plan.stages if ATTACKS[stage.attack].gradient]
        stages *= 2 if twin else 1
        other = second_opinion(plan)
        stages += [other] if other is not None else []
    costs = (stage_bound(stage, norm, kind, replace(load, samples=many)) for stage in stages)
    gradients = many * len(stages)  # each stage's gradients at the samples themselves
    return sum(costs, Cost(many * extra + gradients, gradients))
