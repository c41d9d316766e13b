"""The claim language: quantities of subjects, and claims that compare them.

A quantity is lazy: it is measured when a comparison is asked for its truth, and only as far as that needs. This module
knows the engine only as the ``Evaluation`` protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

from pytest_prunerob.decimals import SUPPORTED_FORM, decimal, exact
from pytest_prunerob.errors import ClaimError, unknown
from pytest_prunerob.plans import Plan
from pytest_prunerob.plans.corruption import by_kind
from pytest_prunerob.reported import Number

if TYPE_CHECKING:
    from pytest_prunerob.curves import SecurityCurve
    from pytest_prunerob.plans import Number as PlanNumber
    from pytest_prunerob.scores import Score
    from pytest_prunerob.verdicts import Verdict

# What is measured on the network itself, anew in every test: nothing of it is stored, and no attack is needed.
OF_WEIGHTS = ("sparsity", "parameters", "nonzeros", "size_bytes")
OF_FORWARDS = ("flops", "latency", "latency_ratio")
FACTS = (*OF_WEIGHTS, *OF_FORWARDS)


class Evaluation(Protocol):
    """What claims need of the machinery: to be told of every claim, to judge one, to measure a quantity."""

    def built(self, claim: Claim) -> None:
        """Take note that ``claim`` was made by the running test."""
        ...

    def judge(self, claim: Claim) -> Verdict:
        """Measure what decides ``claim`` and return its verdict."""
        ...

    def measure(self, quantity: Quantity) -> float:
        """Measure ``quantity`` completely."""
        ...

    def ids(self, measure: Measure) -> tuple[int, ...]:
        """The original indices of the samples in a flip population."""
        ...


@dataclass(frozen=True)
class Measure:
    """One measurable number: a metric of one or two subjects, with a plan where the metric needs one.

    ``options`` are further arguments by name; ``number`` is set for a published number, which needs no measurement.
    """

    metric: str
    subjects: tuple[Subject, ...]
    plan: Plan | None = None
    options: tuple[tuple[str, str], ...] = ()
    number: Number | None = None

    @property
    def text(self) -> str:
        """The measure as a reader would write it."""
        if self.number is not None:
            return f"reported({self.number.text})"
        arguments = [value for _, value in self.options]
        if self.plan is not None:
            arguments.append(self.plan.text)
        if self.metric == "transfer":
            return f"transfer({', '.join([self.subjects[1].role, self.subjects[0].role, *arguments])})"
        if self.metric in ("security_curve", "critical_strength"):
            return self._at_strengths
        if self.metric == "latency_ratio":
            return f"latency_ratio({', '.join([*(subject.role for subject in self.subjects), *arguments])})"
        if len(self.subjects) == 2:
            owner = f"flips({self.subjects[0].role}, {self.subjects[1].role})"
        else:
            owner = self.subjects[0].role
        return f"{owner}.{self.metric}({', '.join(arguments)})"

    @property
    def _at_strengths(self) -> str:
        assert self.plan is not None
        options, roles = dict(self.options), ", ".join(subject.role for subject in self.subjects)
        if self.metric == "security_curve":
            return f"{roles}.security_curve({self.plan.text}, ε={options['eps']})"
        sweep = ", ".join(options["eps"].split())
        return f"critical_strength({roles}, {self.plan.text}, ε=[{sweep}], tolerance={options['tolerance']})"


class Quantity:
    """A linear combination of measures, measured when it is compared or converted by ``float``.

    Supports ``+``, ``-`` and ``*`` with numbers and ``+``, ``-`` with other quantities; ``<``, ``<=``, ``>``, ``>=``
    give a :class:`Claim`. Truth, ``==`` and ``!=`` raise ``TypeError``: a quantity is no yes or no.
    """

    __array_ufunc__ = None  # numpy scalars must leave comparisons and sums to this class
    __hash__ = None  # type: ignore[assignment]  # equality is refused, so hashing is too

    def __init__(
        self, evaluation: Evaluation, terms: tuple[tuple[Measure, Fraction], ...], constant: Fraction = Fraction(0)
    ) -> None:
        self.evaluation = evaluation
        self.terms = terms
        self.constant = constant

    @property
    def text(self) -> str:
        """The quantity as a reader would write it."""
        parts: list[str] = []
        for measure, factor in self.terms:
            parts.append(
                _signed(factor, measure.text if abs(factor) == 1 else f"{decimal(abs(factor))} * {measure.text}")
            )
        if self.constant or not parts:
            parts.append(_signed(self.constant, decimal(abs(self.constant))))
        text = " ".join(parts)
        return text[2:] if text.startswith("+ ") else text.replace("- ", "-", 1)

    def __repr__(self) -> str:
        return f"<Quantity {self.text}>"

    def __float__(self) -> float:
        return self.evaluation.measure(self)

    def __add__(self, other: object) -> Quantity:
        return self._plus(other, Fraction(1))

    def __sub__(self, other: object) -> Quantity:
        return self._plus(other, Fraction(-1))

    def __radd__(self, other: object) -> Quantity:
        return self._plus(other, Fraction(1))

    def __rsub__(self, other: object) -> Quantity:
        return (-self)._plus(other, Fraction(1))

    def __neg__(self) -> Quantity:
        return self * -1

    def __pos__(self) -> Quantity:
        return self

    def __mul__(self, other: object) -> Quantity:
        if isinstance(other, Quantity):
            raise TypeError(f"a product of two quantities is not linear; {SUPPORTED_FORM}")
        factor = exact(other)
        terms = tuple((measure, value * factor) for measure, value in self.terms if factor)
        return Quantity(self.evaluation, terms, self.constant * factor)

    __rmul__ = __mul__

    def __le__(self, other: object) -> Claim:
        return self._claim(other, "<=")

    def __lt__(self, other: object) -> Claim:
        return self._claim(other, "<")

    def __ge__(self, other: object) -> Claim:
        return self._claim(other, ">=")

    def __gt__(self, other: object) -> Claim:
        return self._claim(other, ">")

    def __bool__(self) -> NoReturn:
        raise TypeError(f"'{self.text}' is a quantity, not a claim: compare it, such as 'assert {self.text} >= 0.9'")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError(f"'{self.text} == ...' is not supported: use within({self.text}, value, tolerance)")

    def __ne__(self, other: object) -> NoReturn:
        raise TypeError(f"'{self.text} != ...' is not supported: use a comparison such as '<' or within(...)")

    def _unsupported(self, *_: object) -> NoReturn:
        raise TypeError(f"this operation is not supported on '{self.text}': {SUPPORTED_FORM}")

    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _unsupported
    __divmod__ = __rdivmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _unsupported
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _unsupported
    __abs__ = __round__ = __int__ = __trunc__ = __floor__ = __ceil__ = _unsupported
    __len__ = __iter__ = __contains__ = _unsupported

    def _plus(self, other: object, sign: Fraction) -> Quantity:
        if not isinstance(other, Quantity):
            return Quantity(self.evaluation, self.terms, self.constant + sign * exact(other))
        if other.evaluation is not self.evaluation:
            raise ClaimError(f"'{self.text}' and '{other.text}' belong to two different tests and cannot be combined")
        merged = dict(self.terms)
        for measure, factor in other.terms:
            merged[measure] = merged.get(measure, Fraction(0)) + sign * factor
        terms = tuple((measure, factor) for measure, factor in merged.items() if factor)
        return Quantity(self.evaluation, terms, self.constant + sign * other.constant)

    def _claim(self, other: object, relation: str) -> Claim:
        right = other if isinstance(other, Quantity) else Quantity(self.evaluation, (), exact(other))
        larger, smaller = (self, right) if relation[0] == ">" else (right, self)
        text = f"{self.text} {relation} {right.text}"
        return Claim(text, (larger - smaller,), strict=len(relation) == 1)


class Distance(Quantity):
    """The median distance to the decision boundary over the samples the subject classifies correctly.

    Distances are in the norm of the plan; a sample whose search failed counts as +inf.
    """

    def quantile(self, q: float) -> Quantity:
        """The ``q``-quantile (0 to 1, lower sample) of the distances of the correctly classified samples."""
        share = exact(q)
        if not 0 <= share <= 1:
            raise ClaimError(f"quantile({q!r}) is not between 0 and 1")
        return self._with("distance", (("quantile", str(share)),))

    def failed(self) -> Quantity:
        """The share of the correctly classified samples for which no adversarial input was found."""
        return self._with("failed", ())

    def _with(self, metric: str, options: tuple[tuple[str, str], ...]) -> Quantity:
        measure = self.terms[0][0]
        return Quantity(self.evaluation, ((Measure(metric, measure.subjects, measure.plan, options), Fraction(1)),))


class Reported(Quantity):
    """The published number of the cell: an interval by its printed digits.

    ``text`` is the number as printed, ``value``, ``low`` and ``high`` are shares (0 to 1), ``source`` says where.
    """

    def __init__(self, evaluation: Evaluation, number: Number) -> None:
        super().__init__(evaluation, ((Measure("reported", (), number=number), Fraction(1)),))
        self.number = number

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.number.value)

    @property
    def low(self) -> float:
        """The smallest number that is printed like this."""
        return float(self.number.low)

    @property
    def high(self) -> float:
        """The largest number that is printed like this."""
        return float(self.number.high)

    @property
    def source(self) -> str:
        """Table, row and column."""
        return self.number.source


class Claim:
    """A comparison of quantities. Its truth is judged once, recorded on the running test, and kept.

    Only ``assert claim`` is needed; a test passes only if every claim it made was judged and is supported.
    """

    __hash__ = None  # type: ignore[assignment]  # equality is refused, so hashing is too

    def __init__(self, text: str, differences: tuple[Quantity, ...], *, strict: bool = False) -> None:
        self.text = text
        self.differences = differences
        self.strict = strict
        self.verdict: Verdict | None = None
        self.evaluation = differences[0].evaluation
        self.evaluation.built(self)  # before any error below: a claim that was made and not judged fails its test
        if not any(difference.terms for difference in differences):
            raise ClaimError(f"'{text}' compares numbers only: nothing is measured")
        metrics = {measure.metric for difference in differences for measure, _ in difference.terms}
        timed = {m.subjects for d in differences for m, _ in d.terms if m.metric == "latency"}
        if len(timed) > 1:
            raise ClaimError(
                f"'{text}' compares times that are not taken in turns: write latency_ratio(dense, pruned) instead"
            )
        if "clever" in metrics and (others := sorted(metrics - {"clever", "reported"})):
            raise ClaimError(
                f"'{text}' adds an estimate to what was measured: claim clever(...) apart from {others[0]}"
            )
        datasets = {s.dataset_digest: s.dataset_name for s in self._measured_on_samples()}
        if len(datasets) > 1:
            raise ClaimError(f"'{text}' compares subjects on unrelated datasets: {', '.join(datasets.values())}")

    def __bool__(self) -> bool:
        if self.verdict is None:
            self.verdict = self.evaluation.judge(self)
        return bool(self.verdict.status == "supported")

    def __repr__(self) -> str:
        return f"<Claim {self.text}: {self.verdict.status if self.verdict else 'not judged'}>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError(f"claims are not compared: write 'assert {self.text}'")

    def _unsupported(self, *_: object) -> NoReturn:
        raise TypeError("claims are not combined: write one assert for each")

    __and__ = __rand__ = __or__ = __ror__ = __invert__ = __lt__ = __le__ = __gt__ = __ge__ = __ne__ = _unsupported

    def _measured_on_samples(self) -> list[Subject]:
        return [
            subject
            for difference in self.differences
            for measure, _ in difference.terms
            if measure.metric not in OF_WEIGHTS
            for subject in measure.subjects
        ]


def within(quantity: Quantity, value: object, tolerance: object) -> Claim:
    """The claim that ``quantity`` differs from ``value`` by at most ``tolerance``.

    Raises:
        ClaimError: for a negative tolerance.
        TypeError: where ``quantity`` is no quantity.
    """
    if not isinstance(quantity, Quantity):
        raise TypeError(f"within(quantity, value, tolerance) takes a quantity first, received {quantity!r}")
    margin = exact(tolerance)
    if margin < 0:
        raise ClaimError(f"within(..., tolerance={tolerance!r}): the tolerance is negative")
    difference = quantity - value
    right = value.text if isinstance(value, Quantity) else decimal(exact(value))
    return Claim(f"within({quantity.text}, {right}, {decimal(margin)})", (difference + margin, margin - difference))


@dataclass(frozen=True, eq=False)
class Subject:
    """A dense or pruned model on a dataset, whose quantities are measured when they are compared.

    ``role`` is "dense", "pruned" or the name it was given; ``digest`` identifies the model, ``dataset_digest`` the
    samples. All methods return quantities; shares lie between 0 and 1.
    """

    role: str
    digest: str
    dataset_name: str
    dataset_digest: str
    evaluation: Evaluation

    def __getattr__(self, name: str) -> NoReturn:
        raise no_such_quantity(f"quantity of {vars(self).get('role', 'a subject')}", self, name)

    def accuracy(self) -> Quantity:
        """Share of the samples that are classified correctly."""
        return self._quantity("accuracy")

    def robust_accuracy(self, plan: Plan) -> Quantity:
        """Share of all samples that are classified correctly and survive every stage of ``plan``."""
        return self._quantity("robust_accuracy", plan_of_kind(plan, ("fixed",), "robust_accuracy"))

    def accuracy_under(self, plan: Plan) -> Quantity:
        """Accuracy over all samples on the inputs that the attack returns; a clean error may become correct."""
        kinds = ("fixed", "minimum", "corruption")
        return self._quantity("accuracy_under", plan_of_kind(plan, kinds, "accuracy_under"))

    def corruption_accuracy(self, kind: str, severity: int, constants: str | None = None) -> Quantity:
        """Accuracy over all samples on corrupted inputs: those of ``corruption(kind, severity, constants=constants)``.

        ``kind`` "occlusion" covers a central square, and ``severity`` is its side in pixels.
        """
        return self._quantity("corruption_accuracy", by_kind(kind, severity, constants))

    def distance(self, plan: Plan) -> Distance:
        """Median smallest perturbation over the correctly classified samples, in the norm of ``plan``."""
        measure = Measure("distance", (self,), plan_of_kind(plan, ("minimum",), "distance"))
        return Distance(self.evaluation, ((measure, Fraction(1)),))

    @overload
    def security_curve(self, plan: Plan, eps: PlanNumber) -> Quantity: ...

    @overload
    def security_curve(self, plan: Plan, eps: list[Any] | tuple[PlanNumber, ...]) -> SecurityCurve: ...

    def security_curve(self, plan: Plan, eps: PlanNumber | Sequence[PlanNumber]) -> Quantity | SecurityCurve:
        """Robust accuracy at ``eps``, or at each of a rising list; one minimum-norm measurement serves every ε."""
        from pytest_prunerob.curves import at_strength, security_curve

        if isinstance(eps, Sequence) and not isinstance(eps, str):
            return security_curve(self, plan, eps)
        return at_strength(self, plan, eps)

    def clever(
        self, *, norm: str, radius: PlanNumber, batches: int = 50, batch_size: int = 10, targets: int = 9
    ) -> Score:
        """Mean CLEVER score (Weng et al. 2018) over the correctly classified samples: an estimate of a lower bound.

        Gradients at ``batches`` times ``batch_size`` points within ``radius`` are taken of the margins to the
        ``targets`` most likely other classes. It shows no robustness: a claim on it stands for itself.
        """
        from pytest_prunerob.scores import clever_score

        return clever_score(self, norm=norm, radius=radius, batches=batches, batch_size=batch_size, targets=targets)

    def sparsity(self, unit: str = "weights", scope: str = "prunable") -> Quantity:
        """Share of units that are exactly zero.

        ``unit``: "weights", or parts of convolutions that are zero throughout: "kernels" ``W[o, i]``, "filters"
        ``W[o]``, "channels" ``W[:, i]``. ``scope``: "prunable" (the weights of convolutions and linear layers) or "all"
        (every parameter), which makes a difference for weights alone.
        """
        for value, allowed, kind in ((unit, _UNITS, "unit"), (scope, ("prunable", "all"), "scope")):
            if value not in allowed:
                raise ClaimError(unknown(f"sparsity {kind}", value, allowed))
        return self._quantity("sparsity", options=(("unit", unit), ("scope", scope)))

    def parameters(self) -> Quantity:
        """Number of parameters, zeros included."""
        return self._quantity("parameters")

    def nonzeros(self) -> Quantity:
        """Number of parameters that are not exactly zero."""
        return self._quantity("nonzeros")

    def flops(self) -> Quantity:
        """Operations of one forward of the first sample, a multiplication and its addition as two; zeros count."""
        return self._quantity("flops")

    def latency(self, batch_size: int = 64, runs: int = 100) -> Quantity:
        """Mean time of a forward of ``batch_size`` samples in milliseconds, over ``runs`` of them after a warm-up.

        Claims are judged by the confidence interval of the mean on this machine; across models prefer
        :func:`pytest_prunerob.latency_ratio`.
        """
        from pytest_prunerob.latency import latency

        return latency(self, batch_size, runs)

    def size_bytes(self, form: str = "dense") -> Quantity:
        """Bytes of the state dict as a safetensors file, or ("compressed") of that file compressed by zlib."""
        if form not in _FORMS:
            raise ClaimError(unknown("form of size_bytes", form, _FORMS))
        return self._quantity("size_bytes", options=(("form", form),))

    def _quantity(self, metric: str, plan: Plan | None = None, options: tuple[tuple[str, str], ...] = ()) -> Quantity:
        return Quantity(self.evaluation, ((Measure(metric, (self,), plan, options), Fraction(1)),))


def no_such_quantity(kind: str, owner: object, name: str) -> AttributeError:
    """The error for a name that ``owner`` does not have, with the nearest match among its public ones."""
    if name.startswith("_"):  # what copy, pickle and the debugger look for
        return AttributeError(name)
    return AttributeError(unknown(kind, name, (own for own in dir(type(owner)) if not own.startswith("_"))))


def _signed(sign: Fraction, text: str) -> str:
    return f"- {text}" if sign < 0 else f"+ {text}"


_UNITS = ("weights", "kernels", "filters", "channels")
_FORMS = ("dense", "compressed")
_PLANS = {
    "fixed": "a plan with ε, such as autoattack(...)",
    "minimum": "a minimum-norm plan, such as fmn(...)",
    "corruption": "a corruption, such as corruption(...)",
}


def plan_of_kind(plan: Plan, kinds: tuple[str, ...], metric: str) -> Plan:
    """``plan`` if it is of one of ``kinds`` ("fixed", "minimum"), as ``metric`` needs; raises ``ClaimError`` else."""
    if not isinstance(plan, Plan):
        raise ClaimError(f"{metric}(...) takes a plan such as autoattack(...) or fmn(...), received {plan!r}")
    if plan.kind not in kinds:
        raise ClaimError(f"{metric}({plan.text}) needs {' or '.join(_PLANS[kind] for kind in kinds)}")
    return plan
