"""Training from scratch: the masks stay, the weights begin at random."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.after.scheme import Scheme, given, measured
from pytest_prunerob.compression.masks import apply
from pytest_prunerob.compression.method import CompressedModel, Trainer
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError

LONGEST = Fraction(2)  # Liu et al. double the epochs where more is saved (Sec. 3, on ImageNet)


def same_epochs(
    compressed: CompressedModel,
    *,
    dense: nn.Module,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None,
) -> CompressedModel:
    """Scratch-E: train from new random weights for as many epochs as the dense model.

    The names are those of Liu et al.; Jordao & Pedrini (Effect of Pruning, Sec. 4) call this Scratch-B and twice the
    epochs Scratch-E. What is left of a pruned layer is initialised as the whole layer is.
    """
    return _anew(compressed, given(trainer, E.name), Fraction(1))


def same_budget(
    compressed: CompressedModel,
    *,
    dense: nn.Module,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None,
) -> CompressedModel:
    """Scratch-B: train from new random weights for as much computation as the dense model, at most twice its epochs.

    The epochs grow by the ratio of the multiply-adds of ``dense`` to those that are left: a product with a pruned
    weight counts as saved, one with the output of a pruned filter does not, so that the budget is never exceeded. Liu
    et al. double the epochs on ImageNet where more than half is saved; their runs on CIFAR have no such limit.

    Raises:
        CompressionError: without a training or training samples, or for a network without multiply-adds.
    """
    if data is None:
        raise CompressionError(f"{B.name} counts multiply-adds on a training sample and was given none: name a dataset")
    sample = data.x[:1]
    whole, left = multiply_adds(dense, sample), multiply_adds(compressed.model, sample)
    if not left:
        raise CompressionError(f"{B.name}: {type(dense).__name__} has no convolution or linear weight that is not zero")
    return _anew(compressed, given(trainer, B.name), max(Fraction(1), min(LONGEST, Fraction(whole, left))))


def multiply_adds(model: nn.Module, sample: Tensor) -> int:
    """The products with weights of convolutions and linear layers that are not zero, in one forward of ``sample``.

    ``sample: (1, C, H, W)`` in [0, 1]. torch.utils.flop_counter counts zeros like other weights. A convolution
    multiplies every weight once for each position of its output, a linear layer once for each row of its input.
    """
    counts: list[int] = []

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        weight = module.get_parameter("weight")
        channels = output.shape[-1] if isinstance(module, nn.Linear) else output.shape[1]
        counts.append(int(torch.count_nonzero(weight)) * (output.numel() // channels))

    layers = (m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear))
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            model(sample.to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


def _anew(compressed: CompressedModel, trainer: Trainer, epochs: Fraction) -> CompressedModel:
    trainer.fresh(compressed.model)
    apply(compressed.model, compressed.masks)
    trainer.train(compressed.model, compressed.masks, epochs=epochs)
    return measured(compressed)


_SOURCE = "Liu et al. 2019, Rethinking the Value of Network Pruning, arXiv:1810.05270, Sec. 3"
E = Scheme("scratch-e", "none", f"{_SOURCE}: Scratch-E, the same epochs", same_epochs, data=True, trains=True)
B = Scheme("scratch-b", "none", f"{_SOURCE}: Scratch-B, the same computation", same_budget, data=True, trains=True)
