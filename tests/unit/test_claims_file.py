from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_prunerob import autoattack, axis, cells, fgsm, fmn, pgd, plans, table
from pytest_prunerob.cells import ATTRIBUTE, Grid
from pytest_prunerob.claims_file import ATTACKS, WrittenClaim, read
from pytest_prunerob.errors import ClaimsFileError

PLAN = '[plans.aa]\nattack = "autoattack"\nnorm = "linf"\neps = "8/255"\n'
CLAIM = '[[claims]]\nname = "it"\nclaim = "pruned.accuracy() >= 0.5"\n'


def claims(text: str) -> tuple[WrittenClaim, ...]:
    return read(text.encode(), "a.claims.toml")


def grid(decorate: Any) -> Grid:
    def test() -> None: ...

    found = getattr(decorate(test), ATTRIBUTE)
    assert isinstance(found, Grid)
    return found


def test_a_grid_is_that_of_the_decorator() -> None:
    (claim,) = claims(
        """
        [cells]
        samples = 100
        method = "replaced"

        [[claims]]
        name = "it"
        claim = "pruned.accuracy() >= 0.5"

        [claims.cells]
        dataset = "npz:data/test.npz"
        dense = "models/dense.pt2"
        method = ["b", "a"]
        sparsity = [0.9, "0.50", 0]
        seed = [10, 2]
        profiles = { paper = { sparsity = 0.99, samples = 7 } }
        xfail = { "*-b-*" = "known" }
        [claims.cells.reported]
        path = "tables/one.csv"
        key = { method = { axis = "method", values = { a = "A", b = "B" } }, s = { axis = "sparsity" }, net = "R18" }
        column = "aa"
        unit = "fraction"
        samples = 1000
        """
    )
    wanted = cells(
        dataset="npz:data/test.npz",
        dense="models/dense.pt2",
        method=["b", "a"],
        sparsity=[0.9, "0.50", 0],
        seed=[10, 2],
        samples=100,
        profiles={"paper": {"sparsity": 0.99, "samples": 7}},
        xfail={"*-b-*": "known"},
        reported=table(
            "tables/one.csv",
            key={"method": axis("method", {"a": "A", "b": "B"}), "s": axis("sparsity"), "net": "R18"},
            column="aa",
            unit="fraction",
            samples=1000,
        ),
    )
    for profile in (None, "paper"):
        assert grid(claim.cells).expand(profile) == grid(wanted).expand(profile)
    assert next(cell.id for cell in grid(claim.cells).expand("paper")).endswith(
        "test.npz-a-s0.99-seed2-models_dense.pt2"
    )


def test_plans_are_those_of_the_functions() -> None:
    (claim,) = claims(
        PLAN
        + """
        version = "plus"
        micro_batch = 50
        [plans.some]
        attack = "autoattack"
        stages = ["apgd-ce", "square"]
        norm = "l2"
        eps = 0.5
        [plans.weak]
        attack = "pgd"
        norm = "linf"
        eps = 0.031
        steps = 10
        step_size = "2/255"
        restarts = 2
        random_start = false
        [plans.one]
        attack = "fgsm"
        norm = "linf"
        eps = 1
        random_start = true
        [plans.near]
        attack = "fmn"
        steps = 7
        """
        + CLAIM
    )
    assert claim.expression.plans == {
        "aa": autoattack("plus", norm="linf", eps="8/255", micro_batch=50),
        "some": autoattack(["apgd-ce", "square"], norm="l2", eps="0.5"),
        "weak": pgd(norm="linf", eps="0.031", steps=10, step_size="2/255", restarts=2, random_start=False),
        "one": fgsm(norm="linf", eps=1, random_start=True),
        "near": fmn(steps=7),
    }


def test_the_parameters_are_those_of_the_functions() -> None:
    """A plan or a parameter that is added is to be added to the file."""
    kinds = {"str": "text", "Number": "number", "int": "whole number", "bool": "boolean", "str | None": "text"}
    kinds["Number | None"] = "number"
    assert plans.PLANS.keys() == ATTACKS.keys()
    for attack, given in ATTACKS.items():
        wanted = {
            p.name: kinds[p.annotation] if p.default is p.empty else f"[{kinds[p.annotation]}]"
            for p in inspect.signature(plans.PLANS[attack]).parameters.values()
            if p.name != "stages"
        }
        assert {k: v for k, v in given.items() if k not in ("version", "stages")} == wanted


def test_each_claim_knows_its_line() -> None:
    found = claims(PLAN + CLAIM + "\n" + CLAIM.replace("it", "other", 1))
    assert [(claim.name, claim.line, claim.place) for claim in found] == [
        ("it", 7, "a.claims.toml:5:1"),
        ("other", 11, "a.claims.toml:9:1"),
    ]


def cell(line: str) -> str:
    return f"{CLAIM}[claims.cells]\n{line}\n"


WRONG = {
    "no toml": ("[[claims]\n", "1:9: not TOML: Expected ']]' at the end of an array declaration"),
    "no value": ("a = 1\nb =\n", "2:4: not TOML: Invalid value"),
    "open text": ('a = """', "1:8: not TOML: *"),
    "key twice": ("a = 1\na = 2\n", "2:6: not TOML: Cannot overwrite a value"),
    "nothing": ("", "1:1: the file holds no [[claims]]: a gate without claims would let everything pass"),
    "no claim": (PLAN, "1:1: the file holds no [[claims]]: *"),
    "empty claims": ("claims = []", "1:1: the file holds no [[claims]]: *"),
    "unknown key": (
        CLAIM + "[plan.aa]",
        "4:1: unknown key 'plan': allowed are cells, claims, plans; did you mean 'plans'?",
    ),
    "claims no tables": ("claims = 1", "1:1: claims = 1: expected is tables, [[claims]]"),
    "claims a table": ("[claims]", "1:1: claims = a table: expected is tables, [[claims]]"),
    "claim unknown key": (
        CLAIM + "cell = {}",
        "4:1: unknown key of a claim 'cell': allowed are *; did you mean 'cells'?",
    ),
    "claim no name": ('[[claims]]\nclaim = "1"', "1:1: claims lacks 'name'"),
    "claim no claim": (PLAN + '[[claims]]\nname = "a"', "5:1: claims lacks 'claim'"),
    "claim a number": ('[[claims]]\nname = "a"\nclaim = 1', "3:1: claim = 1: expected is a text"),
    "name with spaces": ('[[claims]]\nname = "a b"\nclaim = "1"', "2:1: 'a b' cannot name a claim: *"),
    "name of a hook": ('[[claims]]\nname = "pytest_generate_tests"\nclaim = "1"', "2:1: * cannot name a claim: *"),
    "name of pytest": ('[[claims]]\nname = "__test__"\nclaim = "1"', "2:1: '__test__' cannot name a claim: *"),
    "name twice": (CLAIM + CLAIM, "5:1: the name 'it' is that of line 3"),
    "plan no table": (CLAIM + "[plans]\naa = 1", "5:1: plans.aa = 1: expected is a table"),
    "plan no attack": (CLAIM + "[plans.aa]", "4:1: the plan 'aa' lacks 'attack': allowed are *"),
    "plan unknown": (
        CLAIM + '[plans.aa]\nattack = "autoatack"',
        "5:1: unknown attack 'autoatack': *mean 'autoattack'?",
    ),
    "plan a list": (CLAIM + "[plans.aa]\nattack = []", "5:1: unknown attack []: allowed are *"),
    "plan parameter": (
        PLAN + "epz = 1",
        "5:1: unknown parameter of autoattack 'epz': allowed are *; did you mean 'eps'?",
    ),
    "plan lacks": (CLAIM + '[plans.aa]\nattack = "fgsm"\nnorm = "linf"', "4:1: plans.aa lacks 'eps'"),
    "plan type": (PLAN + 'micro_batch = "9"', "5:1: micro_batch = '9': expected is a whole number"),
    "plan flag": (
        '[plans.aa]\nattack = "fgsm"\nnorm = "linf"\neps = 1\nrandom_start = "no"',
        "5:1: random_start = 'no': expected is true or false",
    ),
    "plan value": (PLAN.replace("8/255", "8/x"), "4:1: eps='8/x' is not a number: *"),
    "plan giant": (PLAN.replace('"8/255"', "1e999999999"), "4:1: eps='1e999999999' is not a number: *"),
    "plan giant text": (PLAN.replace("8/255", "1E-9999999"), "4:1: eps='1E-9999999' is not a number: *"),
    "plan norm": (PLAN.replace("linf", "l0"), "3:1: unknown norm 'l0': allowed are l1, l2, linf*"),
    "plan stage": (PLAN + 'stages = ["apgd"]', "1:1: unknown AutoAttack stage 'apgd': *; did you mean 'apgd-*'?"),
    "plan both": (PLAN + 'stages = []\nversion = "plus"', "5:1: the plan 'aa' has a version and stages: *"),
    "plan a word": (PLAN.replace("plans.aa", "plans.dense"), "1:1: 'dense' cannot name a plan: *"),
    "plan a keyword": (PLAN.replace("plans.aa", "plans.lambda"), "1:1: 'lambda' cannot name a plan: *"),
    "plan a dash": (PLAN.replace("plans.aa", "plans.a-b"), "1:1: 'a-b' cannot name a plan: *"),
    "cells unknown": (cell('metod = "a"'), "5:1: unknown key of cells 'metod': allowed are *; did you mean 'method'?"),
    "cells shared": ('[cells]\nmetod = "a"\n' + CLAIM, "2:1: unknown key of cells 'metod': *"),
    "cells no table": (CLAIM + "cells = 1", "4:1: cells = 1: expected is a table"),
    "axis type": (cell("method = 3"), "5:1: method = 3: expected is a text or a list of them"),
    "axis item": (cell('method = ["a", 3]'), "5:1: method = a list: expected is a text or a list of them"),
    "axis date": (cell("method = 1979-05-27"), "5:1: method = 1979-05-27: expected is a text or a list of them"),
    "seed": (cell("seed = 1.5"), "5:1: seed = 1.5: expected is a whole number or a list of them"),
    "seed truth": (cell("seed = true"), "5:1: seed = True: expected is a whole number or a list of them"),
    "sparsity": (cell("sparsity = {}"), "5:1: sparsity = a table: expected is a number or a list of them"),
    "samples": (cell("samples = 1.5"), "5:1: samples = 1.5: expected is a whole number"),
    "samples zero": (cell("samples = 0"), "4:1: samples=0 is not a whole number of at least 1 *"),
    "callable": (
        cell('dense = "pkg.mod:make"'),
        "5:1: dense = 'pkg.mod:make': a claims file names no code: give an exported program (.pt2), or override the "
        "fixture dense_model in conftest.py",
    ),
    "callable of a list": (
        cell('pruned = ["a.pt2", "os:abort"]'),
        "5:1: pruned = 'os:abort': a claims file names no code: *",
    ),
    "callable of a profile": (
        cell('dense = "a.pt2"\nprofiles = { big = { dense = "os:abort" } }'),
        "6:22: dense = 'os:abort': a claims file names no code: *",
    ),
    "callable shared": (
        '[cells]\npruned = "os:abort"\n' + CLAIM,
        "2:1: pruned = 'os:abort': a claims file names no code: *",
    ),
    "model above": (cell('dense = "../a.pt2"'), "5:1: '../a.pt2': a path of a claims file stays inside the project, *"),
    "download": (
        cell('dataset = "torchvision:MNIST?download=1"'),
        "5:1: dataset = 'torchvision:MNIST?download=1': a claims file downloads nothing",
    ),
    "model absolute": (cell('dense = "/a.pt2"'), "5:1: '/a.pt2': a path of a claims file stays inside the project, *"),
    "model of windows": (cell("dense = 'C:\\a.pt2'"), "5:1: *: a claims file names no code: *"),
    "data above": (cell('dataset = "npz:a/../../b.npz"'), "5:1: 'a/../../b.npz': a path of a claims file stays *"),
    "data absolute": (cell('dataset = "npz:/b.npz"'), "5:1: '/b.npz': a path of a claims file stays inside *"),
    "table above": (
        cell('reported = { path = "../t.csv", key = {}, column = "c" }'),
        "5:14: '../t.csv': a path of a claims file stays inside the project, *",
    ),
    "table keys": (cell('reported = { path = "t.csv", kee = {} }'), "5:30: unknown key of reported 'kee': *"),
    "table lacks": (cell('reported = { path = "t.csv", key = {} }'), "5:1: claims.cells.reported lacks 'column'"),
    "table key": (
        cell('reported = { path = "t.csv", key = { a = 90 }, column = "c" }'),
        "5:38: *'a' = 90: expected is a text",
    ),
    "table axis": (
        cell('reported = { path = "t.csv", key = { a = { axs = "b" } }, column = "c" }'),
        "5:44: unknown key of an axis 'axs': allowed are axis, values; did you mean 'axis'?",
    ),
    "table unit": (
        cell('reported = { path = "t.csv", key = {}, column = "c", unit = "%" }'),
        "5:54: unknown unit '%': allowed are fraction, percent",
    ),
    "table samples": (
        cell('reported = { path = "t.csv", key = {}, column = "c", samples = 0 }'),
        "5:54: samples=0 of a reported table is not a whole number of at least 1",
    ),
    "profile no table": (cell("profiles = { paper = 1 }"), "5:14: the profile 'paper' = 1: expected is a table"),
    "profile key": (cell("profiles = { p = { xfail = {} } }"), "5:20: unknown key of a profile 'xfail': *"),
    "xfail": (cell('xfail = { "a*" = 1 }'), "5:11: the reason of 'a\\*' = 1: expected is a text"),
    "cells many": (
        cell("seed = [" + "1," * 101 + "]\nsparsity = [" + "0," * 100 + "]"),
        "4:1: 10100 cells: at most 10000 are allowed in a file",
    ),
    "claim column": (
        '[[claims]]\nname = "a"\nclaim = "pruned.acuracy() >= 0.5"',
        "3:10: unknown metric of pruned 'acuracy': *",
    ),
    "claim after escapes": (
        '[[claims]]\nname = "a"\nclaim = "flips.share(\\"S10\\") <= prned.accuracy()"',
        "3:34: unknown name 'prned': *",
    ),
    "claim of many lines": (
        '[[claims]]\nname = "a"\nclaim = """\n  pruned.accuracy()\n    >= dense.robust_accuracy(aa)"""',
        "5:30: there is no [plans.aa]",
    ),
    "claim literal": (
        "[[claims]]\nname = 'a'\nclaim = '''pruned.accuracy()\n>= 0.1 + dense'''",
        "4:10: 'dense' is not part of the grammar: *",
    ),
    "claim cut off": ('[[claims]]\nname = "a"\nclaim = "1 >= "', "3:10: not a claim: *"),
    "reported without": (
        '[[claims]]\nname = "a"\nclaim = "reported >= 0.5"',
        "3:10: 'reported' needs a published number: write cells.reported",
    ),
    "long whole number": (f"a = {'9' * 5000}", "1:1: not read: a number is too long"),
    "deep": (f"a = {'[' * 5000}", "1:1: not read: nested too deeply"),
    "long key": (f"x = 1\n{'a.' * 5000}b = 1", "2:1: more than 100 dots in a line: break the line"),
    "many": (CLAIM * 1001, "3001:1: 1001 claims: at most 1000 are allowed in a file"),
    "control": ("a = '\0'", "1:6: not TOML: *"),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_sentence_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(ClaimsFileError) as caught:
        claims(text)
    pattern = re.escape(sentence).replace(r"\\\*", "!").replace(r"\*", ".*").replace("!", r"\*")
    assert re.fullmatch(rf"a\.claims\.toml:{pattern}", str(caught.value)), str(caught.value)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ClaimsFileError, match=r"^b:2:1: not UTF-8 at byte 4$"):
        read(b"a=1\n\xff", "b")
    with pytest.raises(ClaimsFileError, match=r"^b:1:1: the file is larger than 1000000 bytes$"):
        read(b"#" * 1_000_001, "b")


def test_lines_may_end_as_on_windows() -> None:
    (claim,) = claims(CLAIM.replace("\n", "\r\n"))
    assert claim.line == 3


def test_a_long_file_is_read_in_time_that_grows_with_it() -> None:
    """The longest keys that are let through: tomllib's time per line is quadratic in their parts."""
    key = ".".join("a" * 100)
    lines = "\n".join(f"{key}{number} = 1" for number in range(400))
    with pytest.raises(ClaimsFileError, match="unknown key 'a'"):
        claims(lines)


def test_the_documented_example_is_read() -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "toml_gate" / "release.claims.toml"
    assert len(read(example.read_bytes(), "e")) >= 2
