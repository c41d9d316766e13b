"""The attack of Brendel and Bethge."""

from __future__ import annotations

from pytest_prunerob.plans.plan import (
    MICRO_BATCH,
    Number,
    Plan,
    ThreatModel,
    checked_norm,
    checked_target,
    count,
    exactly,
    single,
)


def brendel_bethge(
    *,
    norm: str = "l0",
    steps: int = 500,
    binary_search_steps: int = 30,
    step_size: Number = "1e7",
    decays: int = 30,
    target: str | None = None,
    micro_batch: int = MICRO_BATCH,
) -> Plan:
    """Brendel & Bethge et al. 2019 (arXiv:1907.01003) from foolbox, L0: along the boundary towards the sample.

    It starts from the nearest sample of the data set (in L2) that the model puts into another class, after
    ``binary_search_steps`` steps towards the boundary. ``step_size`` is the radius of the trust region (foolbox: times
    the number of values in the batch), halved ``decays`` times. The defaults are those of Merkle et al. (Appendix A),
    under which no trust region ever binds; where one does (foolbox's 0.001), a step takes a hundred times as long.

    Raises:
        PlanError: for an unknown norm or target, or a bad number.
    """
    threat = ThreatModel(checked_norm(norm, ("l0",)), None, checked_target(target))
    return single(
        "brendel-bethge",
        threat,
        count("micro_batch", micro_batch),
        name=f"brendel-bethge {count('steps', steps)} steps of {step_size}",
        kind="minimum",
        steps=steps,
        binary_search_steps=count("binary_search_steps", binary_search_steps),
        step_size=exactly(step_size, "step_size"),
        decays=count("decays", decays),
    )
