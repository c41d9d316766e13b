"""Activation pruning: at inference each ReLU keeps only its largest outputs of a sample."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.activations import LargestReLU, with_largest
from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.structure import Structure
from pytest_prunerob.datasets import Dataset

# Samples that a forward measures at once (ours).
CHUNK = 250


def compress(
    model: nn.Module,
    amount: Fraction,
    *,
    data: Dataset | None,
    generator: torch.Generator,
    trainer: Trainer | None = None,
) -> CompressedModel:
    """Replace every ``nn.ReLU`` by one that drops ``ceil(amount · M)`` of its M outputs of a sample, then fine-tune.

    The smallest outputs go, zeros first. No weight is pruned: this saves computation and no memory. The review does
    not say how Guo et al. choose the activations; the largest ones are those of k-winners-take-all. The network is
    discontinuous, so that its survivors of gradient attacks alone are no evidence.

    Raises:
        CompressionError: if the network has no ``nn.ReLU`` module.
    """
    assert data is not None  # METHOD.data
    sparse = with_largest(model, str(amount))
    if trainer is not None:
        trainer.fine_tune(sparse, Masks({}))
    sparse.eval()
    layers = dropped(sparse, data.x)
    return CompressedModel(
        sparse, Masks({}), "activations", amount, layers, (amount,), Structure(activations=str(amount))
    )


def dropped(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int]]:
    """By layer, how many outputs of a sample are dropped and are zero, and how many there are.

    Measured in forwards of the samples ``x: (N, C, H, W)``, as the fewest over them. A module that is used several
    times counts all its outputs.
    """
    device = next(model.parameters()).device
    gone: dict[str, list[Tensor]] = {}
    total: dict[str, int] = {}

    def watch(name: str, module: LargestReLU) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            zeroed = ~module.kept(nn.functional.relu(given[0])) & (output == 0)
            gone.setdefault(name, []).append(zeroed.flatten(1).sum(1).cpu())
            total[name] = total.get(name, 0) + output[0].numel()

        return module.register_forward_hook(hook)

    parts = {name: part for name, part in model.named_modules() if isinstance(part, LargestReLU)}
    handles = [watch(name, part) for name, part in parts.items()]
    least: dict[str, int] = {}
    try:
        for chunk in torch.split(x, CHUNK):
            gone.clear()
            total.clear()
            with torch.no_grad():
                model(chunk.to(device))
            for name, counts in gone.items():
                fewest = int(torch.stack(counts).sum(0).min())
                least[name] = min(least.get(name, fewest), fewest)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (least[name], total[name]) for name in least}


METHOD = Method(
    "activation-pruning",
    "activations",
    "local",
    compress,
    "Guo, Zhang, Zhang & Chen 2018, arXiv:1810.09619 (activation sparsity); Xiao, Zhong & Zheng 2020, arXiv:1905.10510 "
    "(k-winners-take-all)",
    data=True,
)
