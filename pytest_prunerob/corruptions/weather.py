"""Weather (Hendrycks & Dietterich 2019, Section 4.1): snow, frost, fog, brightness, spatter.

``x``: (N, C, H, W) in [0, 1] with 1 or 3 channels; results are clipped to [0, 1] by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pytest_prunerob.corruptions.blur import between, smeared, smoothed, zoomed
from pytest_prunerob.corruptions.draws import Draws
from pytest_prunerob.errors import PlanError

LUMA = (0.299, 0.587, 0.114)  # the weights of red, green and blue in grey (ITU-R BT.601)
TURQUOISE = (175, 238, 238)  # water: the benchmark's pale turquoise, of 255
MUD = (63, 42, 20)  # the benchmark's brown, of 255


def snow(
    x: Tensor,
    draws: Draws,
    mean: float,
    deviation: float,
    zoom: float,
    least: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    """Flakes: enlarged normal noise above ``least``, smeared downwards, over a whitened image.

    The flakes fall twice, the second time turned round by 180°. The layer is not rounded to 8 bits, as it is in the
    benchmark.
    """
    flakes = zoomed(mean + deviation * draws.normal(1, *x.shape[-2:]), zoom)
    flakes = torch.where(flakes < least, torch.zeros_like(flakes), flakes).clamp(0, 1)
    angle = draws.uniform(low=-3 * math.pi / 4, high=-math.pi / 4)
    flakes = smeared(flakes, angle, radius, sigma)
    white = torch.maximum(x, grey(x) * 1.5 + 0.5)
    return keep * x + (1 - keep) * white + flakes + flakes.flip(-2, -1)


def frost(x: Tensor, draws: Draws, keep: float, share: float, scale: float, textures: Sequence[Tensor] = ()) -> Tensor:
    """The image and ``share`` of a photograph of frost, cut out at a random place.

    ``textures`` are (3, H, W) in [0, 1]; they are resized by ``scale`` first.

    Raises:
        PlanError: for a texture that is smaller than the images.
    """
    height, width = x.shape[-2:]
    layers = []
    for texture in textures:
        texture = texture.to(x)[None]
        if scale != 1:
            rows, columns = (int(side * scale) for side in texture.shape[-2:])
            texture = between(texture, -2, [(i + 0.5) / scale - 0.5 for i in range(rows)])
            texture = between(texture, -1, [(i + 0.5) / scale - 0.5 for i in range(columns)])
        if texture.shape[-2] < height or texture.shape[-1] < width:
            found = f"{texture.shape[-1]}×{texture.shape[-2]}"
            raise PlanError(f"a texture of frost is {found} pixels: the images need at least {width}×{height}")
        layers.append(texture if x.shape[1] == 3 else grey(texture))
    chosen = draws.integers(low=0, high=len(layers)).tolist()
    drawn = draws.uniform(2).tolist()
    parts = []
    for layer, (down, right) in zip((layers[place] for place in chosen), drawn, strict=True):
        top, left = int(down * (layer.shape[-2] - height + 1)), int(right * (layer.shape[-1] - width + 1))
        parts.append(layer[0, :, top : top + height, left : left + width])
    return keep * x + share * torch.stack(parts)


def fog(x: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """A cloud of diamond-square noise is added, and the brightest value of the image stays what it was.

    The cloud is our own form of the algorithm (Fournier et al. 1982), after the benchmark's constants: it wraps round
    at its edges, its side is the power of two that covers the image, and the random part of the midpoints falls by the
    square of ``decay`` from level to level.
    """
    height, width = x.shape[-2:]
    brightest = x.flatten(1).amax(1).view(-1, 1, 1, 1)
    cloud = _plasma(draws, max(height, width), decay)[:, None, :height, :width]
    return (x + amount * cloud) * brightest / (brightest + amount)


def brightness(x: Tensor, draws: Draws, amount: float) -> Tensor:
    """The value (V of hue, saturation, value) is raised by ``amount``; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    raised = (value + amount).clamp(0, 1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-12)), raised.expand_as(x))


def spatter(
    x: Tensor, draws: Draws, mean: float, deviation: float, sigma: float, least: float, strength: float, mud: float
) -> Tensor:
    """Drops of water, or splashes of mud: where smoothed normal noise is above ``least``.

    Mud is the benchmark's. Its water is lit by a relief of edges, distances and an equalised histogram of 8-bit images;
    ours rises from the edge of a drop to where the noise is highest, with the same places, colour and ``strength``.
    """
    liquid = smoothed(mean + deviation * draws.normal(1, *x.shape[-2:]), sigma)
    wet = liquid > least
    if mud:
        cover = smoothed(wet.to(x.dtype), strength)
        cover = torch.where(cover < 0.8, torch.zeros_like(cover), cover)
        return x * (1 - cover) + cover * _colour(x, MUD)
    above = torch.where(wet, liquid - least, torch.zeros_like(liquid))
    highest = above.flatten(1).amax(1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return x + strength * above / highest * _colour(x, TURQUOISE)


def grey(x: Tensor) -> Tensor:
    """The grey image (N, 1, H, W) of one with 1 or 3 channels."""
    if x.shape[1] == 1:
        return x
    return LUMA[0] * x[:, :1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:]


def _colour(x: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """A colour (1, 3, 1, 1), or its grey (1, 1, 1, 1), for images with the channels of ``x``."""
    made = torch.tensor(colour, device=x.device, dtype=x.dtype).view(1, 3, 1, 1) / 255
    return made if x.shape[1] == 3 else grey(made)


def _plasma(draws: Draws, side: int, decay: float) -> Tensor:
    """Diamond-square noise (N, S, S) between 0 and 1, S the power of two from ``side`` up."""
    size = 1 << max(1, (side - 1).bit_length())
    random = draws.uniform(size, size, low=-1.0, high=1.0)
    field = torch.zeros_like(random)
    step, swing = size, 1.0
    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        across = corners + corners.roll(-1, 2)
        middle = (across + across.roll(-1, 1)) / 4 + swing * random[:, half::step, half::step]
        field[:, half::step, half::step] = middle
        upper = (corners + corners.roll(-1, 2) + middle + middle.roll(1, 1)) / 4
        field[:, ::step, half::step] = upper + swing * random[:, ::step, half::step]
        left = (corners + corners.roll(-1, 1) + middle + middle.roll(1, 2)) / 4
        field[:, half::step, ::step] = left + swing * random[:, half::step, ::step]
        step, swing = half, swing / decay**2
    lowest = field.flatten(1).amin(1).view(-1, 1, 1)
    highest = field.flatten(1).amax(1).view(-1, 1, 1)
    return (field - lowest) / (highest - lowest)
