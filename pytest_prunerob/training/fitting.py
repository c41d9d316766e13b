"""Training a network by a recipe, from its start or from a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.compression.method import AfterStep, Penalty
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import InputError
from pytest_prunerob.threads import SMALL_TRAINING_FLOPS, suited_to
from pytest_prunerob.training.adversaries import crafted, nudged
from pytest_prunerob.training.augmentation import augmenting
from pytest_prunerob.training.checkpoints import Book, Keep, State, adopt, identity, restore
from pytest_prunerob.training.recipes import Recipe
from pytest_prunerob.training.schedules import optimizer_of, rate

# Samples in one forward when the validation loss is measured (ours).
VALIDATION_CHUNK = 512


@dataclass(frozen=True, eq=False)
class _Task:
    """One call of ``fit``: what is trained, on what, and how."""

    model: nn.Module
    recipe: Recipe
    classes: int
    masks: Masks | None
    penalty: Penalty | None
    after_step: AfterStep | None
    epochs: int


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
    keep: Keep | None = None,
) -> None:
    """Train ``model`` on ``data`` in place and leave it in eval mode on the device it came from.

    What ``masks`` prune is zero after every optimizer step. ``epochs`` replaces the recipe's; training stops when
    ``until`` epochs of its schedule are done. ``penalty(model)``, which follows from the model alone, is added to the
    loss of every batch, and ``after_step(model, done)`` is called after every optimizer step with the share of the
    training that is done. ``progress`` shows a bar named ``label`` on stderr. On the CPU the result follows from
    ``seed``; the global random state is left alone.

    Where ``keep`` holds a checkpoint of this very training, it is continued; one that was finished is not repeated.
    With ``after_step`` nothing is kept: such a function may remember what it has seen, so that the training has to be
    redone from its beginning.

    Raises:
        InputError: if the loss stops being finite, or there are too few samples to hold some out.
        CompressionError: if the masks do not fit the network.
    """
    home = next(model.parameters()).device
    count = recipe.epochs if epochs is None else epochs
    last = count if until is None else min(until, count)
    task = _Task(model, recipe, data.classes, masks, penalty, after_step, count)
    book = None
    if keep is not None and after_step is None:
        start = identity(model, data, recipe, seed=seed, device=device, masks=masks, epochs=count, last=last)
        book = Book(keep, start, label or recipe.name, last)
    saved = book.load() if book is not None else None
    if saved is not None and saved.facts["finished"]:
        adopt(saved, model.eval())
        return
    model.eval().to(device)
    threads = suited_to(model, data.x[:1].to(device), SMALL_TRAINING_FLOPS)
    with _seeded(seed, device), threads as choose_threads:
        if masks is not None:
            apply(model, masks)
        choose_threads(recipe.batch_size)
        # The draws come from the CPU so that a seed means the same on every device.
        generator = torch.Generator().manual_seed(seed)
        train, held_out = _split(data, recipe, device, generator)
        scaler = torch.amp.GradScaler(torch.device(device).type, enabled=mixes(recipe, device))
        state = State(optimizer_of(model, recipe), scaler, generator)
        if saved is not None:
            restore(saved, state, model, device)
        with _bar(last, state.epoch, progress, label or recipe.name) as advance:
            _train(task, state, train, held_out, last, book, advance)
        state.optimizer.zero_grad(set_to_none=True)
        model.eval().to(home)
        if book is not None:
            book.write(state, model, torch.device(device), finished=True)


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


def mixes(recipe: Recipe, device: str) -> bool:
    """Whether a training by ``recipe`` on ``device`` uses float16: on CUDA only, since a CPU gains nothing."""
    return recipe.precision == "mixed" and torch.device(device).type == "cuda"


Samples = tuple[Tensor, Tensor]


def _train(
    task: _Task,
    state: State,
    train: Samples,
    held_out: Samples | None,
    last: int,
    book: Book | None,
    advance: Callable[[int], object],
) -> None:
    """The epochs that are left, up to ``last``; ``book`` may keep each that is over."""
    (x, y), recipe = train, task.recipe
    augment = augmenting(recipe, x, task.classes)
    batches, replays = len(_batches(torch.arange(len(x)), recipe.batch_size)), recipe.replays
    whole = task.epochs * batches
    while state.epoch < last and not state.watch.over(recipe):
        order = torch.randperm(len(x), generator=state.generator).to(x.device)
        for number, chosen in enumerate(_batches(order, recipe.batch_size)):
            inputs, labels = augment(x[chosen], y[chosen])
            begun = state.epoch * batches + number
            for replay in range(replays):
                now = rate(recipe, (begun + (replay + 0.5) / replays) / whole, state.epoch, state.watch)
                for group in state.optimizer.param_groups:
                    group["lr"] = now
                _step(task, state, inputs, labels)
                if task.after_step is not None:
                    task.after_step(task.model, (begun + (replay + 1) / replays) / whole)
        if held_out is not None:
            state.watch = state.watch.after(_validation_loss(task.model, held_out), recipe)
        state.epoch += 1
        advance(1)
        if book is not None and book.keep.due():
            book.write(state, task.model, x.device, finished=False)


def _step(task: _Task, state: State, x: Tensor, y: Tensor) -> None:
    """One optimizer step in train mode; pruned entries get no gradient and are zero afterwards."""
    model, recipe, masks = task.model, task.recipe, task.masks
    if recipe.adversary == "free":
        if state.noise is None:
            state.noise = torch.zeros((recipe.batch_size + 1, *x.shape[1:]), device=x.device)
        inputs = (x + state.noise[: len(x)]).clamp(0, 1).requires_grad_()
    else:
        inputs = crafted(model, x, y, recipe, state.generator)
    model.train()
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, dtype=torch.float16, enabled=state.scaler.is_enabled()):
        loss = _loss(model, inputs, x, y, recipe)
    if task.penalty is not None:
        loss = loss + task.penalty(model)
    if not bool(torch.isfinite(loss)):
        raise InputError(f"training stopped: the loss is {loss.item()}; a lower learning rate may help")
    torch.autograd.backward(state.scaler.scale(loss))
    if masks is not None:
        for parameter, mask in masks.on(model):
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0.0)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if masks is not None:
        apply(model, masks)
    if state.noise is not None and inputs.grad is not None:
        state.noise[: len(x)] = nudged(state.noise[: len(x)], inputs.grad, recipe)


def _loss(model: nn.Module, inputs: Tensor, x: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """The cross-entropy on ``inputs``; for TRADES that on ``x`` and β times the divergence between both outputs.

    Zhang et al. 2019, Eq. 5, with the Kullback-Leibler divergence of their code, which gradients cross on both sides.
    """
    if recipe.adversary != "trades":
        return functional.cross_entropy(model(inputs), y)
    assert recipe.beta is not None  # a recipe of TRADES
    clean = model(x)
    near, far = functional.log_softmax(clean, dim=1), functional.log_softmax(model(inputs), dim=1)
    apart = functional.kl_div(far, near, reduction="batchmean", log_target=True)
    return functional.cross_entropy(clean, y) + recipe.beta * apart


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """``order`` in batches of ``size``; a last one of a single sample, which has no variance, joins its neighbour."""
    chunks = list(torch.split(order, size))
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return chunks


def _split(data: Dataset, recipe: Recipe, device: str, generator: torch.Generator) -> tuple[Samples, Samples | None]:
    """The samples to train on and those held out, which are the same for the same seed."""
    x, y = data.x.to(device), data.y.to(device)
    if recipe.validation is None:
        return (x, y), None
    count = round(len(data) * recipe.validation)
    if not 1 <= count < len(data):
        raise InputError(
            f"{recipe.name} holds out {recipe.validation:g} of the training samples: {len(data)} are too few"
        )
    order = torch.randperm(len(data), generator=generator).to(device)
    return (x[order[count:]], y[order[count:]]), (x[order[:count]], y[order[:count]])


def _validation_loss(model: nn.Module, samples: Samples) -> float:
    """The mean cross-entropy in eval mode."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for x, y in zip(*(torch.split(tensor, VALIDATION_CHUNK) for tensor in samples), strict=True):
            total += float(functional.cross_entropy(model(x), y, reduction="sum"))
    return total / len(samples[1])


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
def _bar(total: int, done: int, progress: bool, label: str) -> Iterator[Callable[[int], object]]:
    """A progress bar over epochs on stderr, from ``done``; without ``progress`` nothing is printed."""
    if not progress:
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc=label, unit="epoch", leave=False) as bar:
        yield bar.update
