"""The black-box attack by a substitute network."""

from __future__ import annotations

from fractions import Fraction

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Plan,
    ThreatModel,
    checked_norm,
    count,
    exactly,
    number,
    positive,
    single,
)

MOST_ROUNDS = 12  # each doubles the samples: 4,096 of each (ours)


def substitute(
    *,
    norm: str,
    eps: Number,
    rounds: int = 6,
    augmentation: Number = "0.1",
    epochs: int = 10,
    steps: int = 1,
    step_size: Number = 0,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Substitute-model black-box attack (Papernot et al. 2017, arXiv:1602.02697): it asks the model for labels only.

    A small network learns the labels that the model gives the samples, for ``epochs`` at a time; in each of ``rounds``
    the samples double by steps of ``augmentation`` (the paper's λ) along its gradient's sign, and the model labels the
    new ones. Then FGSM or, with ``steps`` > 1 of ``step_size``, PGD crafts inputs on it, which the model is judged by.
    A single step without a ``step_size`` has length ε.
    It costs 2^``rounds`` queries of the model for each sample and no gradient. The defaults are the paper's for MNIST.

    Raises:
        PlanError: for an unknown norm, a bad ε, step or number; for several steps without a ``step_size``.
    """
    threat = ThreatModel(checked_norm(norm, ("linf", "l2")), positive(eps))
    if count("rounds", rounds) > MOST_ROUNDS:
        raise PlanError(f"rounds={rounds} would ask for 2^{rounds} labels of each sample: {MOST_ROUNDS} are the most")
    length = number(step_size, "step_size")
    if count("steps", steps) > 1 and not Fraction(length):
        raise PlanError(f"steps={steps} needs a step_size, a length in units of the input")
    length = length if Fraction(length) else positive(eps)
    name = f"substitute, {rounds} rounds, "
    name += "fgsm" if steps == 1 else f"pgd {steps} steps of {length}"
    return single(
        "substitute",
        threat,
        count("micro_batch", micro_batch),
        name=name,
        rounds=rounds,
        augmentation=exactly(augmentation, "augmentation"),
        epochs=count("epochs", epochs),
        steps=steps,
        step_size=exactly(length, "step_size"),
    )
