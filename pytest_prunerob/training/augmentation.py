"""Augmentation of batches, by the transforms of torchvision where they are those of the papers.

Everything is drawn from torch's own generator of the CPU, which ``fit`` seeds and puts back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pytest_prunerob.training.recipes import Recipe

# ``(x, y)`` → ``(x, labels)``; labels are (N,) classes or (N, classes) probabilities.
Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# 4 pixels of 32 (He et al. 2016, Sec. 4.2): an eighth of the side.
PADDING = 8


def augmenting(recipe: Recipe, data: Tensor, classes: int) -> Augment:
    """The augmentation of ``recipe``; ``data: (N, C, H, W)`` is what is trained on."""
    if recipe.augmentation == "crop-flip":
        return _crop_flip(data.shape[-2], data.shape[-1])
    if recipe.augmentation in ("mixup", "cutmix"):
        return _mixing(recipe, classes)
    if recipe.augmentation == "cutout":
        mean = data.mean(dim=(0, 2, 3), keepdim=True)
        share = 0.5 if recipe.hole is None else recipe.hole
        return lambda x, y: (cutout(x, share, mean), y)
    return lambda x, y: (x, y)


def cutout(x: Tensor, share: float, fill: Tensor) -> Tensor:
    """Each image of ``x: (N, C, H, W)`` with a square of ``share`` of its side replaced by ``fill``.

    DeVries & Taylor 2017 (Sec. 3.2): squares of one size whose centre is anywhere, so that a part may lie outside. They
    fill normalised images with zeros, which is the mean. Not torchvision's RandomErasing: it draws size and shape,
    keeps the rectangle inside and gives a batch one for all.
    """
    n, _, height, width = x.shape
    inside = torch.ones(n, 1, 1, 1, dtype=torch.bool)
    for side, shape in ((height, (n, 1, -1, 1)), (width, (n, 1, 1, -1))):
        length = max(1, round(share * side))
        first = torch.randint(side, (n, 1)) - length // 2
        place = torch.arange(side)
        inside = inside & ((place >= first) & (place < first + length)).reshape(shape)
    return torch.where(inside.to(x.device), fill, x)


def _mixing(recipe: Recipe, classes: int) -> Augment:
    from torchvision.transforms import v2

    kind = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[recipe.augmentation]
    transform = v2.RandomApply([kind(alpha=recipe.mix, num_classes=classes)], p=recipe.augmented)

    def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mixed, labels = transform(x, functional.one_hot(y, classes).float())
        return mixed, labels

    return mix


def _crop_flip(height: int, width: int) -> Augment:
    """A crop of the padded image and a flip, drawn for each image: torchvision gives a batch one draw for all."""
    from torchvision.transforms import v2

    padding = [max(1, width // PADDING), max(1, height // PADDING)]
    transform = v2.Compose([v2.RandomCrop((height, width), padding=padding), v2.RandomHorizontalFlip()])
    return lambda x, y: (torch.stack([transform(image) for image in x]), y)
