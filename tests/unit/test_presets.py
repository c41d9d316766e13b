"""The presets beside the figures of the papers, copied here from their tables."""

from __future__ import annotations

import ast
import copy
import re
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob import autoattack, fmn, presets
from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans import Plan

# Vora et al., Table 7: attack, epsilon, epsilon step, max iteration.
TABLE_7 = [
    ("cw", "CW", "", "0.01", "10"),
    ("deepfool", "DF", "1e-6", "", "5"),
    ("fgsm", "FGSM", "0.2", "", "100"),
    ("bim", "BiM", "1", "0.1", "100"),
    ("pgd", "PGD", "0.3", "0.1", "100"),
    ("apgd", "APGD", "0.3", "0.1", "100"),
    ("universal", "UP", "10", "", "1"),
]
# Merkle et al., Table 2: test data, epsilon.
TABLE_2 = {
    "l0": ["20", "70", "120", "170"],
    "l2": ["10", "15", "20", "25"],
    "linf": [".125/255", ".25/255", ".5/255", "1/255"],
}


def params(plan: Plan) -> dict[str, Any]:
    (stage,) = plan.stages
    return dict(stage.params)


def test_vora_is_table_7() -> None:
    assert list(presets.vora2023) == [row[0] for row in TABLE_7]
    for name, printed, epsilon, step, iterations in TABLE_7:
        entry, plan = presets.vora2023.entries[name], presets.vora2023[name]
        numbers = [f"{what} {number or '-'}" for what, number in
                   (("epsilon", epsilon), ("epsilon step", step), ("max iteration", iterations))]  # fmt: skip
        assert (entry.source, entry.stated) == ("Table 7", f"{printed}: {', '.join(numbers)}")
        stage = params(plan)
        assert stage["labels"] == "predicted"
        if name == "deepfool":
            assert (Fraction(stage["overshoot"]), plan.kind) == (Fraction(epsilon), "minimum")
        elif epsilon:
            assert plan.threat.radius == Fraction(epsilon)
            assert plan.threat.norm == "linf"
        if name != "fgsm":
            assert stage["steps"] == int(iterations)
        if "step_size" in stage:
            assert Fraction(stage["step_size"]) == Fraction(step)
        else:
            assert name in ("deepfool", "fgsm", "apgd", "universal")


def art_default(module: str, attack: str, parameter: str) -> str:
    """The default of a parameter as it is written in ART, which is read and not imported: that takes seconds."""
    spec = find_spec("art")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = (Path(spec.submodule_search_locations[0]) / "attacks" / "evasion" / f"{module}.py").read_text()
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == attack)
    functions = (node for node in next(classes).body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    arguments = next(functions).args
    names = [argument.arg for argument in arguments.args]
    defaults = dict(zip(names[-len(arguments.defaults) :], arguments.defaults, strict=True))
    return ast.unparse(defaults[parameter])


def test_what_table_7_leaves_out_is_the_default_of_art() -> None:
    vora = {name: params(plan) for name, plan in presets.vora2023.plans.items()}
    carlini, deepfool, universal = ("carlini", "CarliniL2Method"), ("deepfool", "DeepFool"), (
        "universal_perturbation", "UniversalPerturbation")  # fmt: skip
    pgd = ("projected_gradient_descent/projected_gradient_descent", "ProjectedGradientDescent")
    apgd = ("auto_projected_gradient_descent", "AutoProjectedGradientDescent")
    assert vora["cw"]["binary_search_steps"] == int(art_default(*carlini, "binary_search_steps"))
    assert Fraction(vora["cw"]["initial_const"]) == Fraction(art_default(*carlini, "initial_const"))
    assert float(vora["cw"]["confidence"]) == float(art_default(*carlini, "confidence"))
    assert vora["deepfool"]["candidates"] == int(art_default(*deepfool, "nb_grads"))
    assert vora["pgd"]["random_start"] is bool(int(art_default(*pgd, "num_random_init"))) is False
    assert vora["apgd"]["restarts"] == int(art_default(*apgd, "nb_random_init"))
    assert vora["universal"]["attacker"] == art_default(*universal, "attacker").strip("'")
    assert Fraction(vora["universal"]["delta"]) == Fraction(art_default(*universal, "delta"))
    for attack in (("fast_gradient", "FastGradientMethod"), pgd, apgd, universal):
        assert art_default(*attack, "norm") == "np.inf"


def test_merkle_is_table_2_and_appendix_a() -> None:
    preset = presets.merkle2022
    assert [str(eps) for eps in preset.entries["brendel_bethge"].eps] == TABLE_2["l0"]
    assert [str(eps) for eps in preset.entries["cw"].eps] == TABLE_2["l2"]
    assert (preset.brendel_bethge.threat.norm, preset.cw.threat.norm) == ("l0", "l2")
    bethge = {"steps": 500, "binary_search_steps": 30, "step_size": "10000000", "decays": 30}
    assert params(preset.brendel_bethge).items() >= bethge.items()
    searches = {"steps": 5000, "binary_search_steps": 9, "step_size": "1", "initial_const": "100", "confidence": "0"}
    assert params(preset.cw) == searches
    names = [name for name in preset if name.startswith("pgd")]
    assert len(names) == len(TABLE_2["linf"])
    for name, printed in zip(names, TABLE_2["linf"], strict=True):
        part, whole = printed.split("/")
        eps = Fraction(part) / int(whole)
        plan = preset[name]
        assert f"epsilon {printed}," in preset.entries[name].stated
        assert (plan.threat.norm, plan.threat.radius) == ("linf", eps)
        step = str(eps / 30)
        assert params(plan) == {"steps": 40, "step_size": step, "random_start": True, "restarts": 1}


def test_jordao_is_section_4(tmp_path: Path) -> None:
    preset = presets.jordao2021
    assert (preset.fgsm.threat.norm, preset.fgsm.threat.radius) == ("linf", Fraction(8, 255))
    assert params(preset.occlusion)["size"] == 16
    kinds = [name for name in preset if name not in ("fgsm", "occlusion")]
    assert len(kinds) == 15
    for name in set(kinds) - {"frost"}:
        assert params(preset[name]).items() >= {"kind": name, "severity": 5}.items()
    with pytest.raises(PlanError, match=re.escape("presets.jordao2021.frost(...) needs textures")):
        preset.frost()
    (tmp_path / "frost1.png").write_bytes(b"a photograph")
    assert params(preset.frost(textures=str(tmp_path)))["severity"] == 5
    assert "frost" not in preset.plans


def test_what_piras_leave_out_is_asked_for() -> None:
    preset = presets.piras2023
    assert preset.plans == {}
    assert preset.autoattack(norm="linf", eps="8/255") == autoattack("plus", norm="linf", eps="8/255")
    assert preset["fmn"](norm="l2", steps=50) == fmn(norm="l2", steps=50)
    with pytest.raises(PlanError, match=re.escape("presets.piras2023.autoattack(...) needs eps, which the paper does")):
        preset.autoattack(norm="linf")
    with pytest.raises(PlanError, match=re.escape("presets.piras2023.fmn(...) needs norm and steps")):
        preset.fmn()
    with pytest.raises(
        PlanError, match=re.escape("unknown parameter 'step': allowed are norm, steps; did you mean 'steps")
    ):
        preset.fmn(norm="l2", step=50)
    with pytest.raises(PlanError, match="unknown norm 'Linf'"):
        preset.autoattack(norm="Linf", eps=1)


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(AttributeError, match=re.escape("unknown preset 'vora2022': allowed are jordao2021")) as error:
        _ = presets.vora2022
    assert "did you mean 'vora2023'?" in str(error.value)
    with pytest.raises(AttributeError, match=re.escape("unknown attack of presets.vora2023 'deep_fool'")) as error:
        _ = presets.vora2023.deep_fool
    assert "did you mean 'deepfool'?" in str(error.value)
    with pytest.raises(PlanError, match=re.escape("did you mean 'pgd_1'?")):
        _ = presets.merkle2022["pgd1"]
    assert not hasattr(presets.vora2023, "_anything")
    assert copy.deepcopy(presets.vora2023).pgd == presets.vora2023.pgd


def test_a_preset_prints_where_its_numbers_come_from() -> None:
    for name, preset in presets.PRESETS.items():
        assert getattr(presets, name) is preset
        assert preset.name == name
        lines = str(preset).splitlines()
        assert len(lines) == len(preset) + 1
        for line, attack in zip(lines[1:], preset, strict=True):
            assert attack in preset
            assert line.startswith(f"  {attack}: ")
            assert re.search(r"\((Table|Section) \d", line)
