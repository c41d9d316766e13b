"""Could an attack have broken this subject at all? Indicators on a few probe samples (design 4.3).

Survival proves nothing where the attack could not work, so a finding blocks every verdict that leans on survival:
``error`` for good, ``inconclusive`` until the cause is mended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from scipy.special import bdtr, bdtrc
from torch import Tensor, nn

from pytest_prunerob.adequacy.check import Check
from pytest_prunerob.adequacy.discrete import MISMATCH, discrete, gradient_mismatch
from pytest_prunerob.adequacy.dynamic import data_dependent, optimises, stateful
from pytest_prunerob.adequacy.probe import Finding, Level, Probe, differs, drawn_alike, forward, untouched
from pytest_prunerob.errors import DatasetError, ModelError
from pytest_prunerob.subjects import as_logits, is_exported

__all__ = [
    "INDICATORS",
    "MISMATCH",
    "PROBES",
    "Finding",
    "Level",
    "audit",
    "discrete",
    "gradient_mismatch",
    "off_declared",
    "outcomes",
]

PROBES = 64
# Samples that are also forwarded one by one; same-size batches show coupling for all of them. Ours.
ALONE = 8
# Largest change of logits, relative to their spread, that rounding explains: with the same batch size the same
# kernels run, another size may choose others. Ours: healthy float32 networks stay below 1e-5, BatchNorm in train mode
# is near 1.
SAME_SIZE = 1e-4
OTHER_SIZE = 1e-3
# The same in units of the coarsest precision in use, for half-precision and TF32 networks. Ours.
SAME_SIZE_ULPS = 8
OTHER_SIZE_ULPS = 32
# Relative step of TF32, which CUDA may use for float32: 10 bits of mantissa.
TF32_EPS = 2.0**-10
# A second forward may differ by this many units of rounding of the largest logit. Ours: leaves room for atomics.
REPEAT_ULPS = 16
# Forwards that must repeat the first one, and as many more where one does not, to see how far the noise goes. Ours:
# a single draw for the whole batch is now and then the same twice.
REPEATS = 5
NOISY_REPEATS = 8
# Room that noise gets where the logits of a batch are compared with others. Ours.
NOISE_ROOM = 10
# Row sums within this share of their mean count as constant: 100 × softmax in bfloat16 stays within 0.4 %. Ours.
ROW_SUM = 1e-2
# Rounding below 0 and above 1 that a probability may show. Ours.
UNIT_SLACK = 1e-3
# Layers that do nothing in train mode but draw.
DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)
# What measures a model that draws (see ``plans.Plan.randomised``).
RAND = 'autoattack("rand", ...)'
# Chance of so few or so many correct samples if the declared accuracy were true. Ours: once in a million audits.
ACCURACY_LEVEL = 1e-6


def audit(module: nn.Module, x: Tensor, *, classes: int, exported: bool) -> tuple[Finding, ...]:
    """Findings on the first 64 of the probes ``x: (N, C, H, W) in [0, 1]``, worst cases first.

    Args:
        module: the subject, on the device of ``x``; its state and the global random state are left as they were.
        x: clean inputs.
        classes: classes of the dataset.
        exported: whether exported programs are in the subject, whose train flags mean nothing.

    Raises:
        DatasetError: no probes.
    """
    if len(x) == 0:
        raise DatasetError("0 probe inputs: give at least one")
    x = x[:PROBES].detach()
    mode = _train_mode(module, exported)
    before = (mode,) if mode else ()
    try:
        with untouched(module) as state:
            logits = forward(module, x)
            noise = _noise(module, x, logits)
            trains = mode is not None and not mode.randomness
            probe = Probe(module, x, classes, logits, noise, state, trains)
            found = [indicator(probe) for indicator in INDICATORS.values()]
    except torch.OutOfMemoryError:
        if len(x) == 1:
            raise
        return audit(module, x[: len(x) // 2], classes=classes, exported=exported)
    except Exception as error:
        return (*before, Finding("forward", "error", f"the model raises on clean inputs: {_text(error)}"))
    return (*before, *(finding for finding in found if finding is not None))


def off_declared(correct: int, n: int, declared: tuple[Fraction, Fraction]) -> Finding | None:
    """Exact binomial test of a declared clean accuracy, known up to its printed digits, on all ``n`` samples.

    Too many correct ones are as bad: the model or the data are not those that the number is about.
    """
    low, high = (float(end) for end in declared)
    few, many = float(bdtr(correct, n, low)), float(bdtrc(correct - 1, n, high)) if correct else 1.0
    if min(few, many) >= ACCURACY_LEVEL:
        return None
    why = "check the normalisation (missing, double, 0-255), the class order and the weights"
    if many < few:
        why = "it is about another model or other samples"
    return Finding(
        "clean-accuracy",
        "error",
        f"{correct} of {n} clean samples are classified correctly ({correct / n:.1%}), {(low + high) / 2:.1%} accuracy "
        f"was declared: {why}",
    )


def _noise(module: nn.Module, x: Tensor, logits: Tensor) -> float:
    """Largest difference between ``logits`` and further forwards of ``x``."""

    def worst(times: int) -> float:
        return float(torch.stack([(forward(module, x) - logits).abs().max() for _ in range(times)]).max())

    noise = worst(REPEATS)
    if noise <= _rounding(logits) or not math.isfinite(noise):
        return noise
    return max(noise, worst(NOISY_REPEATS), key=lambda n: math.inf if math.isnan(n) else n)


def _rounding(logits: Tensor) -> float:
    return REPEAT_ULPS * torch.finfo(logits.dtype).eps * float(logits.abs().max())


def _train_mode(module: nn.Module, exported: bool) -> Finding | None:
    graphs = [part for part in module.modules() if exported and is_exported(part)]
    skipped = {id(part) for graph in graphs for part in graph.modules()}
    on = [name or "the model" for name, part in module.named_modules() if part.training and id(part) not in skipped]
    if not on:
        return None
    names = ", ".join(on[:3]) + (f" and {len(on) - 3} more" if len(on) > 3 else "")
    message = f"in train mode: {names}; call .eval() on the model where it is made"
    parts = dict(module.named_modules())
    if not all(isinstance(parts.get(name), DRAWING) for name in on):
        return Finding("train-mode", "error", message)
    message = f"{message}, or claim under {RAND} if its dropout is to stay on"
    return Finding("train-mode", "error", message, randomness=True)


def _non_finite(probe: Probe) -> Finding | None:
    bad = int((~probe.logits.isfinite()).any(dim=1).sum())
    if not bad:
        return None
    return Finding(
        "non-finite",
        "error",
        f"NaN or infinite logits on {bad} of {len(probe.x)} clean probes: check the weights and the input scaling",
    )


def _class_count(probe: Probe) -> Finding | None:
    k = probe.logits.shape[1]
    if k == probe.classes:
        return None
    return Finding(
        "class-count",
        "error",
        f"the model has {k} logits, the dataset {probe.classes} classes: give the model that belongs to the dataset",
    )


def _batch_coupling(probe: Probe) -> Finding | None:
    """Each probe beside other neighbours, in another place, and alone must get the logits it got first.

    Beside other neighbours a model that draws is given the same draws again, so that noise hides nothing.
    """
    if not probe.finite or not math.isfinite(probe.noise):
        return None
    x, base = probe.x, probe.logits
    eps = _precision(probe)
    spread = float((base - base.mean(dim=1, keepdim=True)).abs().max())
    size = float(base.abs().max())
    noise = NOISE_ROOM * probe.noise
    alike = not _repeats(probe) and _follows_seed(probe)

    def limit(share: float, ulps: int, room: float = noise) -> float:
        return max(share, ulps * eps) * spread + ulps * torch.finfo(base.dtype).eps * size + room

    beside = limit(SAME_SIZE, SAME_SIZE_ULPS, 0.0 if alike else noise)
    look = drawn_alike if alike else forward
    first = drawn_alike(probe.module, x) if alike else base
    same = limit(SAME_SIZE, SAME_SIZE_ULPS)
    other = limit(OTHER_SIZE, OTHER_SIZE_ULPS)
    rows = torch.arange(len(x), device=x.device)
    for parity in (0, 1):
        kept = rows % 2 == parity
        mixed = torch.where(kept.view(-1, *[1] * (x.ndim - 1)), x, 1 - x.roll(1, 0))
        if bool(kept.any()) and differs(look(probe.module, mixed)[kept], first[kept], beside):
            return _coupled("other neighbours in the batch")
    if differs(forward(probe.module, x.flip(0)).flip(0), base, same):
        return _coupled("another order of the batch")
    for i in range(min(ALONE, len(x))):
        try:
            alone = forward(probe.module, x[i : i + 1])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return Finding("batch-coupling", "error", f"the model fails on a single sample: {_text(error)}")
        if differs(alone, base[i : i + 1], other):
            return _coupled("a batch of one")
    return None


def _coupled(change: str) -> Finding:
    return Finding(
        "batch-coupling",
        "error",
        f"a sample's logits change with {change}: remove what mixes samples (BatchNorm on batch statistics, "
        "per-batch quantisation or normalisation)",
    )


def _gradient(probe: Probe) -> Finding | None:
    """A gradient of the logits with respect to the input must exist, whatever its size."""
    x = probe.x.clone().requires_grad_(True)
    gradient: Tensor | None = None
    try:
        with torch.enable_grad():
            logits = as_logits(probe.module(x), samples=len(x))
            if logits.requires_grad:
                # Unequal weights: the plain sum of probabilities has no gradient.
                weights = torch.linspace(1, 2, logits.shape[1], device=logits.device, dtype=logits.dtype)
                (gradient,) = torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Finding("gradient", "error", f"the model raises when the input asks for a gradient: {_text(error)}")
    if gradient is None:
        return Finding(
            "gradient",
            "error",
            "the logits have no gradient with respect to the input: remove .detach(), torch.no_grad() or the detour "
            "through numpy from the forward",
        )
    bad = int((~gradient.flatten(1).isfinite()).any(dim=1).sum())
    if bad and probe.finite:
        return Finding(
            "gradient",
            "inconclusive",
            f"NaN or infinite input gradients on {bad} of {len(x)} clean probes: gradient attacks stop there",
        )
    return None


def _repeatable(probe: Probe) -> Finding | None:
    if not probe.finite:
        return None
    if _repeats(probe):
        return None
    seen = f"two forwards of the same inputs differ by up to {probe.noise:.2g}"
    if _follows_seed(probe):
        what = f"{seen}: switch the randomness off, or claim robust_accuracy under {RAND}, which judges by votes"
        return Finding("repeatable", "error", what, randomness=True)
    what = f"{seen}, and no seed repeats them: draw from the global generator of torch, NumPy or Python"
    return Finding("repeatable", "error", f"{what}, and claim under {RAND}")


def _repeats(probe: Probe) -> bool:
    return probe.noise <= _rounding(probe.logits)


def _follows_seed(probe: Probe) -> bool:
    """Whether forwards repeat once what they draw from is seeded."""
    again = [drawn_alike(probe.module, probe.x) for _ in range(2)]
    return not differs(again[0], again[1], _rounding(probe.logits))


def _probabilities(probe: Probe) -> Finding | None:
    """Outputs all ≥ 0 and (all ≤ 1 or of constant row sum): softmax, sigmoid and scaled copies of them.

    Losses on such outputs saturate, so that attacks lose their gradients (Carlini & Wagner 2017; Croce & Hein 2020).
    Log-probabilities are negative and harmless.
    """
    logits = probe.logits.double()
    if not probe.finite or float(logits.min()) < -UNIT_SLACK:
        return None
    sums = logits.sum(dim=1)
    constant = len(sums) > 1 and bool(((sums - sums.mean()).abs() <= ROW_SUM * sums.mean()).all())
    if float(logits.max()) > 1 + UNIT_SLACK and not constant:
        return None
    seen = f"all in [{float(logits.min()):.3g}, {float(logits.max()):.3g}]" + ", of constant sum" * constant
    return Finding(
        "probabilities",
        "inconclusive",
        f"the outputs look like probabilities ({seen}): return the logits before softmax or sigmoid",
    )


Indicator = Callable[[Probe], Finding | None]
#: Every indicator that needs forwards; the train mode is looked up before the first one.
INDICATORS: dict[str, Indicator] = {
    "non-finite": _non_finite,
    "class-count": _class_count,
    "batch-coupling": _batch_coupling,
    "gradient": _gradient,
    "repeatable": _repeatable,
    "probabilities": _probabilities,
    "optimisation-at-inference": optimises,
    "data-dependent": data_dependent,
    "stateful": stateful,  # the last one: it looks at what the forwards of all the others left behind
}


def outcomes(findings: Sequence[Finding], *, declared: bool) -> tuple[Check, ...]:
    """Every indicator of a subject with its outcome; ``declared``: whether a clean accuracy was stated for it."""
    failed = {finding.indicator: finding for finding in findings}
    names = ["train-mode", "forward", *INDICATORS, "clean-accuracy"]
    checks = []
    for name in dict.fromkeys([*names, *failed]):
        if name in failed:
            checks.append(Check(name, "failed", failed[name].message, level=failed[name].level))
        elif name == "clean-accuracy" and not declared:
            checks.append(Check(name, "not applicable", "no accuracy was stated: Model(..., accuracy=...)"))
        elif "forward" in failed and name in INDICATORS:
            checks.append(Check(name, "not run", "the model raises on clean inputs"))
        else:
            checks.append(Check(name, "passed", ""))
    return tuple(checks)


def _precision(probe: Probe) -> float:
    """Relative step of the coarsest floating type that the forward goes through."""
    dtypes = {t.dtype for t in (probe.logits, *probe.module.parameters()) if t.is_floating_point()}
    tf32 = probe.x.is_cuda and torch.float32 in dtypes
    return max([float(torch.finfo(dtype).eps) for dtype in dtypes] + [TF32_EPS] * tf32)


def _text(error: Exception) -> str:
    line = (str(error).strip() or "no message").splitlines()[0]
    return line if isinstance(error, ModelError) else f"{type(error).__name__}: {line}"
