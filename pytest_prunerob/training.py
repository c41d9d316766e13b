"""Training and fine-tuning of the reference networks: standard and PGD adversarial training."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.method import AfterStep, Penalty
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import InputError, unknown
from pytest_prunerob.threads import SMALL_TRAINING_FLOPS, suited_to


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides network, data and seed; plain values, so that it can enter a key.

    ``eps`` and ``step_size`` are rationals in strings, ``None`` for training on clean inputs; ``steps`` is the number
    of PGD iterations. ``lr`` is the peak of a schedule that rises over ``warmup`` of the training and falls to zero.
    """

    name: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    optimizer: Literal["adamw"]
    schedule: Literal["cosine"]
    eps: str | None
    steps: int
    step_size: str | None


# Adam and its rate from Merkle, Samsinger & Schöttle 2021 (Sec. 3.6); 7 steps of ε/4 from Madry et al. 2018.
TRAININGS: dict[str, Recipe] = {
    "standard": Recipe("standard", 30, 128, 1e-3, 1e-4, 0.2, "adamw", "cosine", eps=None, steps=0, step_size=None),
    "pgd": Recipe("pgd", 30, 128, 1e-3, 1e-4, 0.2, "adamw", "cosine", eps="8/255", steps=7, step_size="2/255"),
}
# On 898 digits, few strong steps and many epochs at a high rate give the most robust network per second of training.
TUNED: dict[str, dict[str, Recipe]] = {
    "digits": {
        "standard": replace(TRAININGS["standard"], epochs=25, batch_size=32, lr=6e-3),
        "pgd": replace(TRAININGS["pgd"], epochs=45, batch_size=64, lr=8e-3, eps="0.2", steps=2, step_size="0.15"),
    }
}


def recipe(name: str, *, dataset: str) -> Recipe:
    """The recipe of training ``name`` ("standard" or "pgd") on ``dataset``, with the ε of that dataset.

    Raises:
        InputError: for an unknown training.
    """
    if name not in TRAININGS:
        raise InputError(unknown("training", name, TRAININGS))
    return TUNED.get(dataset, TRAININGS)[name]


def fine_tuning(recipe: Recipe) -> Recipe:
    """The recipe that follows each pruning step after training by ``recipe``: a quarter as long, half the rate."""
    return replace(recipe, name=f"{recipe.name}-fine-tuning", epochs=max(1, recipe.epochs // 4), lr=recipe.lr / 2)


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    masks: Masks | None = None,
    epochs: int | None = None,
    until: int | None = None,
    penalty: Penalty | None = None,
    after_step: AfterStep | None = None,
    progress: bool,
    label: str = "",
) -> None:
    """Train ``model`` on ``data`` in place and leave it in eval mode on the device it came from.

    What ``masks`` prune is zero after every optimizer step. ``epochs`` replaces the recipe's; training stops when
    ``until`` epochs of its schedule are done. ``penalty(model)`` is added to the loss of every batch, and
    ``after_step(model, done)`` is called after every optimizer step with the share of the training that is done.
    ``progress`` shows a bar named ``label`` on stderr. On the CPU the result follows from
    ``seed``; the global random state is left alone.

    Raises:
        InputError: if the loss stops being finite.
        CompressionError: if the masks do not fit the network.
    """
    home = next(model.parameters()).device
    count = recipe.epochs if epochs is None else epochs
    # The draws come from the CPU so that a seed means the same on every device.
    generator = torch.Generator().manual_seed(seed)
    model.eval().to(device)
    threads = suited_to(model, data.x[:1].to(device), SMALL_TRAINING_FLOPS)
    with _seeded(seed, device), threads as choose_threads, _bar(count, progress, label or recipe.name) as advance:
        if masks is not None:
            apply(model, masks)
        choose_threads(recipe.batch_size)
        x, y = data.x.to(device), data.y.to(device)
        batches = math.ceil(len(data) / recipe.batch_size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        for epoch in range(count if until is None else min(until, count)):
            order = torch.randperm(len(data), generator=generator).to(device)
            for number, chosen in enumerate(torch.split(order, recipe.batch_size)):
                done = (epoch * batches + number + 0.5) / (count * batches)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * _schedule(done, recipe.warmup)
                inputs = _perturbed(model, x[chosen], y[chosen], recipe, generator)
                _step(model, inputs, y[chosen], optimizer, masks, penalty)
                if after_step is not None:
                    after_step(model, (epoch * batches + number + 1) / (count * batches))
            advance(1)
        optimizer.zero_grad(set_to_none=True)
        model.eval().to(home)


def fresh(model: nn.Module, *, seed: int) -> None:
    """Give every layer of ``model`` new random weights in place; they follow from ``seed``.

    Raises:
        InputError: for a module with own parameters and no ``reset_parameters``.
    """
    with _seeded(seed, "cpu"):
        for name, module in model.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif next(module.parameters(recurse=False), None) is not None:
                raise InputError(
                    f"{name or 'the network'} ({type(module).__name__}) has no reset_parameters to begin anew"
                )


def _step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    masks: Masks | None,
    penalty: Penalty | None,
) -> None:
    """One optimizer step in train mode; pruned entries get no gradient and are zero afterwards."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    loss = functional.cross_entropy(model(x), y)
    if penalty is not None:
        loss = loss + penalty(model)
    if not bool(torch.isfinite(loss)):
        raise InputError(f"training stopped: the loss is {loss.item()}; a lower learning rate may help")
    torch.autograd.backward(loss)
    if masks is not None:
        for parameter, mask in masks.on(model):
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0.0)
    optimizer.step()
    if masks is not None:
        apply(model, masks)


def _perturbed(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Inputs that raise the loss within the Linf ball around ``x`` and the box [0, 1] (Madry et al. 2018, Sec. 2.1).

    PGD from a random start, with the model in eval mode so that crafting moves no batch statistics.
    """
    if recipe.eps is None or recipe.step_size is None:
        return x
    eps, size = float(Fraction(recipe.eps)), float(Fraction(recipe.step_size))
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    start = torch.rand(x.shape, generator=generator).to(x.device)
    adversarial = low + start * (high - low)
    model.eval()
    for _ in range(recipe.steps):
        adversarial.requires_grad_()
        loss = functional.cross_entropy(model(adversarial), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        # Clipped outside the graph: gradients through a clamp vanish at the border of the box.
        adversarial = torch.clamp(adversarial.detach() + size * gradient.sign(), low, high)
    return adversarial


def _schedule(done: float, warmup: float) -> float:
    """The share of the peak learning rate after ``done`` of the training: up linearly, down along a cosine."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


@contextlib.contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed the generators that layers such as dropout draw from, and put them back afterwards."""
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def _bar(total: int, progress: bool, label: str) -> Iterator[Callable[[int], object]]:
    """A progress bar over epochs on stderr; without ``progress`` nothing is printed."""
    if not progress:
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit="epoch", leave=False) as bar:
        yield bar.update
