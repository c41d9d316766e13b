"""The attacks of four papers with the numbers that they print: the table or section of each, and what is ours.

A preset is a collection by name: ``presets.vora2023.pgd`` and ``presets.vora2023["pgd"]`` are plans, and iterating
gives the names. Where a paper leaves a number out the entry is a function of it:
``presets.piras2023.fmn(norm=..., steps=...)``. ``print(presets.vora2023)`` shows all entries with their sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from pytest_prunerob.errors import PlanError, unknown
from pytest_prunerob.plans.autoattack import apgd, autoattack
from pytest_prunerob.plans.brendel_bethge import brendel_bethge
from pytest_prunerob.plans.corruption import corruption, occlusion
from pytest_prunerob.plans.cw import cw
from pytest_prunerob.plans.deepfool import deepfool
from pytest_prunerob.plans.fmn import fmn
from pytest_prunerob.plans.gradient import bim, fgsm, pgd
from pytest_prunerob.plans.plan import Number, Plan, crafted_on
from pytest_prunerob.plans.universal import universal


@dataclass(frozen=True)
class Entry:
    """One attack of a paper: ``make(**needs)`` gives its plan.

    ``source`` is the table or section that its numbers are from and ``stated`` what is printed there; ``note`` says
    what is not stated and was chosen. ``needs`` are the parameters that the paper leaves out and nobody should guess.
    ``eps`` are the radii at which the paper reads off a minimum-norm attack, for ``security_curve``.
    """

    source: str
    stated: str
    make: Callable[..., Plan]
    note: str = ""
    needs: tuple[str, ...] = ()
    eps: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Unfinished:
    """An attack whose parameters ``entry.needs`` the paper does not state: a function of these."""

    name: str
    entry: Entry

    def __call__(self, **given: Any) -> Plan:
        """The plan with the parameters ``given``.

        Raises:
            PlanError: where one that is needed is not given, another one is, or its value is bad.
        """
        for parameter in given:
            if parameter not in self.entry.needs:
                raise PlanError(unknown("parameter", parameter, self.entry.needs))
        missing = [parameter for parameter in self.entry.needs if parameter not in given]
        if missing:
            raise PlanError(
                f"{self.name}(...) needs {' and '.join(missing)}, which the paper does not state: give your own"
            )
        return self.entry.make(**given)


@dataclass(frozen=True)
class Preset:
    """The attacks of the paper ``citation`` by name."""

    name: str
    citation: str
    entries: Mapping[str, Entry]

    def __getitem__(self, name: str) -> Any:
        """The plan called ``name``, or a function of what the paper does not state.

        Raises:
            PlanError: for a name that is none of this preset.
        """
        if name not in self.entries:
            raise PlanError(unknown(f"attack of presets.{self.name}", name, self.entries))
        entry = self.entries[name]
        return Unfinished(f"presets.{self.name}.{name}", entry) if entry.needs else entry.make()

    def __getattr__(self, name: str) -> Any:
        """As ``[name]``, with an ``AttributeError`` for an unknown name."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except PlanError as error:
            if name in self.entries:
                raise
            raise AttributeError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        """The names of the attacks."""
        return iter(self.entries)

    def __len__(self) -> int:
        """The number of attacks."""
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` is one of the attacks."""
        return name in self.entries

    @property
    def plans(self) -> dict[str, Plan]:
        """The plans of the attacks that the paper states in full, by name."""
        return {name: entry.make() for name, entry in self.entries.items() if not entry.needs}

    def __str__(self) -> str:
        """The paper, and a line for each attack: name, what is printed and where, what was chosen."""
        lines = [self.citation]
        for name, entry in self.entries.items():
            more = [entry.note] * bool(entry.note)
            more += [f"give {' and '.join(entry.needs)}"] * bool(entry.needs)
            lines.append(f"  {name}: {entry.stated} ({entry.source})" + "".join(f"; {part}" for part in more))
        return "\n".join(lines)


def __getattr__(name: str) -> Preset:
    raise AttributeError(unknown("preset", name, PRESETS))


def _predicted(make: Callable[..., Plan], **parameters: Any) -> Callable[..., Plan]:
    """The plan crafted on predicted labels, as ART does where it is given none."""
    return lambda: crafted_on("predicted", make(**parameters))


_ART = "crafted on predicted labels"
_VORA = {
    "cw": Entry(
        "Table 7",
        "CW: epsilon -, epsilon step 0.01, max iteration 10",
        _predicted(cw, norm="l2", steps=10, step_size="0.01", binary_search_steps=10, initial_const="0.01"),
        f"{_ART}; norm not stated: L2; ART's 10 searches from a constant of 0.01; foolbox's attack",
    ),
    "deepfool": Entry(
        "Table 7",
        "DF: epsilon 1e-6, epsilon step -, max iteration 5",
        _predicted(deepfool, norm="l2", steps=5, overshoot="1e-6"),
        f"{_ART}; its epsilon is ART's overshoot and no radius; 10 candidates as in ART; foolbox's attack",
    ),
    "fgsm": Entry(
        "Table 7",
        "FGSM: epsilon 0.2, epsilon step -, max iteration 100",
        _predicted(fgsm, norm="linf", eps="0.2"),
        f"{_ART}; Linf is ART's norm; FGSM has no iterations",
    ),
    "bim": Entry(
        "Table 7",
        "BiM: epsilon 1, epsilon step 0.1, max iteration 100",
        _predicted(bim, norm="linf", eps="1", steps=100, step_size="0.1"),
        f"{_ART}; the ball is the whole box",
    ),
    "pgd": Entry(
        "Table 7",
        "PGD: epsilon 0.3, epsilon step 0.1, max iteration 100",
        _predicted(pgd, norm="linf", eps="0.3", steps=100, step_size="0.1", random_start=False),
        f"{_ART}; Linf and no random start are ART's",
    ),
    "apgd": Entry(
        "Table 7",
        "APGD: epsilon 0.3, epsilon step 0.1, max iteration 100",
        _predicted(apgd, norm="linf", eps="0.3", steps=100, restarts=5),
        f"{_ART}; Linf, 5 restarts and the cross-entropy are ART's; pyautoattack's attack, which begins with "
        "a step of 2ε whatever is given",
    ),
    "universal": Entry(
        "Table 7",
        "UP: epsilon 10, epsilon step -, max iteration 1",
        _predicted(universal, norm="linf", eps="10", steps=1),
        f"{_ART}; Linf, DeepFool and a δ of 0.2 are ART's; the ball is the whole box",
    ),
}
vora2023 = Preset(
    "vora2023",
    "Vora et al. 2023, Benchmarking Adversarial Robustness of Compressed Deep Learning Models (attacks by ART)",
    _VORA,
)

_STRENGTHS = {"pgd_0125": ".125/255", "pgd_025": ".25/255", "pgd_05": ".5/255", "pgd_1": "1/255"}


def _merkle_pgd(printed: str) -> Entry:
    part, _, whole = printed.partition("/")
    eps = Fraction(part) / int(whole)
    return Entry(
        "Table 2 and Appendix A",
        f"PGD Linf: epsilon {printed}, relative step size .1/3, 40 steps, random start",
        partial(pgd, norm="linf", eps=eps, steps=40, step_size=eps * Fraction("0.1") / 3),
    )


_MERKLE = {
    "brendel_bethge": Entry(
        "Table 2 and Appendix A",
        "B&B L0: 30 binary search steps, 500 steps, learning rate 1e7, decayed 30 times by .5",
        partial(brendel_bethge, norm="l0", steps=500, binary_search_steps=30, step_size="1e7", decays=30),
        "it starts from the samples that are evaluated, the paper's from its test set",
        eps=(20, 70, 120, 170),
    ),
    "cw": Entry(
        "Table 2 and Appendix A",
        "C&W L2: 9 binary search steps of 5000 steps, step size 1, initial cost 100, confidence 0",
        partial(cw, norm="l2", steps=5000, binary_search_steps=9, step_size="1", initial_const="100"),
        eps=(10, 15, 20, 25),
    ),
    **{name: _merkle_pgd(printed) for name, printed in _STRENGTHS.items()},
}
merkle2022 = Preset(
    "merkle2022",
    "Merkle, Samsinger & Schöttle 2022, Pruning in the Face of Adversaries (ResNet18 on Imagenette)",
    _MERKLE,
)

# The fifteen of the benchmark that the paper refers to (Hendrycks & Dietterich 2019, Section 4.1).
_SEMANTIC = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)


def _semantic(kind: str) -> Entry:
    return Entry(
        "Section 4",
        "semantic-preserving: highest severity, δ = 4",
        partial(corruption, kind, 5),
        "the fifth of five severities, counted from 0; which kinds is not stated: the fifteen of the benchmark",
        needs=("textures",) if kind == "frost" else (),
    )


_JORDAO = {
    "fgsm": Entry("Section 4", "FGSM: δ = 8/255", partial(fgsm, norm="linf", eps="8/255")),
    "occlusion": Entry("Section 4", "occlusion: highest severity, δ = 16", partial(occlusion, 16)),
    **{kind: _semantic(kind) for kind in _SEMANTIC},
}
jordao2021 = Preset(
    "jordao2021",
    "Jordao & Pedrini 2021, On the Effect of Pruning on Adversarial Robustness",
    _JORDAO,
)

_PIRAS = {
    "autoattack": Entry(
        "Section 3.1.1, used in Table 1",
        "AutoAttack plus: 5 restarts of APGD-CE, APGD-DLR and FAB, Square with 5000 queries, APGD-T and FAB-T with 9",
        partial(autoattack, "plus"),
        "norm and ε are not stated",
        needs=("norm", "eps"),
    ),
    "fmn": Entry(
        "Section 3.2, used in Table 2",
        "FMN on the dense model",
        fmn,
        "norm and number of steps are not stated",
        needs=("norm", "steps"),
    ),
}
piras2023 = Preset(
    "piras2023",
    "Piras et al. 2023, Samples on Thin Ice: Re-evaluating Adversarial Pruning of Neural Networks",
    _PIRAS,
)

PRESETS = {preset.name: preset for preset in (vora2023, merkle2022, jordao2021, piras2023)}
