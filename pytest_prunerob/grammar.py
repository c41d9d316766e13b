"""The language of claims in a file: one comparison, read against a whitelist and never executed as Python.

``docs/toml_claims.md`` holds the grammar. Python's own parser makes the tree; nothing of it is compiled or evaluated.
Every node is either one of those handled here or an error that points at its place in the text.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pytest_prunerob.claims import Claim, Distance, Measure, Quantity, Reported, Subject, within
from pytest_prunerob.errors import ClaimError, GrammarError, InputError, unknown
from pytest_prunerob.flips import Flips, flips
from pytest_prunerob.latency import latency_ratio
from pytest_prunerob.plans import Plan
from pytest_prunerob.reported import Number
from pytest_prunerob.scores import Score
from pytest_prunerob.transfer import transfer

LENGTH = 2000  # characters of a claim (ours: the longest claim of the suites has 120)
DEPTH = 50  # levels of nesting (ours); keeps clear of every recursion limit
DIGITS = 30  # characters of a number (ours)
SUBJECTS = ("dense", "pruned")
WORDS = (*SUBJECTS, "flips", "latency_ratio", "reported", "transfer", "within")  # what a plan cannot be called

# The methods by owner, with the kind of each argument; in brackets the arguments that may be left out.
METHODS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "subject": {
        "accuracy": {},
        "robust_accuracy": {"plan": "plan"},
        "accuracy_under": {"plan": "plan"},
        "corruption_accuracy": {"kind": "text", "severity": "whole number", "constants": "[text]"},
        "distance": {"plan": "plan"},
        "security_curve": {"plan": "plan", "eps": "strength"},
        "clever": {
            "norm": "text",
            "radius": "strength",
            "batches": "[whole number]",
            "batch_size": "[whole number]",
            "targets": "[whole number]",
        },
        "sparsity": {"unit": "[text]", "scope": "[text]"},
        "parameters": {},
        "nonzeros": {},
        "flops": {},
        "latency": {"batch_size": "[whole number]", "runs": "[whole number]"},
        "size_bytes": {"form": "[text]"},
    },
    "flips": {
        "share": {"population": "text"},
        "auc_s10": {"by": "plan"},
        "auc_s01": {"by": "plan"},
        "p_s10": {"by": "plan"},
        "p_s01": {"by": "plan"},
    },
    "distance": {"quantile": {"q": "number"}, "failed": {}},
    "score": {"quantile": {"q": "number"}},
}
# The functions of two subjects, in the same way.
FUNCTIONS: Mapping[str, tuple[Callable[..., Quantity], Mapping[str, str]]] = {
    "transfer": (transfer, {"source": "subject", "target": "subject", "plan": "plan"}),
    "latency_ratio": (
        latency_ratio,
        {"dense": "subject", "pruned": "subject", "batch_size": "[whole number]", "pairs": "[whole number]"},
    ),
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_SUMS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_CHARACTERS = re.compile(r"[A-Za-z0-9_.,()+\-*<>=!/\"' \t\r\n]")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_STRENGTH = re.compile(r"[0-9]+(\.[0-9]+)?(/[0-9]+)?")
_TEXT = re.compile(r"""(["'])[A-Za-z0-9_-]*\1""")
_FORM = "a claim compares two sums, such as 'pruned.accuracy() >= dense.accuracy() - 0.02'"


@dataclass(frozen=True)
class Expression:
    """A claim that was read: its text, the plans it may name, and the fixtures that it needs."""

    text: str
    tree: ast.expr
    plans: Mapping[str, Plan]
    needs: frozenset[str]

    def claim(
        self, *, dense: Subject | None = None, pruned: Subject | None = None, reported: Reported | None = None
    ) -> Claim:
        """The claim about these subjects; those in ``needs`` must be given.

        Raises:
            GrammarError: where it cannot be made of them, such as one over unrelated datasets.
        """
        given = {"dense": dense, "pruned": pruned, "reported": reported}
        return _Reader(self.text, self.plans, {k: v for k, v in given.items() if v is not None}).claim(self.tree)


def parse(text: str, plans: Mapping[str, Plan], *, reported: bool = False) -> Expression:
    """Read the claim in ``text``; ``reported`` says whether its cells have a published number.

    Everything but the measurement is checked here: names, arguments, kinds of plans, linearity.

    Raises:
        GrammarError: one sentence; ``offset`` is the place in ``text``, in characters.
    """
    tree = _tree(text)
    made = _Unmeasured()
    given: dict[str, Subject | Reported] = {role: Subject(role, "", "", "", made) for role in SUBJECTS}
    if reported:
        given["reported"] = Reported(made, Number("0", Fraction(0), Fraction(0), Fraction(0), "", "", ""))
    reader = _Reader(text, plans, given)
    reader.claim(tree)
    return Expression(text, tree, dict(plans), frozenset(reader.used))


def _tree(text: str) -> ast.expr:
    """The syntax tree of ``text``, with offsets into ``text`` and at most ``DEPTH`` levels deep."""
    if len(text) > LENGTH:
        raise GrammarError(f"the claim has {len(text)} characters: at most {LENGTH} are allowed", 0)
    for offset, character in enumerate(text):
        if not _CHARACTERS.match(character):
            raise GrammarError(f"the character {character!a} is not part of the grammar", offset)
    depth = 0
    for offset, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth > DEPTH:
            raise GrammarError(f"nested deeper than {DEPTH} levels", offset)
    # One line, so that offsets stay; no token of the grammar holds a line break.
    line = re.sub(r"[\t\r\n]", " ", text)
    start = len(line) - len(line.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on literals that are refused below
            tree = ast.parse(line.strip(), mode="eval").body
    except SyntaxError as error:
        offset = start + max((error.offset or 1) - 1, 0)
        raise GrammarError(f"not a claim: {error.msg}", min(offset, len(text))) from None
    except (ValueError, RecursionError, MemoryError):
        raise GrammarError("too large or too deeply nested to be read", start) from None
    level: list[ast.AST] = [tree]
    for _ in range(2 * DEPTH):  # a sum of n terms is n levels deep
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise GrammarError(f"more than {2 * DEPTH} operations inside one another", start)
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.keyword):
            node.col_offset += start
            node.end_col_offset = (node.end_col_offset or 0) + start
    return tree


class _Reader:
    """Turns the nodes of one text into quantities of the given subjects; whatever it does not know is an error."""

    def __init__(self, text: str, plans: Mapping[str, Plan], given: Mapping[str, Subject | Reported]) -> None:
        self.text = text
        self.plans = plans
        self.given = given
        self.used: set[str] = set()

    def claim(self, node: ast.expr) -> Claim:
        """The claim in ``node``."""
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "within":
            if len(node.args) != 3 or node.keywords:
                raise GrammarError("within takes three arguments: within(quantity, value, tolerance)", node.col_offset)
            first, second, third = (self.sum(argument) for argument in node.args)
            if not isinstance(first, Quantity) or isinstance(third, Quantity):
                wrong, needed = (node.args[0], "quantity") if isinstance(third, Fraction) else (node.args[2], "number")
                raise GrammarError(
                    f"within(quantity, value, tolerance): {self._shown(wrong)} is no {needed}", wrong.col_offset
                )
            made: Claim = self._made(node, within, first, second, third)
            return made
        if isinstance(node, ast.BoolOp):
            raise GrammarError("claims are not combined: write one [[claims]] for each", node.col_offset)
        self.sum(node)
        raise GrammarError(f"{self._shown(node)} is a quantity, not a claim: {_FORM}", node.col_offset)

    def sum(self, node: ast.expr) -> Fraction | Quantity:
        """The number or quantity in ``node``."""
        if isinstance(node, ast.Constant):
            return self._number(node)
        if isinstance(node, ast.Name) and node.id == "reported":
            if "reported" not in self.given:
                raise GrammarError("'reported' needs a published number: write cells.reported", node.col_offset)
            self.used.add("reported")
            return self.given["reported"]  # type: ignore[return-value]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._summed(node, operator.neg, node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
            return self._summed(node, _SUMS[type(node.op)], node.left, node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            raise GrammarError("there is no division: write a decimal number", node.col_offset)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return self._metric(node, node.func)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            function, wanted = FUNCTIONS[node.func.id]
            arguments = self._arguments(node, node.func.id, wanted)
            made: Quantity = self._made(node, lambda: function(**arguments))
            return made
        raise GrammarError(f"{self._shown(node)} is not part of the grammar: {_FORM}", node.col_offset)

    def _comparison(self, node: ast.Compare) -> Claim:
        if len(node.ops) != 1:
            raise GrammarError("one comparison is allowed: write one [[claims]] for each", node.col_offset)
        if isinstance(node.ops[0], ast.Eq | ast.NotEq):
            raise GrammarError("'==' and '!=' are not offered: write within(q, value, tolerance)", node.col_offset)
        if type(node.ops[0]) not in _COMPARISONS:
            raise GrammarError("the comparisons are '<', '<=', '>' and '>='", node.col_offset)
        left, right = self.sum(node.left), self.sum(node.comparators[0])
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            raise GrammarError(f"{self._shown(node)} compares numbers only: nothing is measured", node.col_offset)
        made: Claim = self._made(node, _COMPARISONS[type(node.ops[0])], left, right)
        return made

    def _summed(self, node: ast.expr, operation: Callable[..., Any], *parts: ast.expr) -> Fraction | Quantity:
        made: Fraction | Quantity = self._made(node, operation, *(self.sum(part) for part in parts))
        return made

    def _metric(self, node: ast.Call, function: ast.Attribute) -> Quantity:
        owner, kind, shown = self._owner(function.value)
        methods = METHODS[kind]
        if function.attr not in methods:
            raise GrammarError(unknown(f"metric of {shown}", function.attr, methods), node.col_offset)
        arguments = self._arguments(node, f"{shown}.{function.attr}", methods[function.attr])
        made: Quantity = self._made(node, lambda: getattr(owner, function.attr)(**arguments))
        return made

    def _owner(self, node: ast.expr) -> tuple[Subject | Flips | Distance | Score, str, str]:
        """Whose metric is asked for: the object, the part of ``METHODS`` and its name."""
        if isinstance(node, ast.Name):
            if node.id == "flips":
                self.used.update(SUBJECTS)
                both = (self.given["dense"], self.given["pruned"])
                return self._made(node, flips, *both), "flips", "flips"
            if node.id not in SUBJECTS:
                raise GrammarError(unknown("name", node.id, (*SUBJECTS, "flips")), node.col_offset)
            self.used.add(node.id)
            return self.given[node.id], "subject", node.id  # type: ignore[return-value]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found = self._metric(node, node.func)
            if isinstance(found, Distance):
                return found, "distance", self._shown(node)
            if isinstance(found, Score):
                return found, "score", self._shown(node)
        raise GrammarError(f"{self._shown(node)} has no metrics: {_FORM}", node.col_offset)

    def _arguments(self, node: ast.Call, shown: str, wanted: Mapping[str, str]) -> dict[str, object]:
        if len(node.args) > len(wanted):
            names = ", ".join(wanted) or "no argument"
            raise GrammarError(f"{shown}(...) has {len(node.args)} arguments: it takes {names}", node.col_offset)
        given = dict(zip(wanted, node.args, strict=False))
        for keyword in node.keywords:
            name = keyword.arg or "**"
            if name not in wanted:
                allowed = unknown("argument", name, wanted) if wanted else f"it takes none, received {name!r}"
                raise GrammarError(f"{shown}(...): {allowed}", keyword.col_offset)
            if name in given:
                raise GrammarError(f"{shown}(...) has the argument {name!r} twice", keyword.col_offset)
            given[name] = keyword.value
        missing = [name for name, kind in wanted.items() if name not in given and not kind.startswith("[")]
        if missing:
            raise GrammarError(f"{shown}(...) lacks its argument {missing[0]!r}", node.col_offset)
        return {name: self._argument(value, wanted[name].strip("[]")) for name, value in given.items()}

    def _argument(self, node: ast.expr, kind: str) -> object:
        if kind == "plan":
            if not isinstance(node, ast.Name):
                raise GrammarError(f"{self._shown(node)} is not the name of a plan", node.col_offset)
            if node.id not in self.plans:
                allowed = unknown("plan", node.id, self.plans) if self.plans else f"there is no [plans.{node.id}]"
                raise GrammarError(allowed, node.col_offset)
            return self.plans[node.id]
        if kind == "subject":
            if not isinstance(node, ast.Name) or node.id not in SUBJECTS:
                raise GrammarError(f"{self._shown(node)} is no subject: write dense or pruned", node.col_offset)
            self.used.add(node.id)
            return self.given[node.id]
        if kind == "strength":
            return self._strength(node)
        if kind == "text":
            if not (
                isinstance(node, ast.Constant) and isinstance(node.value, str) and _TEXT.fullmatch(self._raw(node))
            ):
                raise GrammarError(f"{self._shown(node)} is not a quoted word, such as 'S10'", node.col_offset)
            return node.value
        if not isinstance(node, ast.Constant):
            raise GrammarError(f"{self._shown(node)} is not a number", node.col_offset)
        number = self._number(node)
        if kind == "whole number" and number.denominator != 1:
            raise GrammarError(f"{self._shown(node)} is not a whole number", node.col_offset)
        return int(number) if kind == "whole number" else number

    def _strength(self, node: ast.expr) -> str:
        """An ε as it is written, with or without quotes."""
        raw = self._raw(node)
        written = raw[1:-1] if raw[:1] in ("'", '"') else raw
        if not isinstance(node, ast.Constant) or not _STRENGTH.fullmatch(written):
            raise GrammarError(f"{self._shown(node)} is no strength, such as 0.1 or '8/255'", node.col_offset)
        if len(written) > DIGITS:
            raise GrammarError(f"a number has {len(written)} characters: at most {DIGITS} are allowed", node.col_offset)
        return written

    def _number(self, node: ast.Constant) -> Fraction:
        """The exact number as written: a float of the tree has lost its digits."""
        written = self._raw(node)
        if not _NUMBER.fullmatch(written):
            raise GrammarError(f"{self._shown(node)} is not a decimal number, such as 0.03", node.col_offset)
        if len(written) > DIGITS:
            raise GrammarError(f"a number has {len(written)} characters: at most {DIGITS} are allowed", node.col_offset)
        return Fraction(written)

    def _made(self, node: ast.expr, make: Callable[..., Any], *arguments: object) -> Any:
        """What ``make`` returns; its refusal points at ``node``."""
        try:
            return make(*arguments)
        except (InputError, TypeError) as error:
            raise GrammarError(str(error), node.col_offset) from error

    def _raw(self, node: ast.expr) -> str:
        return self.text[node.col_offset : node.end_col_offset]

    def _shown(self, node: ast.expr) -> str:
        text = " ".join(self._raw(node).split())
        return repr(text if len(text) <= 60 else f"{text[:57]}...")


class _Unmeasured:
    """Stands in for the machinery while a claim is only checked."""

    def built(self, claim: Claim) -> None:
        """Nothing is to be noted: no test is running."""

    def judge(self, claim: Claim) -> Any:
        """Refuse: there is nothing to measure."""
        raise ClaimError(f"'{claim.text}' is not judged here")

    def measure(self, quantity: Quantity) -> float:
        """Refuse: there is nothing to measure."""
        raise ClaimError(f"'{quantity.text}' is not measured here")

    def ids(self, measure: Measure) -> tuple[int, ...]:
        """Refuse: there is nothing to measure."""
        raise ClaimError(f"'{measure.text}' is not measured here")
