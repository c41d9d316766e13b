"""Digital corruptions (Hendrycks & Dietterich 2019, Section 4.1), and the occlusion square.

``x``: (N, C, H, W) in [0, 1]; results are clipped to [0, 1] by the caller.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from pytest_prunerob.corruptions.draws import Draws
from pytest_prunerob.errors import PlanError


def contrast(x: Tensor, draws: Draws, share: float) -> Tensor:
    """Every value keeps ``share`` of its distance to the mean of its channel."""
    mean = x.double().mean((2, 3), keepdim=True).to(x.dtype)
    return (x - mean) * share + mean


def saturate(x: Tensor, draws: Draws, factor: float, more: float) -> Tensor:
    """The saturation (S of hue, saturation, value) becomes ``factor`` · S + ``more``; hue and value stay.

    A grey pixel has the hue of red, as in the benchmark.
    """
    value, lowest = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    spread = value - lowest
    saturation = spread / value.clamp(min=1e-12)
    wanted = (saturation * factor + more).clamp(0, 1)
    below = torch.where(spread > 0, (value - x) / spread.clamp(min=1e-12), torch.ones_like(x))
    red = torch.tensor([0.0, 1.0, 1.0], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    below = torch.where(spread > 0, below, red.expand_as(x))
    return value * (1 - wanted * below)


def pixelate(x: Tensor, draws: Draws, share: float) -> Tensor:
    """Shrunk to ``share`` of its size and enlarged again by the box filter of Pillow."""
    for axis in (-2, -1):
        side = x.shape[axis]
        small = max(1, int(side * share))
        x = _boxed(_boxed(x, axis, small), axis, side)
    return x


def jpeg_compression(x: Tensor, draws: Draws, quality: float) -> Tensor:
    """Written as a JPEG of this ``quality`` and read again, by Pillow as in the benchmark (4:2:0, 8 bits)."""
    pixels = (x * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
    read = []
    for image in pixels:
        file = BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=int(quality))
        read.append(np.asarray(Image.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(read)).movedim(-1, 1).to(x) / 255


def elastic_transform(x: Tensor, draws: Draws, strength: float, sigma: float, jitter: float) -> Tensor:
    """A random affine map, then every pixel moved along a smooth random field (Simard et al. 2003).

    The constants are shares of the shorter side: three corners of the middle square move by up to ``jitter``, the field
    is uniform noise smoothed by ``sigma`` and multiplied by ``strength``. Both steps are bilinear.
    """
    height, width = x.shape[-2:]
    side = min(height, width)
    corners = draws.uniform(3, 2, low=-1.0, high=1.0) * (jitter * side)
    moves = draws.uniform(2, height, width, low=-1.0, high=1.0)
    x = _affine(x, corners)
    if strength == 0:
        return x
    down, right = _smoothing(height, sigma * side).to(x), _smoothing(width, sigma * side).to(x)
    # Sample by sample: a product of matrices may be summed in another order in another batch.
    field = torch.stack([down @ drawn @ right.T for drawn in moves]) * (strength * side)
    rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] + field[:, 0]
    columns = torch.arange(width, device=x.device, dtype=x.dtype) + field[:, 1]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def occlude(x: Tensor, size: int) -> Tensor:
    """``x`` (N, C, H, W) with a central square of zeros, ``size`` pixels wide.

    Raises:
        PlanError: for a square that is larger than the images.
    """
    height, width = x.shape[-2:]
    if size > min(height, width):
        raise PlanError(f"size={size} of the occlusion is more than the images have, {width}×{height} pixels")
    top, left = (height - size) // 2, (width - size) // 2
    covered = x.clone()
    covered[..., top : top + size, left : left + size] = 0
    return covered


def _boxed(x: Tensor, axis: int, size: int) -> Tensor:
    """``x`` resized along ``axis``: every new pixel is the mean of the pixels whose centres lie in its stretch."""
    old = x.shape[axis]
    scale, support = old / size, max(old / size, 1.0) / 2
    taken = []
    for place in range(size):
        centre = (place + 0.5) * scale
        taken.append([i for i in range(old) if -support < i + 0.5 - centre <= support])
    longest = max(map(len, taken))
    total: Tensor | None = None
    for turn in range(longest):
        places = torch.tensor([part[turn % len(part)] for part in taken], device=x.device)
        weights = torch.tensor([(turn < len(part)) / len(part) for part in taken], device=x.device, dtype=x.dtype)
        part = x.index_select(axis, places) * (weights[:, None] if axis == -2 else weights)
        total = part if total is None else total + part
    assert total is not None  # every stretch holds a centre
    return total


def _smoothing(size: int, sigma: float) -> Tensor:
    """The matrix (size, size) of a Gaussian blur that reaches 3 ``sigma``, reflected beyond the edges; on the CPU."""
    reach = int(3 * sigma + 0.5)
    weights = torch.tensor([math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)], dtype=torch.float64)
    places = (torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)).remainder(2 * size)
    places = torch.minimum(places, 2 * size - 1 - places)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add(1, places, (weights / weights.sum()).expand(size, -1))


def _affine(x: Tensor, moved: Tensor) -> Tensor:
    """``x`` under the affine map that moves three corners of its middle square by ``moved`` (N, 3, 2), in pixels."""
    height, width = x.shape[-2:]
    middle, half = torch.tensor([width // 2, height // 2], device=x.device, dtype=x.dtype), min(height, width) // 3
    signs = torch.tensor([[1, 1], [1, -1], [-1, -1]], device=x.device, dtype=x.dtype)
    corners = middle + half * signs
    after = corners + moved
    # The pixels come from A (p - q0) + p0, where A takes the moved edges of the triangle back to the old ones.
    first, second = after[:, 0] - after[:, 1], after[:, 1] - after[:, 2]
    determinant = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).view(-1, 1, 1)
    columns = torch.arange(width, device=x.device, dtype=x.dtype)
    rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None]
    right, down = columns - after[:, 0, 0].view(-1, 1, 1), rows - after[:, 0, 1].view(-1, 1, 1)
    # How far along either moved edge a pixel lies (Cramer's rule); the old edges are (0, 2h) and (2h, 0).
    along_first = (right * second[:, 1].view(-1, 1, 1) - down * second[:, 0].view(-1, 1, 1)) / determinant
    along_second = (down * first[:, 0].view(-1, 1, 1) - right * first[:, 1].view(-1, 1, 1)) / determinant
    source_right = corners[0, 0] + 2 * half * along_second
    source_down = corners[0, 1] + 2 * half * along_first
    grid = torch.stack([2 * source_right / (width - 1) - 1, 2 * source_down / (height - 1) - 1], dim=-1)
    return grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
