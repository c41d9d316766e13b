"""From outcomes to what is known of a quantity. One metric is one function here and a line in ``evaluation``.

Each function returns a :class:`Known`: an interval that holds whatever the undecided samples turn out to be. None
returns a default number: an empty sample leaves the whole range open and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf

from pytest_prunerob.inference import SMALLEST_GROUP
from pytest_prunerob.known import Bound, Known
from pytest_prunerob.ledger import Ledger
from pytest_prunerob.statistics import auc, lower_quantile, mann_whitney_p

_NONE_CORRECT = "no sample is classified correctly"
SMALL_GROUP = 10  # below it an AUC decides nothing (design 4.4)
FAILED_SHARE = Fraction(1, 100)  # more failed searches than this make distances untrustworthy (ours)


def share(members: int, n: int) -> Known:
    """An exactly known share of ``n`` samples."""
    if n == 0:
        return Known(Fraction(0), Fraction(1), distrust="there are no samples")
    value = Fraction(members, n)
    return Known(value, value, n, share=True)


def accuracy(correct: int, unknown: int, n: int, near: str = "") -> Known:
    """Clean accuracy; ``unknown`` samples have outputs that are not finite, or votes that do not call them (``near``).

    Votes near a tie say nothing about the others: the interval holds whatever they are.
    """
    low, high = Fraction(correct, n), Fraction(correct + unknown, n)
    if unknown and near:
        return Known(low, high, n, note=f"{unknown} of {n} samples are undecided: {near}", share=True)
    error = f"{unknown} of {n} samples have a clean output that is not finite" if unknown else ""
    return Known(low, high, n, error=error, share=True)


def surviving(
    ledger: Ledger, attack: str, distrust: str = "", unknown: int = 0, why: str = "the clean output is not finite"
) -> Known:
    """Share of samples that survived so far (kinds "decide" and "returned"), with ``distrust`` not counting any.

    Undecided and erroneous samples may turn out either way, and so may the ``unknown`` ones, of whose clean output
    ``why`` says why it is neither right nor wrong: they were never attacked, and are no clean errors.
    """
    n = ledger.n
    survived, broken = len(ledger.survived), len(ledger.broken)
    high = Fraction(len(ledger.start) - broken + unknown, n)
    errors = [*ledger.errors.values(), *[why] * unknown]
    note = f"{len(errors)} of {n} samples are undecided: {errors[0]}" if errors else ""
    return Known(
        Fraction(0) if distrust else Fraction(survived, n),
        high,
        n,
        ledger.complete,
        distrust,
        note=note,
        attack=attack,
        measurement=ledger.key,
        share=True,
        value=Fraction(survived, n) if ledger.complete and not errors else None,
    )


def distance_quantile(
    ledger: Ledger, correct: Sequence[int], quantile: Fraction, attack: str, distrust: str = ""
) -> Known:
    """A quantile of the distances of the ``correct`` samples; +inf ranks last."""
    values = list(_distances(ledger, correct).values())
    problem = _distance_problem(ledger, correct, values) or distrust
    if not values:
        return _open(inf, ledger, attack, problem or "no sample is classified correctly")
    return _known(lower_quantile(values, quantile), inf, len(values), ledger, attack, problem)


def distance_failed(ledger: Ledger, correct: Sequence[int], attack: str, distrust: str = "") -> Known:
    """Share of the ``correct`` samples whose search found nothing; with ``distrust`` none of these counts as failed."""
    if not correct:
        return _open(1, ledger, attack, "no sample is classified correctly")
    values = list(_distances(ledger, correct).values())
    if len(values) < len(correct):
        return _open(1, ledger, attack, _missing(ledger, len(values), len(correct)))
    failed = sum(value == inf for value in values)
    known = _known(Fraction(failed, len(correct)), 1, len(correct), ledger, attack, "")
    # What was found is a witness whatever the attack was; what was not may be its fault.
    return replace(known, low=Fraction(0), distrust=distrust) if distrust else known


def surviving_at(
    ledger: Ledger, correct: Sequence[int], unknown: int, eps: Fraction, attack: str, distrust: str = ""
) -> Known:
    """Share of all samples that are correct and farther from the boundary than ``eps`` (a security curve's point).

    A distance is that of a witness, so what is nearer is broken however poor the search was. What is farther counts
    once all searches are done, of which few may have failed; and so do the ``unknown`` samples, whose clean output is
    not finite.
    """
    found = ledger.values
    nearer = {p: found[p] for p in correct if p in found and found[p] <= float(eps)}
    values = _distances(ledger, correct) | nearer
    survived = sum(value > float(eps) for value in values.values())
    missing = len(correct) - len(values) + unknown
    n = ledger.n
    high = Fraction(survived + missing, n)
    if not ledger.complete:  # no share yet: searches count together, so no first samples may decide
        return Known(Fraction(0), high, n, complete=False, attack=attack, measurement=ledger.key)
    problem = _distance_problem(ledger, correct, list(values.values())) or distrust
    return Known(
        Fraction(0) if problem else Fraction(survived, n),
        high,
        n,
        True,
        problem,
        note=f"{unknown} of {n} samples have a clean output that is not finite" if unknown else "",
        attack=attack,
        measurement=ledger.key,
        share=True,
        value=None if missing else Fraction(survived, n),
    )


def critical_strength(
    dense: Sequence[Known], pruned: Sequence[Known], sweep: Sequence[Fraction], tolerance: Fraction
) -> Known:
    """The smallest ε of ``sweep`` at which two security curves differ by more than ``tolerance``; +inf if none.

    They part somewhere above the last ε before it and, at the latest, at it: that is the interval.
    """
    may: Bound = inf
    must: Bound = inf
    value: Bound = inf
    for eps, first, second in reversed(list(zip(sweep, dense, pruned, strict=True))):
        low, high = first.low - second.high, first.high - second.low
        may = eps if max(-low, high) > tolerance else may
        must = eps if low > tolerance or high < -tolerance else must
        if first.value is not None and second.value is not None:
            gap = first.value - second.value
            value = eps if gap > tolerance or -gap > tolerance else value
    both = [*dense, *pruned]
    # The sweep says between which of its values they part, and nothing of what lies beyond its ends.
    agreeing = [eps for eps in sweep if eps < may]
    notes = [known.note for known in both if known.note]
    if must == inf:
        notes.append(f"they differ by more at none of the {len(sweep)} ε, of which the largest is {float(sweep[-1]):g}")
    if all(known.high == 0 for known in (dense[0], pruned[0])):
        agreeing, must = [], inf
        notes.append(f"both have lost everything at the smallest ε, {float(sweep[0]):g}")
    low = agreeing[-1] if agreeing else Fraction(0)
    if not notes and low != must:
        notes.append(f"the sweep has no ε between {float(low):g} and {float(must):g}")
    return Known(
        low,
        must,
        dense[0].n,
        all(known.complete for known in both),
        "; ".join(dict.fromkeys(known.distrust for known in both if known.distrust)),
        note="; ".join(dict.fromkeys(notes)),
        settle="an ε of the sweep at the threshold, or a longer sweep",
        attack=dense[0].attack,
        measurement=dense[0].measurement,
        value=None if any(known.value is None for known in both) else value,
    )


def mean_score(
    ledger: Ledger,
    correct: Sequence[int],
    options: Mapping[str, str],
    most: Fraction,
    attack: str,
    distrust: str = "",
) -> Known:
    """The mean score of the ``correct`` samples, or with the option "quantile" a quantile of them.

    ``most`` is the largest score there can be. The scores are estimates, which every verdict on them says.
    """
    values = [ledger.values[p] for p in correct if p in ledger.values]
    if len(values) < len(correct) or not values:
        missing = _missing(ledger, len(values), len(correct), "score") if correct else _NONE_CORRECT
        return _open(inf, ledger, attack, missing)
    full = sum(value >= float(most) for value in values)
    note = "a CLEVER score is an estimate: it bounds no distance and shows no robustness"
    note += f"; {full} of {len(values)} scores are the radius {float(most):.4g} itself" if full else ""
    if "quantile" in options:
        number: Fraction | float = lower_quantile(values, Fraction(options["quantile"]))
    else:
        number = inf if inf in values else sum(map(Fraction, values), Fraction(0)) / len(values)
    return _known(number, inf, len(values), ledger, attack, distrust, note)


def unknown_distance(ledger: Ledger, attack: str, problem: str) -> Known:
    """Distances of a group that is not known."""
    return _open(inf, ledger, attack, problem)


def separation(
    ledger: Ledger,
    changed: Sequence[int],
    kept: Sequence[int],
    names: tuple[str, str],
    attack: str,
    *,
    p_value: bool,
    distrust: str = "",
) -> Known:
    """AUC or Mann-Whitney p: absolute distances of ``changed`` below those of ``kept`` (Piras et al., Table 2)."""
    groups = [[abs(value) for value in _distances(ledger, group).values()] for group in (changed, kept)]
    problem = small_groups(changed, kept, names)
    problem = problem or _distance_problem(ledger, [*changed, *kept], [*groups[0], *groups[1]]) or distrust
    n = len(changed) + len(kept)
    if not groups[0] or not groups[1]:
        return _open(1, ledger, attack, problem)
    number = Fraction(mann_whitney_p(*groups)) if p_value else auc(*groups)
    smaller = min(len(changed), len(kept))
    sizes = ", ".join(f"{len(group)} in {name}" for name, group in zip(names, (changed, kept), strict=True))
    note = f"few samples: {sizes}" if smaller < SMALLEST_GROUP else ""
    known = _known(number, 1, n, ledger, attack, problem, note)
    return known if p_value else replace(known, smaller=smaller)


def small_groups(changed: Sequence[int], kept: Sequence[int], names: tuple[str, str]) -> str:
    """Why the two groups are too small for an AUC, or the empty string."""
    for name, group in zip(names, (changed, kept), strict=True):
        if len(group) < SMALL_GROUP:
            return f"{name} has {len(group)} samples; an AUC needs at least {SMALL_GROUP}"
    return ""


def enough_for_groups(changed: Sequence[int], kept: Sequence[int], names: tuple[str, str], n: int) -> str:
    """How many samples would fill two groups that are too small, at the rates of these ``n``."""
    sizes = dict(zip(names, (len(changed), len(kept)), strict=True))
    for name, size in sizes.items():
        if size == 0:
            return f"more samples; how many cannot be told, since {name} has none of these {n:,}"
    return f"about {max(-(-n * SMALL_GROUP // size) for size in sizes.values()):,} samples at the rates of these {n:,}"


def populations(dense: Sequence[bool], pruned: Sequence[bool]) -> Mapping[str, tuple[int, ...]]:
    """Positions by (dense correct, pruned correct): S11, S10, S01, S00 (Piras et al., section 2)."""
    groups: dict[str, list[int]] = {name: [] for name in ("S11", "S10", "S01", "S00")}
    for position, (d, p) in enumerate(zip(dense, pruned, strict=True)):
        groups[f"S{int(d)}{int(p)}"].append(position)
    return {name: tuple(group) for name, group in groups.items()}


def _distances(ledger: Ledger, wanted: Sequence[int]) -> dict[int, float]:
    """The distances of the samples ``wanted``; where one of several stages met an error, there may be a nearer one."""
    values, errors = ledger.values, ledger.errors
    return {p: values[p] for p in wanted if p in values and p not in errors}


def _distance_problem(ledger: Ledger, wanted: Sequence[int], values: Sequence[float]) -> str:
    if len(values) < len(wanted):
        return _missing(ledger, len(values), len(wanted))
    failed = sum(abs(value) == inf for value in values)
    if failed > FAILED_SHARE * len(values):
        return f"{failed} of {len(values)} minimum-norm searches found no adversarial input"
    return ""


def _missing(ledger: Ledger, found: int, wanted: int, what: str = "distance") -> str:
    reason = next(iter(ledger.errors.values()), "the attack returned none")
    return f"{wanted - found} of {wanted} samples have no {what}: {reason}"


def _known(
    value: Fraction | float, top: float, n: int, ledger: Ledger, attack: str, problem: str, note: str = ""
) -> Known:
    number = value if isinstance(value, Fraction) or value == inf else Fraction(value)
    low, high = (Fraction(0), top) if problem else (number, number)
    return Known(low, high, n, ledger.complete, problem, "", note, attack, ledger.key, value=number)


def _open(top: float, ledger: Ledger, attack: str, problem: str) -> Known:
    return Known(Fraction(0), top, 0, ledger.complete, problem, attack=attack, measurement=ledger.key)
