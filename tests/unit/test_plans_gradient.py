"""The constructors of the gradient family: their names, parameters and refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_prunerob import apgd, autoattack, bim, fgsm, momentum, pgd, r_fgsm
from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans import Plan, resolve

STEPS: dict[str, Any] = {"norm": "linf", "eps": "0.1", "steps": 5, "step_size": "1/40"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: r_fgsm(norm="l1", eps=1), "unknown norm 'l1': allowed are l2, linf"),
        (lambda: r_fgsm(norm="linf", eps="0.1", alpha="0.1"), "alpha='0.1' leaves no step along the gradient"),
        (lambda: r_fgsm(norm="linf", eps="0.1", alpha=1), "allowed is less than eps=0.1"),
        (lambda: r_fgsm(norm="linf", eps="0.1", alpha=0), "alpha=0 is not positive"),
        (lambda: r_fgsm(norm="linf", eps="0.1", restarts=0), "restarts=0 is not a whole number of at least 1"),
        (lambda: bim(norm="l0", eps=1, steps=1, step_size=1), "unknown norm 'l0': allowed are l2, linf"),
        (lambda: bim(norm="l2", eps=1, steps=2.0, step_size=1), "steps=2.0 is not a whole number"),  # type: ignore[arg-type]
        (lambda: bim(norm="l2", eps=1, steps=2, step_size=0), "step_size=0 is not positive"),
        (lambda: bim(**STEPS, target="least_likely"), "unknown target 'least_likely': allowed are least-likely, next"),
        (lambda: bim(**STEPS, target="least_likely"), "did you mean 'least-likely'?"),
        (lambda: bim(**STEPS, labels="given"), "unknown labels 'given': allowed are predicted, true"),
        (lambda: momentum(**STEPS, decay=-1), "decay=-1 is below 0"),
        (lambda: momentum(**STEPS, decay="x"), "decay='x' is not a number"),
        (lambda: momentum(**{**STEPS, "steps": 0}), "steps=0 is not a whole number of at least 1"),
        (lambda: momentum(**STEPS, target=""), "unknown target ''"),
        (lambda: pgd(**STEPS, target="nxt"), "did you mean 'next'?"),
        (lambda: pgd(**STEPS, labels="predict"), "did you mean 'predicted'?"),
        (lambda: fgsm(norm="l2", eps=1, labels="x"), "unknown labels 'x'"),
        (lambda: apgd(norm="l0", eps=1), "unknown norm 'l0': allowed are l1, l2, linf"),
        (lambda: apgd(norm="l2", eps=1, steps=-1), "steps=-1 is not a whole number"),
        (lambda: apgd(norm="l2", eps=1, restarts=0), "restarts=0 is not a whole number"),
        (lambda: apgd(norm="l2", eps=1, loss="cw"), "unknown loss 'cw': allowed are ce, dlr"),
        (lambda: apgd(norm="l2", eps=1, target="next"), "apgd(target='next', loss='ce') has no such loss"),
        (lambda: apgd(norm="l2", eps=1, loss="dlr", target="last"), "unknown target 'last'"),
        (lambda: resolve(apgd(norm="l2", eps=1, loss="dlr"), 2), "apgd-dlr needs at least 3 classes"),
        (lambda: resolve(apgd(norm="l2", eps=1, loss="dlr", target="next"), 3), "apgd-t needs at least 4 classes"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        make()


def test_plans_say_what_they_are() -> None:
    texts = {
        "r-fgsm, α=1/20, linf, ε=0.1": r_fgsm(norm="linf", eps="0.1"),
        "r-fgsm, α=0.02, 3 restarts, l2, ε=2": r_fgsm(norm="l2", eps=2, alpha="0.02", restarts=3),
        "bim 5 steps of 1/40, linf, ε=0.1, targeted (next)": bim(**STEPS, target="next"),
        "bim 5 steps of 1/40, on predicted labels, linf, ε=0.1": bim(**STEPS, labels="predicted"),
        "momentum 5 steps of 1/40, linf, ε=0.1": momentum(**STEPS),
        "momentum 5 steps of 1/40, decay 0.5, linf, ε=0.1": momentum(**STEPS, decay="0.5"),
        "pgd 5 steps of 1/40, linf, ε=0.1, targeted (random)": pgd(**STEPS, target="random"),
        "fgsm, on predicted labels, linf, ε=1": fgsm(norm="linf", eps=1, labels="predicted"),
        "apgd-ce 100 steps, l2, ε=1": apgd(norm="l2", eps=1),
        "apgd-dlr 7 steps, 2 restarts, l1, ε=1": apgd(norm="l1", eps=1, steps=7, restarts=2, loss="dlr"),
        "apgd-dlr 100 steps, l2, ε=1, targeted (next)": apgd(norm="l2", eps=1, loss="dlr", target="next"),
    }
    assert [plan.text for plan in texts.values()] == list(texts)
    materials = {repr(plan.material()) for plan in texts.values()}
    assert len(materials) == len(texts)


def test_apgd_alone_is_the_stage_that_autoattack_has() -> None:
    for loss in ("ce", "dlr"):
        stage = autoattack([f"apgd-{loss}"], norm="l2", eps=1).stages[0]
        assert apgd(norm="l2", eps=1, loss=loss, restarts=5).stages == (stage,)
    assert dict(apgd(norm="l2", eps=1, loss="dlr", target="next").stages[0].params)["targets"] == 1


@pytest.mark.parametrize(
    ("plan", "material"),
    [
        (pgd(**STEPS), {"random_start": True, "restarts": 1, "step_size": "1/40", "steps": 5}),
        (fgsm(norm="linf", eps=1), {"random_start": False}),
        (bim(**STEPS), {"step_size": "1/40", "steps": 5}),
        (bim(**STEPS, labels="predicted"), {"labels": "predicted", "step_size": "1/40", "steps": 5}),
    ],
)
def test_labels_enter_a_key_only_where_they_are_not_the_true_ones(plan: Plan, material: dict[str, object]) -> None:
    (stage,) = plan.material()["stages"]  # type: ignore[misc]
    assert stage[1] == material
