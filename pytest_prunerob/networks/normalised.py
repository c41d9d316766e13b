"""A network that expects normalised inputs, made to take inputs in [0, 1]."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def normalised(network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """``network`` itself, which from now on takes ``x: (N, C, H, W) in [0, 1]`` and computes with ``(x - mean) / std``.

    Names of parameters, modules and entries of the state dict stay as they are: ``mean`` and ``std`` (one value for
    each channel) are buffers that no state dict holds. The network gets a class derived from its own, which alone
    keeps all of that at once: around the network a module would stand before every name, and a hook is not seen by
    torch.fx.
    """
    for name, values in (("mean", mean), ("std", std)):
        network.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
    network.__class__ = _taking_pixels(type(network))  # type: ignore[arg-type]
    return network


@functools.cache
def _taking_pixels(kind: type[nn.Module]) -> type[nn.Module]:
    class Normalised(kind):  # type: ignore[misc, valid-type]
        mean: Tensor
        std: Tensor

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward((x - self.mean) / self.std)
            return logits

    Normalised.__name__ = kind.__name__  # what messages call the network
    return Normalised
