"""Masks: which entries of which parameters a compressed network keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from pytest_prunerob.errors import CompressionError


@dataclass(frozen=True, eq=False)
class Masks:
    """What stays of each masked parameter: parameter name → bool tensor of its shape, True where it is kept.

    Parameters that are not named are kept whole. The tensors live on the CPU and are not to be changed.

    Raises:
        CompressionError: for a mask that is not boolean.
    """

    kept: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, mask in self.kept.items():
            if mask.dtype != torch.bool:
                raise CompressionError(f"the mask of {name!r} must be bool, found {mask.dtype}")
        tensors = {name: mask.detach().cpu().contiguous() for name, mask in self.kept.items()}
        object.__setattr__(self, "kept", MappingProxyType(tensors))

    def as_tensors(self) -> dict[str, Tensor]:
        """The masks as plain bool tensors by parameter name, to be saved; ``Masks(tensors)`` reads them back."""
        return dict(self.kept)

    def __and__(self, other: Masks) -> Masks:
        """Both masks together: what either has pruned stays pruned."""
        names = [*self.kept, *(name for name in other.kept if name not in self.kept)]
        return Masks({name: _both(self.kept.get(name), other.kept.get(name)) for name in names})

    def on(self, model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        """Each masked parameter of ``model`` with its mask on the parameter's device.

        Raises:
            CompressionError: if the network lacks a masked parameter or has it in another shape.
        """
        found = dict(model.named_parameters(remove_duplicate=False))
        pairs = []
        for name, mask in self.kept.items():
            if name not in found:
                raise CompressionError(f"there is a mask for {name!r}, which the network does not have")
            if found[name].shape != mask.shape:
                shapes = f"{tuple(mask.shape)}, the parameter {tuple(found[name].shape)}"
                raise CompressionError(f"the mask of {name!r} has the shape {shapes}")
            pairs.append((found[name], mask.to(found[name].device)))
        return pairs


def apply(model: nn.Module, masks: Masks) -> None:
    """Set every pruned entry of ``model`` to zero in place; raises ``CompressionError`` if the masks do not fit."""
    with torch.no_grad():
        for parameter, mask in masks.on(model):
            parameter.masked_fill_(~mask, 0.0)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor:
    if one is None or other is None:
        single = other if one is None else one
        assert single is not None  # a name comes from at least one of the two
        return single
    if one.shape != other.shape:
        raise CompressionError(f"masks of the shapes {tuple(one.shape)} and {tuple(other.shape)} do not combine")
    return one & other
