from __future__ import annotations

import inspect
import re
from fractions import Fraction
from typing import Any

import pytest

from pytest_prunerob import autoattack, fmn, pgd
from pytest_prunerob.claims import Claim, Distance, Measure, Quantity, Reported, Subject, within
from pytest_prunerob.errors import GrammarError
from pytest_prunerob.flips import Flips, flips
from pytest_prunerob.grammar import METHODS, parse
from pytest_prunerob.latency import latency_ratio
from pytest_prunerob.reported import Number
from pytest_prunerob.transfer import transfer

AA = autoattack("standard", norm="linf", eps="8/255")
FMN = fmn()
PLANS = {"aa": AA, "weak": pgd(norm="linf", eps="8/255", steps=10, step_size="2/255"), "nearest": FMN}


class Machinery:
    """Notes what is made and measures nothing."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    def built(self, claim: Claim) -> None:
        self.claims.append(claim)

    def judge(self, claim: Claim) -> Any:
        raise AssertionError

    def measure(self, quantity: Quantity) -> float:
        raise AssertionError

    def ids(self, measure: Measure) -> tuple[int, ...]:
        raise AssertionError


MACHINERY = Machinery()
DENSE = Subject("dense", "d", "digits", "data", MACHINERY)
PRUNED = Subject("pruned", "p", "digits", "data", MACHINERY)
REPORTED = Reported(MACHINERY, Number("44.07", Fraction(1), Fraction(1), Fraction(1), "table", "", "robust_accuracy"))

# What a file says, and the same claim in Python.
SAME = {
    "pruned.robust_accuracy(aa) >= dense.robust_accuracy(aa) - 0.03": lambda: (
        PRUNED.robust_accuracy(AA) >= DENSE.robust_accuracy(AA) - Fraction("0.03")
    ),
    "pruned.accuracy()>0.9": lambda: PRUNED.accuracy() > 0.9,
    "0.9 <= pruned.accuracy()": lambda: PRUNED.accuracy() >= 0.9,
    "-dense.accuracy() * 2 + 0.5 < -(0.1 - pruned.accuracy())": lambda: (
        -DENSE.accuracy() * 2 + 0.5 < -(0.1 - PRUNED.accuracy())
    ),
    "pruned.accuracy_under(plan=weak) - pruned.robust_accuracy(aa) >= 0.02": lambda: (
        PRUNED.accuracy_under(PLANS["weak"]) - PRUNED.robust_accuracy(AA) >= Fraction("0.02")
    ),
    "within(pruned.sparsity(), 0.9, 0.001)": lambda: within(PRUNED.sparsity(), 0.9, 0.001),
    "pruned.sparsity('filters', scope=\"all\") >= 0": lambda: PRUNED.sparsity("filters", "all") >= 0,
    "flips.auc_s10(by=nearest) > 0.85": lambda: flips(DENSE, PRUNED).auc_s10(by=FMN) > 0.85,
    "flips.share('S10') + flips.share('S01') <= 0.1": lambda: (
        flips(DENSE, PRUNED).share("S10") + flips(DENSE, PRUNED).share("S01") <= 0.1
    ),
    "pruned.distance(nearest).quantile(0.1) >= dense.distance(nearest).quantile(q=0.1)": lambda: (
        PRUNED.distance(FMN).quantile(0.1) >= DENSE.distance(FMN).quantile(0.1)
    ),
    "pruned.distance(nearest).failed() <= 0.01": lambda: PRUNED.distance(FMN).failed() <= 0.01,
    "transfer(dense, pruned, weak) >= transfer(source=pruned, target=dense, plan=weak) - 0.1": lambda: (
        transfer(DENSE, PRUNED, PLANS["weak"]) >= transfer(PRUNED, DENSE, PLANS["weak"]) - Fraction("0.1")
    ),
    "pruned.security_curve(nearest, 0.10) >= dense.security_curve(nearest, eps='8/255') - 0.1": lambda: (
        PRUNED.security_curve(FMN, "0.10") >= DENSE.security_curve(FMN, "8/255") - Fraction("0.1")
    ),
    "latency_ratio(dense, pruned, pairs=20) >= 1.5": lambda: latency_ratio(DENSE, PRUNED, pairs=20) >= 1.5,
    "pruned.latency(8) <= pruned.latency(batch_size=16, runs=50) * 0.5": lambda: (
        PRUNED.latency(8) <= PRUNED.latency(16, 50) * Fraction("0.5")
    ),
    "pruned.size_bytes('compressed') + pruned.nonzeros() <= dense.flops()": lambda: (
        PRUNED.size_bytes("compressed") + PRUNED.nonzeros() <= DENSE.flops()
    ),
    "reported - pruned.robust_accuracy(aa) >= 0.1": lambda: REPORTED - PRUNED.robust_accuracy(AA) >= 0.1,
    " (\n pruned.accuracy()\t\r\n >= 0.5\n )\n ": lambda: PRUNED.accuracy() >= 0.5,
}


@pytest.mark.parametrize("text", SAME, ids=[text.strip() for text in SAME])
def test_a_claim_in_a_file_is_the_claim_in_python(text: str) -> None:
    expression = parse(text, PLANS, reported=True)
    given = {"dense": DENSE, "pruned": PRUNED, "reported": REPORTED}
    claim = expression.claim(**{name: given[name] for name in expression.needs})  # type: ignore[arg-type]
    expected = SAME[text]()
    assert claim.text == expected.text
    assert claim.strict == expected.strict
    for found, wanted in zip(claim.differences, expected.differences, strict=True):
        assert (found.terms, found.constant) == (wanted.terms, wanted.constant)
    assert any(claim is made for made in MACHINERY.claims)


def test_numbers_are_exact_as_written() -> None:
    claim = parse("pruned.accuracy() >= 0.12345678901234567890123456", PLANS).claim(pruned=PRUNED)
    assert claim.differences[0].constant == -Fraction("0.12345678901234567890123456")


def test_needs_are_the_fixtures_that_are_named() -> None:
    assert parse("pruned.accuracy() >= 0.5", PLANS).needs == {"pruned"}
    assert parse("dense.accuracy() >= 0.5", PLANS).needs == {"dense"}
    assert parse("flips.share('S10') <= 0.5", PLANS).needs == {"dense", "pruned"}
    assert parse("latency_ratio(dense, pruned) >= 1", PLANS).needs == {"dense", "pruned"}
    assert parse("transfer(dense, dense, aa) <= 0.5", PLANS).needs == {"dense"}
    assert parse("transfer(pruned, dense, aa) <= 0.5", PLANS).needs == {"dense", "pruned"}
    assert parse("reported >= dense.accuracy()", PLANS, reported=True).needs == {"dense", "reported"}


# Text with the place marked by ¦, and the sentence.
WRONG = {
    "few runs": ("¦pruned.latency(8, 1) <= 1", "latency(runs=1): whole numbers from 2 are allowed"),
    "no batch": (
        "¦latency_ratio(dense, pruned, 0) >= 1",
        "latency_ratio(batch_size=0): whole numbers from 1 are allowed",
    ),
    "form": (
        "¦pruned.size_bytes('compresed') <= 1",
        "unknown form of size_bytes 'compresed': * did you mean 'compressed'?",
    ),
    "no source": ("transfer(¦flips, pruned, aa) >= 0.5", "'flips' is no subject: write dense or pruned"),
    "a text as source": ("transfer(¦'dense', pruned, aa) >= 0.5", "* is no subject: write dense or pruned"),
    "no plan of a transfer": ("¦transfer(dense, pruned) >= 0.5", "transfer(...) lacks its argument 'plan'"),
    "a strength that is none": (
        "pruned.security_curve(nearest, ¦'1/2/3') >= 0.5",
        "\"'1/2/3'\" is no strength, such as *",
    ),
    "a strength with an exponent": ("pruned.security_curve(nearest, ¦1e-3) >= 0.5", "'1e-3' is no strength, such as *"),
    "a sum as strength": ("pruned.security_curve(nearest, ¦0.1+0.2) >= 0.5", "'0.1+0.2' is no strength, such as *"),
    "no strength": ("¦pruned.security_curve(nearest, 0) >= 0.5", "eps='0' is not positive"),
    "a division by zero": ("¦pruned.security_curve(nearest, '1/0') >= 0.5", "eps='1/0' is not a number: *"),
    "a curve of a fixed plan": (
        "¦pruned.security_curve(aa, 0.1) >= 0.5",
        "security_curve(*) needs a minimum-norm plan*",
    ),
    "name": ("¦prunned.accuracy() >= 0.9", "unknown name 'prunned': allowed are dense, flips, pruned; did you mean"),
    "metric": (
        "1 <= ¦pruned.acuracy()",
        "unknown metric of pruned 'acuracy': allowed are accuracy, * mean 'accuracy'?",
    ),
    "ids": ("¦flips.ids('S10') >= 1", "unknown metric of flips 'ids': allowed are *"),
    "private": ("¦pruned.__class__() >= 1", "unknown metric of pruned '__class__': *"),
    "field": (
        "¦pruned.digest >= 1",
        "'pruned.digest' is not part of the grammar: a claim compares two sums, such as *",
    ),
    "field of a metric": (
        "pruned.accuracy() >= ¦pruned.accuracy().terms",
        "'pruned.accuracy().terms' is not part of *",
    ),
    "metric of a metric": ("¦pruned.accuracy().quantile(0.1) >= 1", "'pruned.accuracy()' has no metrics: *"),
    "metric of a number": ("(¦1).real() >= 1", "'1' has no metrics: *"),
    "metric of a distance": (
        "¦pruned.distance(nearest).accuracy() >= 1",
        "unknown metric of 'pruned.distance(nearest)' *",
    ),
    "subject alone": ("¦pruned >= 0.9", "'pruned' is not part of the grammar: *"),
    "plan": ("pruned.robust_accuracy(¦ab) >= 0.9", "unknown plan 'ab': allowed are aa, nearest, weak*"),
    "plan as text": ("pruned.robust_accuracy(¦'aa') >= 0.9", "\"'aa'\" is not the name of a plan"),
    "plan of another kind": ("¦pruned.robust_accuracy(nearest) >= 1", "robust_accuracy(fmn *) needs a plan with ε, *"),
    "no plan": ("¦pruned.robust_accuracy() >= 0.9", "pruned.robust_accuracy(...) lacks its argument 'plan'"),
    "two plans": ("¦pruned.robust_accuracy(aa, weak) >= 0.9", "* has 2 arguments: it takes plan"),
    "argument twice": ("pruned.robust_accuracy(aa, ¦plan=aa) >= 1", "* has the argument 'plan' twice"),
    "argument unknown": (
        "pruned.robust_accuracy(¦plam=aa) >= 1",
        "*unknown argument 'plam': allowed are plan; did you *",
    ),
    "argument of none": ("pruned.accuracy(¦plan=aa) >= 1", "pruned.accuracy(...): it takes none, received 'plan'"),
    "arguments unpacked": ("pruned.accuracy(¦**aa) >= 1", "pruned.accuracy(...): it takes none, received '**'"),
    "arguments starred": ("pruned.robust_accuracy(¦*aa) >= 1", "'*aa' is not the name of a plan"),
    "population": ("¦flips.share('S12') <= 1", "unknown population 'S12': allowed are S00, S01, S10, S11*"),
    "population a name": ("flips.share(¦S10) <= 1", "'S10' is not a quoted word, such as 'S10'"),
    "bytes": ("flips.share(¦b'S10') <= 1", "\"b'S10'\" is not a quoted word, *"),
    "formatted": ("flips.share(¦f'S10') <= 1", "\"f'S10'\" is not a quoted word, *"),
    "two words": ("flips.share(¦'S' '10') <= 1", "\"'S' '10'\" is not a quoted word, *"),
    "unit": (
        "¦pruned.sparsity('rows') <= 1",
        "unknown sparsity unit 'rows': allowed are channels, filters, kernels, weights",
    ),
    "quantile": ("¦pruned.distance(nearest).quantile(1.5) <= 1", "quantile(Fraction(3, 2)) is not between 0 and 1"),
    "quantile a quantity": ("pruned.distance(nearest).quantile(¦1 - 0.5) <= 1", "'1 - 0.5' is not a number"),
    "equal": ("¦pruned.accuracy() == 0.9", "'==' and '!=' are not offered: write within(q, value, tolerance)"),
    "unequal": ("¦pruned.accuracy() != 0.9", "'==' and '!=' are not offered: *"),
    "chain": ("¦0.1 <= pruned.accuracy() <= 0.9", "one comparison is allowed: write one [[claims]] for each"),
    "is": ("¦pruned.accuracy() is 0.9", "the comparisons are '<', '<=', '>' and '>='"),
    "in": ("¦pruned.accuracy() in 0.9", "the comparisons are '<', '<=', '>' and '>='"),
    "and": ("¦pruned.accuracy() > 0.1 and pruned.accuracy() < 0.2", "claims are not combined: *"),
    "not": ("¦not pruned.accuracy() > 0.1", "'not pruned.accuracy() > 0.1' is not part of the grammar: *"),
    "if": ("¦1 if 1 else 2", "'1 if 1 else 2' is not part of the grammar: *"),
    "claim in a claim": ("1 >= (¦pruned.accuracy() > 0.1)", "'pruned.accuracy() > 0.1' is not part of the grammar: *"),
    "quantity": ("¦pruned.accuracy() - 0.9", "'pruned.accuracy() - 0.9' is a quantity, not a claim: *"),
    "numbers": ("¦0.9 >= 0.5", "'0.9 >= 0.5' compares numbers only: nothing is measured"),
    "cancelled": ("¦pruned.accuracy() >= pruned.accuracy()", "* compares numbers only: nothing is measured"),
    "product": ("1 > ¦pruned.accuracy() * dense.accuracy()", "a product of two quantities is not linear; *"),
    "quotient": ("1 > ¦pruned.accuracy() / 2", "there is no division: write a decimal number"),
    "power": ("1 > ¦pruned.accuracy() ** 2", "'pruned.accuracy() ** 2' is not part of the grammar: *"),
    "plus": ("1 > ¦+pruned.accuracy()", "'+pruned.accuracy()' is not part of the grammar: *"),
    "exponent": ("pruned.size_bytes() <= ¦1e6", "'1e6' is not a decimal number, such as 0.03"),
    "hexadecimal": ("pruned.size_bytes() <= ¦0x10", "'0x10' is not a decimal number, such as 0.03"),
    "underscore": ("pruned.size_bytes() <= ¦1_000", "'1_000' is not a decimal number, such as 0.03"),
    "complex": ("pruned.size_bytes() <= ¦1j", "'1j' is not a decimal number, such as 0.03"),
    "truth": ("pruned.accuracy() >= ¦True", "'True' is not a decimal number, such as 0.03"),
    "dots": ("pruned.accuracy() >= ¦...", "'...' is not a decimal number, such as 0.03"),
    "text": ("pruned.accuracy() >= ¦'0.9'", "\"'0.9'\" is not a decimal number, such as 0.03"),
    "long number": (f"pruned.accuracy() >= ¦0.{'9' * 29}", "a number has 31 characters: at most 30 are allowed"),
    "giant number": (f"pruned.accuracy() >= ¦{'9' * 1900}", "a number has 1900 characters: at most 30 are allowed"),
    "reported": ("¦reported >= 0.5", "'reported' needs a published number: write cells.reported"),
    "within two": (
        "¦within(pruned.accuracy(), 0.9)",
        "within takes three arguments: within(quantity, value, tolerance)",
    ),
    "within named": ("¦within(pruned.accuracy(), 0.9, tolerance=1)", "within takes three arguments: *"),
    "within a number": ("within(¦0.9, 0.9, 0.1)", "within(quantity, value, tolerance): '0.9' is no quantity"),
    "within a quantity": (
        "within(dense.accuracy(), 0.9, ¦dense.accuracy())",
        "within(*): 'dense.accuracy()' is no number",
    ),
    "within negative": ("¦within(pruned.accuracy(), 0.9, -0.1)", "* the tolerance is negative"),
    "call": ("¦open('x') >= 1", "\"open('x')\" is not part of the grammar: *"),
    "import": ("¦__import__('os').system('x') >= 1", "\"__import__('os')\" has no metrics: *"),
    "syntax": ("pruned.accuracy() > ¦> 1", "not a claim: invalid syntax"),
    "unclosed": ("¦(pruned.accuracy() >= 1", "not a claim: '(' was never closed"),
    "nothing": ("¦", "not a claim: *"),
    "unicode": ("pruned.¦ａccuracy() >= 0.9", "the character '\\uff41' is not part of the grammar"),
    "nul": ("pruned.accuracy()¦\0 >= 0.9", "the character '\\x00' is not part of the grammar"),
    "comment": ("pruned.accuracy() >= 0.9 ¦# or so", "the character '#' is not part of the grammar"),
    "lambda": ("pruned.accuracy() >= (lambda¦: 1)()", "the character ':' is not part of the grammar"),
    "item": ("pruned.accuracy()¦[0] >= 1", "the character '[' is not part of the grammar"),
    "deep": ("(" * 50 + "¦(1)" + ")" * 50 + " >= 1", "nested deeper than 50 levels"),
    "minus minus": ("¦" + "-" * 1900 + "1 <= 1", "more than 100 operations *"),
    "many terms": ("¦1 <= " + "1+" * 900 + "1", "more than 100 operations *"),
    "powers": ("¦1 <= " + "1**" * 600 + "1", "more than 100 operations *"),
    "long": ("¦pruned.accuracy() >= 0." + " " * 2000, "the claim has 2023 characters: at most 2000 are allowed"),
}


@pytest.mark.parametrize(("marked", "sentence"), WRONG.values(), ids=WRONG)
def test_an_error_points_at_its_place(marked: str, sentence: str) -> None:
    offset = marked.index("¦")
    with pytest.raises(GrammarError) as caught:
        parse(marked.replace("¦", ""), PLANS)
    assert re.match(re.escape(sentence).replace(r"\*", ".*"), str(caught.value)), str(caught.value)
    assert caught.value.offset == offset
    assert "\n" not in str(caught.value)


def test_without_plans_the_error_says_what_to_write() -> None:
    with pytest.raises(GrammarError, match=re.escape("there is no [plans.aa]")):
        parse("pruned.robust_accuracy(aa) >= 0.5", {})


def test_the_methods_are_those_of_the_classes() -> None:
    """A metric that is added to a class is to be added to the grammar."""
    words = {
        "Plan": "plan",
        "str": "text",
        "str | None": "text",
        "int": "whole number",
        "float": "number",
        "PlanNumber": "strength",
        "PlanNumber | Sequence[PlanNumber]": "strength",
    }
    for kind, owner in (("subject", Subject), ("flips", Flips), ("distance", Distance)):
        found = {}
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if name.startswith("_") or inspect.signature(function).return_annotation not in (
                "Quantity",
                "Distance",
                "Quantity | SecurityCurve",
                "Score",
            ):
                continue
            parameters = list(inspect.signature(function).parameters.values())[1:]
            found[name] = {
                p.name: words[p.annotation] if p.default is p.empty else f"[{words[p.annotation]}]" for p in parameters
            }
        assert found == METHODS[kind]
