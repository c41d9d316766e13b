"""Weights of an earlier point of the training, put back into a pruned network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pytest_prunerob.compression.masks import Masks, apply
from pytest_prunerob.errors import CompressionError


def rewind(model: nn.Module, state: Mapping[str, Tensor], masks: Masks) -> None:
    """Put the entries of ``state``, a state dict of the dense model, back into ``model`` where ``masks`` keep them.

    Buffers such as running statistics go back too. A network that lost whole modules takes what it still has.

    Raises:
        CompressionError: if the network has something in another shape than the dense model, or not at all.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state or state[name].shape != tensor.shape:
            found = f"the shape {tuple(state[name].shape)} there" if name in state else "no counterpart there"
            raise CompressionError(
                f"rewinding puts weights of the dense model back: {name!r} has the shape {tuple(tensor.shape)} and "
                f"{found}; allowed are methods that leave the layers in their shape"
            )
    model.load_state_dict({name: state[name] for name in own}, strict=True)
    apply(model, masks)
