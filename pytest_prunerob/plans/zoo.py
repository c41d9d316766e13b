"""The zeroth-order black-box attack."""

from __future__ import annotations

from pytest_prunerob.plans.plan import MICRO_BATCH, Number, Plan, ThreatModel, checked_norm, count, exactly, single


def zoo(
    *,
    norm: str = "l2",
    steps: int = 100,
    search_steps: int = 3,
    step_size: Number = "0.02",
    initial_const: Number = 1,
    coordinates: int = 128,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """ZOO (Chen et al. 2017, arXiv:1708.03999) from the adversarial-robustness-toolbox: Carlini-Wagner L2 from outputs.

    In each of ``steps`` the slopes along ``coordinates`` random features (all, where an input has fewer) are measured
    by two forwards each, and Adam with ``step_size`` moves these. The constant between distance and misclassification
    is ``initial_const`` first and takes ``search_steps`` values.

    Raises:
        PlanError: for another norm, or a number that is not positive.
    """
    return single(
        "zoo",
        ThreatModel(checked_norm(norm, ("l2",)), None),
        count("micro_batch", micro_batch),
        name=f"zoo {count('steps', steps)} steps, {count('search_steps', search_steps)} constants",
        kind="minimum",
        steps=steps,
        search_steps=search_steps,
        step_size=exactly(step_size, "step_size"),
        initial_const=exactly(initial_const, "initial_const"),
        coordinates=count("coordinates", coordinates),
    )
