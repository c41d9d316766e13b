from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from torch import nn

from pytest_prunerob import autoattack, brendel_bethge, cw, deepfool, fgsm, fmn, pgd
from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans import Plan, resolve

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: autoattack(norm="linf", eps="abc"), "eps='abc' is not a number: write a decimal or a fraction"),
        (lambda: autoattack(norm="linf", eps="0"), "eps='0' is not positive"),
        (lambda: autoattack(norm="linf", eps=-1), "eps=-1 is not positive"),
        (lambda: autoattack(norm="linf", eps=True), "eps=True is not a number"),
        (lambda: autoattack(norm="linf", eps=float("inf")), "eps=inf is not a number"),
        (lambda: autoattack(norm="linf", eps="nan"), "eps='nan' is not a number"),
        (lambda: autoattack(norm="linf", eps="1e-999999999"), "eps='1e-999999999' is not a number"),  # fills memory
        (lambda: autoattack(norm="linf", eps="1" * 65), "is not a number"),
        (lambda: autoattack(norm="linf", eps="8/0"), "eps='8/0' is not a number"),
        (lambda: autoattack(norm="Linf", eps=1), "unknown norm 'Linf': allowed are l1, l2, linf; did you mean 'linf'?"),
        (lambda: autoattack("standart", norm="l2", eps=1), "did you mean 'standard'?"),
        (lambda: autoattack("random", norm="l2", eps=1), "version 'random': allowed are plus, rand, standard; did you"),
        (lambda: autoattack(["apgd_ce"], norm="l2", eps=1), "unknown AutoAttack stage 'apgd_ce'"),
        (lambda: autoattack(["apgd_ce"], norm="l2", eps=1), "did you mean 'apgd-ce'?"),
        (lambda: autoattack([], norm="l2", eps=1), "autoattack([]) has no stages: allowed are apgd-ce"),
        (lambda: autoattack(["fab", "fab"], norm="l2", eps=1), "names a stage twice"),
        (lambda: autoattack(norm="l2", eps=1, micro_batch=0), "micro_batch=0 is not a whole number of at least 1"),
        (lambda: pgd(norm="l1", eps=1, steps=1, step_size=1), "unknown norm 'l1': allowed are l2, linf"),
        (lambda: pgd(norm="l2", eps=1, steps=0, step_size=1), "steps=0 is not a whole number of at least 1"),
        (lambda: pgd(norm="l2", eps=1, steps=True, step_size=1), "steps=True is not a whole number"),
        (lambda: pgd(norm="l2", eps=1, steps=1, step_size="x"), "step_size='x' is not a number"),
        (lambda: pgd(norm="l2", eps=1, steps=1, step_size=1, restarts=1.0), "restarts=1.0 is not a whole number"),  # type: ignore[arg-type]
        (lambda: fgsm(norm="linf", eps="-8/255"), "eps='-8/255' is not positive"),
        (lambda: fmn(norm="l3"), "unknown norm 'l3': allowed are l0, l1, l2, linf"),
        (lambda: fmn(gamma=1), "gamma=1 is not below 1: the radius would vanish at once"),
        (lambda: cw(norm="l1"), "unknown norm 'l1': allowed are l0, l2, linf"),
        (lambda: cw(norm="linf", binary_search_steps=5), "has no binary search: leave binary_search_steps=5 out"),
        (lambda: cw(target="nearest"), "unknown target 'nearest': allowed are least-likely, next, random"),
        (lambda: deepfool(norm="l1"), "unknown norm 'l1': allowed are l2, linf"),
        (lambda: deepfool(norm="l2", candidates=1), "candidates=1 is below 2"),
        (lambda: deepfool(norm="l2", loss="dlr"), "unknown loss 'dlr': allowed are crossentropy, logits"),
        (lambda: brendel_bethge(norm="l2"), "unknown norm 'l2': allowed are l0"),
        (lambda: fmn(steps=-3), "steps=-3 is not a whole number"),
        (lambda: fmn().threat.radius, "a minimum-norm plan has no ε"),
    ],
)
def test_bad_input_is_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        make()


def test_eps_is_the_number_as_written() -> None:
    same = [autoattack(norm="linf", eps=eps) for eps in ("0.2", "1/5", 0.2, Fraction(1, 5), np.float64(0.2), " 2e-1 ")]
    assert [plan.material()["eps"] for plan in same] == ["1/5"] * 6
    assert len({repr(plan.material()) for plan in same}) == 1
    assert same[1].text == "autoattack standard, linf, ε=1/5"
    printed, exact = autoattack(norm="linf", eps="0.031"), autoattack(norm="linf", eps="8/255")
    assert printed.material() != exact.material()
    assert exact.material()["eps"] == "8/255"
    assert exact.threat.radius == Fraction(8, 255)
    a, b = (pgd(norm="l2", eps=1, steps=7, step_size=step) for step in ("0.25", "1/4"))
    assert a.material() == b.material()


def test_everything_that_decides_outcomes_is_material() -> None:
    plans = [
        autoattack(norm="linf", eps=1),
        autoattack(norm="l2", eps=1),
        autoattack("plus", norm="linf", eps=1),
        autoattack(norm="linf", eps=2),
        autoattack(norm="linf", eps=1, micro_batch=100),
        autoattack(["square"], norm="linf", eps=1),
        autoattack(["square", "fab"], norm="linf", eps=1),
        autoattack(["fab", "square"], norm="linf", eps=1),
        pgd(norm="linf", eps=1, steps=1, step_size=1),
        pgd(norm="linf", eps=1, steps=1, step_size=1, random_start=False),
        pgd(norm="linf", eps=1, steps=1, step_size=1, restarts=2),
        pgd(norm="linf", eps=1, steps=1, step_size=2),
        fgsm(norm="linf", eps=1),
        fgsm(norm="linf", eps=1, random_start=True),
        fmn(),
        fmn(steps=200),
        fmn(step_size=2),
        fmn(gamma="0.1"),
        fmn(target="next"),
        *(fmn(norm=norm) for norm in ("l2", "l1", "l0")),
        *(cw(norm=norm) for norm in ("l2", "linf", "l0")),
        cw(confidence=1),
        cw(initial_const=1),
        cw(binary_search_steps=1),
        *(deepfool(norm=norm) for norm in ("l2", "linf")),
        deepfool(norm="l2", overshoot="1e-6"),
        deepfool(norm="l2", candidates=3),
        deepfool(norm="l2", loss="crossentropy"),
        brendel_bethge(),
        brendel_bethge(decays=20),
        brendel_bethge(binary_search_steps=10),
        brendel_bethge(step_size="0.001"),
    ]
    assert len({repr(plan.material()) for plan in plans}) == len(plans)


def test_targets_are_clamped_to_the_other_classes() -> None:
    def targets(plan: Plan) -> dict[str, object]:
        return {s.attack: s.get("targets") for s in plan.stages if "targets" in dict(s.params)}

    plan = autoattack("plus", norm="linf", eps=1)
    assert targets(resolve(plan, 10)) == {"apgd-t": 9, "fab-t": 9}
    assert targets(resolve(plan, 1000)) == {"apgd-t": 9, "fab-t": 9}
    assert targets(resolve(plan, 4)) == {"apgd-t": 3, "fab-t": 3}
    assert targets(resolve(autoattack(norm="l1", eps=1), 10)) == {"apgd-t": 5, "fab-t": 9}
    assert targets(resolve(autoattack(["fab-t"], norm="l1", eps=1), 2)) == {"fab-t": 1}
    assert resolve(fmn(), 2) == fmn()


@pytest.mark.parametrize(
    ("plan", "classes", "message"),
    [
        (autoattack(norm="linf", eps=1), 3, "apgd-t needs at least 4 classes and the model has 3"),
        (autoattack("plus", norm="linf", eps=1), 2, "apgd-dlr needs at least 3 classes and the model has 2"),
        (autoattack(["apgd-t"], norm="linf", eps=1), 2, "apgd-t needs at least 4 classes and the model has 2"),
        (autoattack(["apgd-dlr", "square"], norm="l1", eps=1), 2, "apgd-dlr needs at least 3 classes"),
    ],
)
def test_too_few_classes_name_a_plan_that_works(plan: Plan, classes: int, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)) as error:
        resolve(plan, classes)
    stages = re.findall(r"'([\w-]+)'", str(error.value).split("use autoattack(")[1])
    working = resolve(autoattack(stages, norm="linf", eps=1), classes)
    assert [stage.attack for stage in working.stages] == stages
    assert stages


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("version", ["standard", "plus", "custom"])
def test_parameters_are_those_of_pyautoattack(version: str, norm: str) -> None:
    from pyautoattack import AutoAttack

    custom = ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
    library = AutoAttack(
        nn.Identity(),
        norm=NORMS[norm],
        eps=1.0,
        version=version,
        attacks=custom if version == "custom" else None,
        seed=0,
    )
    plan = autoattack(custom if version == "custom" else version, norm=norm, eps=1)
    assert [stage.attack for stage in plan.stages] == library.attacks_to_run
    for stage in plan.stages:
        params = dict(stage.params)
        attack = {
            "apgd-ce": library.apgd,
            "apgd-dlr": library.apgd,
            "apgd-t": library.apgd_targeted,
            "fab": library.fab,
            "fab-t": library.fab,
            "square": library.square,
        }[stage.attack]
        # Before FAB-T run_standard_evaluation sets the restarts of its FAB object to 1.
        assert params.pop("restarts") == (1 if stage.attack == "fab-t" else attack.n_restarts)
        if stage.attack == "square":
            assert params.pop("queries") == attack.n_queries == 5000
            assert float(Fraction(params.pop("p_init"))) == attack.p_init
        else:
            assert params.pop("steps") == attack.n_iter == 100
        if stage.attack.startswith("apgd"):
            assert float(Fraction(params.pop("rho"))) == attack.thr_decr
            assert (params.pop("schedule", None) == "3-2-1") == attack.use_largereps
        if stage.attack.endswith("-t"):
            assert params.pop("targets") == attack.n_target_classes
        assert params == {}


def test_a_changed_stage_keeps_the_rest() -> None:
    stage = autoattack(["apgd-t"], norm="linf", eps=1).stages[0].changed(steps=5)
    assert dict(stage.params) == {"restarts": 1, "rho": "3/4", "steps": 5, "targets": 9}
    assert stage.params == tuple(sorted(stage.params))
