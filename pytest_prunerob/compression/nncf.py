"""Filter pruning as NNCF 2 did it: importance L1, L2 or geometric median, an exponential schedule, joined layers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.clusters import clusters, depthwise
from pytest_prunerob.compression.iterative import prune
from pytest_prunerob.compression.method import CompressedModel, Method, Trainer
from pytest_prunerob.compression.schedules import exponential
from pytest_prunerob.compression.units import weights_of
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.errors import CompressionError
from pytest_prunerob.facts import convolutions

INITIAL = Fraction(1, 10)  # pruning_init of Vora et al., App. A.2; NNCF's default is 0
# Ours: NNCF's 100 steps are an epoch each and Vora et al. name no number; here each step is fine-tuned for longer.
STEPS = 5

Importance = Callable[[Tensor], Tensor]


def l1(filters: Tensor) -> Tensor:
    """The L1 norm of each row: ``filters: (O, M)`` → ``(O,)``."""
    return filters.abs().sum(dim=1)


def l2(filters: Tensor) -> Tensor:
    """The L2 norm of each row: ``filters: (O, M)`` → ``(O,)``."""
    return filters.square().sum(dim=1).sqrt()


def geometric_median(filters: Tensor) -> Tensor:
    """The sum of the L2 distances of each row to the others (He et al. 2019): ``filters: (O, M)`` → ``(O,)``.

    Filters that are zero throughout are gone, and distances to them would only be norms: they are left out.
    """
    there = filters.any(dim=1)
    return torch.cdist(filters, filters[there]).sum(dim=1)


def filter_pruning(name: str, importance: Importance, source: str) -> Method:
    """NNCF's algorithm ``filter_pruning`` with one of its importances; everything else is its default or Vora et al.'s.

    The same share of the filters of each layer goes, from 10 % to the target by the exponential schedule, with
    fine-tuning after each step. Layers whose outputs are added lose the same filters, those of the smallest sum of
    importances (of the weights as they are: NNCF normalises only where it ranks globally). The bias of a filter and the
    normalisation that reads it go with it (``prune_batch_norms``). As by NNCF's defaults (``prune_first_conv``
    and ``prune_downsample_convs`` false) layers are exempt that read the network's input, have a stride, are grouped
    and not depthwise or feed such a layer, end in the network's output, or are joined with such a layer; the amount is
    a share of the other layers' filters, and only those are in the report. In a ResNet-18 that is a quarter of
    the convolutions.

    Unlike NNCF, which leaves a multiple of eight filters, takes its choice anew in each step from all filters and
    prunes linear layers too, this prunes ``ceil(amount · O)`` filters of a convolution (one stays), and what is
    pruned stays pruned.
    """

    def compress(
        model: nn.Module,
        amount: Fraction,
        *,
        data: Dataset | None,
        generator: torch.Generator,
        trainer: Trainer | None = None,
        iterations: int = STEPS,
    ) -> CompressedModel:
        """Prune ``amount`` of the filters of every layer that is not exempt, in ``iterations`` steps.

        Raises:
            CompressionError: if every layer is exempt, or torch.fx cannot trace the network.
        """
        together = {f"{one}.weight": group for group in prunable(model, name) for one in group}

        def score(pruned: nn.Module, layer: str, _: Tensor) -> Tensor:
            members = (pruned.get_parameter(f"{one}.weight") for one in together[layer])
            rows = (weight.detach().cpu().double().flatten(1) for weight in members)
            return torch.stack([importance(filters) for filters in rows]).sum(dim=0)

        return prune(
            model,
            exponential(INITIAL, amount, iterations),
            unit="filters",
            scope="local",
            score=score,
            method=name,
            trainer=trainer,
            only=together,
        )

    return Method(name, "filters", "local", compress, source, iterations=True)


def prunable(model: nn.Module, method: str) -> list[tuple[str, ...]]:
    """The groups of convolutions of ``model`` that the method prunes, by module name.

    Raises:
        CompressionError: if there are none, or torch.fx cannot trace the network.
    """
    weights_of(model, "filters", method)
    layers = convolutions(model)
    found = clusters(model, f"{method} must know which layers are added")
    exempt = found.first | found.last | found.split
    exempt |= {name for name, layer in layers.items() if any(step != 1 for step in layer.stride)}
    exempt |= {name for name, layer in layers.items() if layer.groups != 1 and not depthwise(layer)}
    groups = [group for group in found.joined if exempt.isdisjoint(group)]
    groups = [group for group in groups if len({layers[name].out_channels for name in group}) == 1]
    if not groups:
        raise CompressionError(
            f"{method} exempts convolutions that read the input, have a stride, end in the output or are added to such "
            f"ones, and {type(model).__name__} has no others; allowed here are methods that prune the filters of all, "
            "such as filter-local-magnitude"
        )
    return groups


NNCF = "algorithm filter_pruning of NNCF 2 (Kozlov et al. 2020, arXiv:2002.08679) with the settings of Vora et al. 2023"
METHODS = (
    filter_pruning("nncf-l1", l1, f"{NNCF}, filter_importance L1"),
    filter_pruning("nncf-l2", l2, f"{NNCF}, filter_importance L2"),
    filter_pruning(
        "nncf-geometric-median",
        geometric_median,
        f"{NNCF}, filter_importance geometric_median (He et al. 2019, arXiv:1811.00250)",
    ),
)
