"""Blurs (Hendrycks & Dietterich 2019, Section 4.1).

``x``: (N, C, H, W). Sums run tap by tap: a convolution would add in another order in another batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pytest_prunerob.corruptions.draws import Draws

Border = Literal["nearest", "mirror"]
NEGLIGIBLE = 1e-8  # a tap below this changes no float32 in [0, 1]


def gaussian_blur(x: Tensor, draws: Draws, sigma: float) -> Tensor:
    """A Gaussian of ``sigma`` pixels."""
    return smoothed(x, sigma)


def defocus_blur(x: Tensor, draws: Draws, radius: float, antialias: float) -> Tensor:
    """The mean over a disk of ``radius`` pixels whose edge is smoothed by a Gaussian of ``antialias`` pixels."""
    kernel = disk(radius, antialias)
    reach = len(kernel) // 2
    padded = pad(x, reach, reach, "mirror")
    height, width = x.shape[-2:]
    taps = ((kernel[i][j], i, j) for i in range(len(kernel)) for j in range(len(kernel)))
    return _summed(x, ((weight, padded[..., i : i + height, j : j + width]) for weight, i, j in taps))


def glass_blur(x: Tensor, draws: Draws, sigma: float, reach: float, rounds: float) -> Tensor:
    """Blurred, each pixel replaced by a random neighbour ``rounds`` times, and blurred again.

    Neighbours are −``reach`` … ``reach`` − 1 rows and columns away; a margin of the image keeps its pixels. The
    benchmark's code sets out to swap pixel by pixel, but copies (both sides of its swap are views of one array); for
    ``reach`` 1, which all CIFAR constants have, it comes to what is done here, and for more it may copy what it has
    copied before. It rounds to 8 bits in between, which we do not.
    """
    far, (height, width) = int(reach), x.shape[-2:]
    x = smoothed(x, sigma)
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inner = ((rows > far) & (rows <= height - far))[:, None] & (columns > far) & (columns <= width - far)
    for _ in range(int(rounds)):
        moves = draws.integers(2, height, width, low=-far, high=far) * inner
        places = (rows[:, None] + moves[:, 0]) * width + columns + moves[:, 1]
        places = places.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
        x = x.flatten(2).gather(2, places).view_as(x)
    return smoothed(x, sigma)


def motion_blur(x: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """Smeared along a line at a random angle between −45° and 45°."""
    return smeared(x, draws.uniform(low=-math.pi / 4, high=math.pi / 4), radius, sigma)


def zoom_blur(x: Tensor, draws: Draws, number: float, step: float) -> Tensor:
    """The mean of the image and of ``number`` copies, zoomed by 1, 1 + ``step``, 1 + 2 ``step`` and so on."""
    total = x
    for i in range(int(number)):
        total = total + zoomed(x, 1 + i * step)
    return total / (int(number) + 1)


# ---- what corruptions are made of


def smoothed(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur along both axes that reaches 4 ``sigma``; beyond the edge the edge goes on."""
    reach = int(4 * sigma + 0.5)
    if reach == 0:
        return x
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]
    height, width = x.shape[-2:]
    rows = pad(x, reach, 0, "nearest")
    x = _summed(x, ((w, rows[..., i : i + height, :]) for i, w in enumerate(weights)))
    columns = pad(x, 0, reach, "nearest")
    return _summed(x, ((w, columns[..., i : i + width]) for i, w in enumerate(weights)))


def smeared(x: Tensor, angle: Tensor, radius: float, sigma: float) -> Tensor:
    """Half a Gaussian of ``sigma`` along a line at ``angle`` (N,), as ImageMagick's motion blur has it.

    Tap i of 2 · ``radius`` + 1 is the pixel nearest to i steps along the line; beyond the edge the edge goes on.
    """
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(math.ceil(2 * radius + 1))]
    height, width = x.shape[-2:]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)

    def moved(i: int) -> Tensor:
        down = (rows + (i * angle.sin()).round().long()[:, None]).clamp(0, height - 1)
        right = (columns + (i * angle.cos()).round().long()[:, None]).clamp(0, width - 1)
        places = (down[:, :, None] * width + right[:, None, :]).flatten(1).unsqueeze(1)
        return x.flatten(2).gather(2, places.expand(-1, x.shape[1], -1)).view_as(x)

    return _summed(x, ((w / sum(weights), moved(i)) for i, w in enumerate(weights) if w > NEGLIGIBLE))


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of the image, enlarged by about ``factor`` ≥ 1 to the size of the image (bilinear).

    As in the benchmark a whole number of pixels is cut out and enlarged to a whole number, so that factors which are
    near 1 for the size of the image change nothing. With another number of threads torch rounds the last bit otherwise.
    """
    size = x.shape[-2:]
    cut = [math.ceil(side / factor) for side in size]
    top, left = ((side - part) // 2 for side, part in zip(size, cut, strict=True))
    middle = x[..., top : top + cut[0], left : left + cut[1]]
    larger = [max(side, round(part * factor)) for side, part in zip(size, cut, strict=True)]
    if larger != cut:
        middle = interpolate(middle, size=larger, mode="bilinear", align_corners=True)
    top, left = ((part - side) // 2 for side, part in zip(size, larger, strict=True))
    return middle[..., top : top + size[0], left : left + size[1]]


def between(x: Tensor, axis: int, places: Sequence[float]) -> Tensor:
    """``x`` at fractional ``places`` along ``axis``, linear between two pixels; beyond the edge the edge goes on.

    Slower than torch's ``interpolate``, which rounds otherwise with another number of threads.
    """
    last = x.shape[axis] - 1
    where = torch.tensor([min(max(place, 0.0), last) for place in places], dtype=torch.float64)
    first = where.floor().clamp(max=max(last - 1, 0)).long()
    weight = (where - first).to(x)
    weight = weight[:, None] if axis == -2 else weight
    first = first.to(x.device)
    return (1 - weight) * x.index_select(axis, first) + weight * x.index_select(axis, (first + 1).clamp(max=last))


def pad(x: Tensor, rows: int, columns: int, border: Border) -> Tensor:
    """``x`` with a border on each side, however wide: the edge goes on, or the image is mirrored at it."""
    for axis, width in ((-2, rows), (-1, columns)):
        if width:
            size = x.shape[axis]
            places = torch.arange(-width, size + width, device=x.device)
            if border == "nearest":
                places = places.clamp(0, size - 1)
            else:
                places = places.remainder(max(1, 2 * (size - 1)))
                places = torch.minimum(places, 2 * (size - 1) - places)
            x = x.index_select(axis, places)
    return x


def disk(radius: float, antialias: float) -> list[list[float]]:
    """A disk of ``radius`` pixels, smoothed by a 3×3 Gaussian (5×5 above radius 8); its weights sum to 1."""
    soft = 1 if radius <= 8 else 2
    reach = int(radius)
    side = range(-reach, reach + 1)
    inside = torch.tensor([[float(i * i + j * j <= radius * radius) for j in side] for i in side], dtype=torch.float64)
    line = torch.tensor([math.exp(-0.5 * (i / antialias) ** 2) for i in range(-soft, soft + 1)], dtype=torch.float64)
    line = line / line.sum()
    spread = torch.nn.functional.conv2d(inside[None, None], torch.outer(line, line)[None, None], padding=2 * soft)
    kernel: list[list[float]] = (spread[0, 0] / spread.sum()).tolist()
    return kernel


def _summed(x: Tensor, taps: Iterable[tuple[float, Tensor]]) -> Tensor:
    total = torch.zeros_like(x)
    for weight, part in taps:
        if weight > NEGLIGIBLE:
            total = total + weight * part
    return total
