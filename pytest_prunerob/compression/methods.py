"""The catalogue of compression methods: a new one is a file beside this one and a line here."""

from __future__ import annotations

import copy
from fractions import Fraction

import torch
from torch import nn

from pytest_prunerob.compression import (
    activation_pruning,
    compact,
    dynamic_surgery,
    lottery_ticket,
    magnitude,
    network_slimming,
    nncf,
    progressive,
    random,
    single_elements,
    sparse_structure_selection,
    sparsity_aware,
    structures,
)
from pytest_prunerob.compression.amounts import parse_amount
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError, unknown
from pytest_prunerob.facts import reparametrised

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *magnitude.METHODS,
        *random.METHODS,
        *nncf.METHODS,
        network_slimming.METHOD,
        *sparse_structure_selection.METHODS,
        dynamic_surgery.METHOD,
        progressive.METHOD,
        activation_pruning.METHOD,
        sparsity_aware.METHOD,
        *lottery_ticket.METHODS,
        compact.METHOD,
        *structures.METHODS,
        *single_elements.METHODS,
    )
}


def compress(
    model: nn.Module,
    *,
    method: str,
    amount: Fraction | str | float,
    data: Dataset | None = None,
    seed: int = 0,
    trainer: Trainer | None = None,
    iterations: int | None = None,
) -> CompressedModel:
    """A copy of ``model`` compressed by a method of ``METHODS``, in eval mode; amount 0 gives an equal network.

    ``amount`` is the share of the method's unit that goes, rounded up to the next whole one. ``data`` is the training
    half of a dataset for methods that score by samples, ``trainer`` how it is trained in between (``None``: not at
    all), ``seed`` decides what is drawn, ``iterations`` is the number of steps for the methods that take one.

    Raises:
        CompressionError: for an unknown method, an impossible amount, what the method needs and is not given, or a
            network it does not apply to.
    """
    if method not in METHODS:
        raise CompressionError(unknown("compression method", method, METHODS))
    chosen, share = METHODS[method], parse_amount(amount)
    if iterations is not None and not chosen.iterations:
        taking = ", ".join(name for name, one in METHODS.items() if one.iterations)
        raise CompressionError(f"{method} takes no number of iterations; allowed is it for: {taking or 'none'}")
    if iterations is not None and iterations < 1:
        raise CompressionError(f"iterations={iterations}: at least one is needed")
    computed = reparametrised(model)
    if computed:
        raise CompressionError(
            f"{method}: the weight of {computed!r} of {type(model).__name__} is computed from other tensors; make it "
            "plain first, such as by torch.nn.utils.prune.remove or parametrize.remove_parametrizations"
        )
    if share == 0:
        return CompressedModel(copy.deepcopy(model).eval(), Masks({}), chosen.unit, share, {})
    if chosen.data and data is None:
        raise CompressionError(f"{method} scores by training samples and was given none: name a dataset and a training")
    if chosen.trains and trainer is None:
        raise CompressionError(
            f"{method} trains the network itself: name a training, such as cells(training='standard')"
        )
    generator = torch.Generator().manual_seed(seed)
    given = {} if iterations is None else {"iterations": iterations}
    return chosen.compress(model, share, data=data, generator=generator, trainer=trainer, **given)
