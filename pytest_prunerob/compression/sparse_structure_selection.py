"""Sparse structure selection: factors on filters or residual blocks are trained to zero, and those structures go."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pytest_prunerob.compression.choice import weakest
from pytest_prunerob.compression.iterative import settle
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.residual_blocks import Block, blocks, masks_without, removed_blocks
from pytest_prunerob.compression.units import following_norms, masks_of, removed, weights_of
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

Structures = Literal["filters", "layers"]

# Weight γ of the L1 norm of the factors, momentum, and the learning rates with the share of the training until which
# they hold: Huang & Wang 2018, Sec. 4 (their ResNet on ImageNet), and github.com/TuSimple/sparse-structure-selection.
GAMMA = 0.01
MOMENTUM = 0.9
RATES = ((0.3, 0.1), (0.6, 0.01), (0.9, 0.001), (math.inf, 0.0001))


class Scaled(nn.Module):
    """The parametrisation λ·W, where ``factor`` is one λ for all or one for each filter (entry of dimension 0)."""

    def __init__(self, factor: nn.Parameter) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, tensor: Tensor) -> Tensor:
        """``tensor`` times its factor."""
        return tensor * self.factor.view(-1, *[1] * (tensor.dim() - 1))


def soft_threshold(values: Tensor, limit: float) -> Tensor:
    """Nearer to zero by ``limit``, and zero within it: the proximal operator of the L1 norm (Huang & Wang, Eq. 7)."""
    return values.sign() * (values.abs() - limit).clamp(min=0)


@dataclass
class Selection:
    """Accelerated proximal gradient steps on ``factors`` (structure's name → λ) after each optimizer step.

    No more than ``count`` factors become zero, and with ``spare`` the largest of each layer does not: the next ones
    keep their value.
    """

    factors: Mapping[str, nn.Parameter]
    count: int
    spare: bool
    values: dict[str, Tensor] = field(default_factory=dict)
    momentum: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, model: nn.Module, done: float) -> None:
        """One step (Eqs. 10 to 12) by the gradients of the batch, in place of what the optimizer made of the λ."""
        if any(factor.grad is not None and not bool(factor.grad.isfinite().all()) for factor in self.factors.values()):
            with torch.no_grad():  # a step that mixed precision skips
                for name, factor in self.factors.items():
                    factor.copy_(self.values.get(name, torch.ones_like(factor)))
            return
        rate = next(rate for until, rate in RATES if done <= until)
        with torch.no_grad():
            for name, factor in self.factors.items():
                old = self.values.get(name, torch.ones_like(factor)).to(factor)
                before = self.momentum.get(name, torch.zeros_like(factor)).to(factor)
                slope = torch.zeros_like(factor) if factor.grad is None else factor.grad
                near = soft_threshold(old - rate * slope, rate * GAMMA)
                self.momentum[name] = near - old + MOMENTUM * before
                factor.copy_((near + MOMENTUM * self.momentum[name]).clamp(min=0))
                self.values[name] = old
            self._keep_to_the_count()
            self.values = {name: factor.detach().clone() for name, factor in self.factors.items()}

    def _keep_to_the_count(self) -> None:
        old = {name: self.values[name].cpu() for name in self.factors}
        gone = {name: factor.detach().cpu() == 0 for name, factor in self.factors.items()}
        if self.spare:
            for name, values in old.items():
                gone[name][values.argmax()] = False
        flat, values = torch.cat(list(gone.values())), torch.cat(list(old.values()))
        if int(flat.sum()) > self.count:
            order = values.masked_fill(~flat, math.inf).argsort(stable=True)
            flat[order[self.count :]] = False
        parts = torch.split(flat, [len(factor) for factor in self.factors.values()])
        for (name, factor), zero in zip(self.factors.items(), parts, strict=True):
            back = (factor == 0) & ~zero.to(factor.device)
            factor[back] = self.values[name][back]


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    structures: Structures,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Train once more with a factor λ on each structure, remove the ``ceil(amount · S)`` with the smallest, fine-tune.

    Filters have their λ behind the batch normalisation that reads them (where there is none, behind the convolution),
    residual blocks with an identity shortcut at the end of their branch. All λ begin at 1 and are not negative; they
    are moved by stochastic accelerated proximal gradients with soft thresholds instead of the optimizer of the recipe.
    λ is multiplied into weights and biases in the end, so that the network is as it was. Huang & Wang remove what is
    zero at the end for a given γ; here γ is theirs, no more than ``amount`` becomes zero, and where less does the
    smallest λ go as well. They train from the beginning; here that training goes on from the dense model.

    Raises:
        CompressionError: if the network has no such structures or none would be left.
    """
    assert trainer is not None  # METHODS.trains
    name = f"sss-{structures}"
    chosen = copy.deepcopy(model)
    found = _blocks(chosen, name) if structures == "layers" else ()
    scaled = _last_layers(chosen, found) if structures == "layers" else _filters(chosen, name)
    factors = {one: nn.Parameter(torch.ones(size)) for one, (_, size) in scaled.items()}
    layers = [(layer, factors[one]) for one, (names, _) in scaled.items() for layer in names]
    for layer, factor in layers:
        _scale(chosen.get_submodule(layer), factor)
    spare = structures == "filters"
    count = math.ceil(amount * sum(map(len, factors.values())))
    whole = {one: torch.ones(len(factor), dtype=torch.bool) for one, factor in factors.items()}

    def select() -> dict[str, Tensor]:
        scores = {one: factor.detach().cpu() for one, factor in factors.items()}
        return weakest(scores, amount, scope="global", kept=whole, method=name, unit=structures, spare=spare)

    select()  # says what is impossible before the training
    trainer.train(chosen, Masks({}), after_step=Selection(factors, count, spare))
    kept = select()
    for layer, _ in layers:
        _fold(chosen.get_submodule(layer))
    gone = [block for block in found if not bool(kept[block.name].all())]
    masks = masks_without(chosen, gone) if structures == "layers" else masks_of(chosen, "filters", kept)
    settle(chosen, masks, trainer)
    if structures == "layers":
        measured = {block: (int(zero), 1) for block, zero in removed_blocks(chosen).items()}
    else:
        measured = removed(chosen, "filters", kept)
    return CompressedModel(chosen, masks, structures, amount, measured, (amount,))


def _blocks(model: nn.Module, method: str) -> Sequence[Block]:
    found = blocks(model)
    if not found:
        raise CompressionError(
            f"{method} removes residual blocks with an identity shortcut and {type(model).__name__} has none; allowed "
            "are residual networks, such as resnet18"
        )
    return found


def _filters(model: nn.Module, method: str) -> dict[str, tuple[list[str], int]]:
    """By parameter name of each convolution: the layers whose output its factors scale, and how many they are."""
    norms = following_norms(model)
    weights = weights_of(model, "filters", method)
    return {
        name: (norms.get(name.removesuffix(".weight"), [name.removesuffix(".weight")]), len(weight))
        for name, weight in weights.items()
    }


def _last_layers(model: nn.Module, found: Sequence[Block]) -> dict[str, tuple[list[str], int]]:
    """By name of each block: the last layer of its branch without which the branch is zero, and one factor for it."""
    trial = copy.deepcopy(model)
    last: dict[str, str] = {}
    for block in found:
        for layer in reversed(block.modules):
            own = [name for name in block.parameters if name.rpartition(".")[0] == layer]
            if not own:
                continue
            state = {name: trial.get_parameter(name).detach().clone() for name in own}
            _set(trial, {name: torch.zeros_like(tensor) for name, tensor in state.items()})
            silent = removed_blocks(trial)[block.name]
            _set(trial, state)
            if silent:
                last[block.name] = layer
                break
        else:
            raise CompressionError(f"the residual block {block.name!r} has no layer whose output is that of its branch")
    return {name: ([layer], 1) for name, layer in last.items()}


def _set(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            model.get_parameter(name).copy_(tensor)


def _scale(layer: nn.Module, factor: nn.Parameter) -> None:
    for name, _ in list(layer.named_parameters(recurse=False)):
        parametrize.register_parametrization(layer, name, Scaled(factor))


def _fold(layer: nn.Module) -> None:
    for name in list(layer.parametrizations):  # type: ignore[arg-type]
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


SOURCE = "Huang & Wang 2018, arXiv:1707.01213 (SSS)"
METHODS = (
    Method("sss-filters", "filters", "global", partial(compress, structures="filters"), SOURCE, trains=True),
    Method("sss-layers", "layers", "global", partial(compress, structures="layers"), SOURCE, trains=True),
)
