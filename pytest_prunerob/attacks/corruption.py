"""Corruptions and occlusion as attacks that look at no model; own code, in ``corruptions``.

No library that is installed here has them. Those that exist (such as the benchmark's own) work image by image on NumPy
arrays of one size, draw from a global generator, and need OpenCV and ImageMagick.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pytest_prunerob.attacks.attack import OWN, Attack, Load, Model, Passes, Settings
from pytest_prunerob.corruptions import CORRUPTIONS, corrupt, occlude
from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans import Stage
from pytest_prunerob.plans.corruption import content, texture_files


def _corrupted(model: Model, x: Tensor, y: Tensor, settings: Settings) -> Tensor:
    stage = settings.stage
    constants = str(stage.get("constants"))
    return corrupt(
        x,
        CORRUPTIONS[str(stage.get("kind"))],
        stage.integer("severity"),
        seed=settings.seed,
        constants=None if constants == "by size" else constants,
        textures=_textures(stage),
    )


def _textures(stage: Stage) -> Sequence[Tensor]:
    """The textures (3, H, W) in [0, 1] of ``stage``, none for one that needs none."""
    if "textures" not in dict(stage.params):
        return ()
    files = texture_files(str(stage.get("textures")))
    if content(files) != stage.get("textures_sha256"):
        raise PlanError(f"textures={stage.get('textures')!r} changed after the plan was made")
    pictures = [np.array(Image.open(file).convert("RGB")) for file in files]
    return [torch.from_numpy(picture).permute(2, 0, 1).float() / 255 for picture in pictures]


def _check_corruption(stage: Stage, inputs: tuple[int, int, int]) -> None:
    kind = str(stage.get("kind"))
    if not CORRUPTIONS[kind].suits(inputs):
        allowed = ", ".join([name for name, other in CORRUPTIONS.items() if other.suits(inputs)] + ["occlusion"])
        channels, height, width = inputs
        raise PlanError(
            f"{kind} makes no sense on images of {width}×{height} pixels with {channels} "
            f"channel{'s' if channels > 1 else ''}: allowed there are {allowed}"
        )


def _check_occlusion(stage: Stage, inputs: tuple[int, int, int]) -> None:
    _, height, width = inputs
    if stage.integer("size") > min(height, width):
        raise PlanError(f"size={stage.get('size')} of the occlusion is more than the images have, {width}×{height}")


def _no_passes(stage: Stage, load: Load) -> Passes:
    return Passes(0, 0, 0)


CORRUPTION = Attack(
    name="corruption",
    norms=("none",),
    kind="corruption",
    library=OWN,
    source="Hendrycks & Dietterich 2019",
    gradient=False,
    keeps_positions=True,
    perturb=_corrupted,
    passes=_no_passes,
    check=_check_corruption,
)
OCCLUSION = Attack(
    name="occlusion",
    norms=("none",),
    kind="corruption",
    library=OWN,
    source="Jordao & Pedrini 2021",
    gradient=False,
    keeps_positions=True,
    perturb=lambda model, x, y, settings: occlude(x, settings.stage.integer("size")),
    passes=_no_passes,
    check=_check_occlusion,
)
