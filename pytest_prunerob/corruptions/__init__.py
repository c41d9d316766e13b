"""Corruptions of images that no adversary chooses, as functions of tensors (Hendrycks & Dietterich 2019)."""

from __future__ import annotations

from pytest_prunerob.corruptions import blur, digital, noise, weather
from pytest_prunerob.corruptions.corruption import Corruption, corrupt
from pytest_prunerob.corruptions.digital import occlude

TINY = 16  # digits are 8 pixels wide: flakes, clouds, drops and blocks of compression mean nothing there (ours)
COLOUR = (1, 3)

# The constants are those of make_cifar_c.py and imagenet_c/corruptions.py, which made the published CIFAR-10-C and
# ImageNet-C (github.com/hendrycks/robustness).
_ALL = (
    Corruption(
        "gaussian_noise",
        noise.gaussian_noise,
        ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    ),
    Corruption(
        "shot_noise",
        noise.shot_noise,
        ((500,), (250,), (100,), (75,), (50,)),
        ((60,), (25,), (12,), (5,), (3,)),
    ),
    Corruption(
        "impulse_noise",
        noise.impulse_noise,
        ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    ),
    Corruption(
        "speckle_noise",
        noise.speckle_noise,
        ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)),
        ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    ),
    # radius, smoothing of the edge
    Corruption(
        "defocus_blur",
        blur.defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    # σ, farthest neighbour, rounds
    Corruption(
        "glass_blur",
        blur.glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    # radius, σ; the severities 3 and 4 of CIFAR-10-C differ only where the Gaussian has faded
    Corruption(
        "motion_blur",
        blur.motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    # number of zoom factors, their distance: what numpy.arange(1, 1.06, 0.01) and so on hold, rounding included
    Corruption(
        "zoom_blur",
        blur.zoom_blur,
        ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
        ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
    ),
    Corruption(
        "gaussian_blur",
        blur.gaussian_blur,
        ((0.4,), (0.6,), (0.7,), (0.8,), (1,)),
        ((1,), (2,), (3,), (4,), (6,)),
    ),
    # mean and deviation of the noise, zoom, threshold, radius and σ of the motion, share of the image that stays
    Corruption(
        "snow",
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        smallest=TINY,
        channels=COLOUR,
    ),
    # share of the image, share of the texture, size of the texture
    Corruption(
        "frost",
        weather.frost,
        ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
        ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        smallest=TINY,
        channels=COLOUR,
        textures=True,
    ),
    # amount, decay of the roughness
    Corruption(
        "fog",
        weather.fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        smallest=TINY,
    ),
    Corruption(
        "brightness",
        weather.brightness,
        ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    ),
    # mean and deviation of the noise, σ, threshold, strength of water or σ of mud, 1 for mud
    Corruption(
        "spatter",
        weather.spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        smallest=TINY,
        channels=COLOUR,
    ),
    Corruption(
        "contrast",
        digital.contrast,
        ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    ),
    # strength, σ and jitter as shares of the side; ImageNet-C's are absolute, for 244 of 224 pixels
    Corruption(
        "elastic_transform",
        digital.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        tuple(
            (244 / 224 * strength, 244 / 224 * sigma, 244 / 224 * jitter)
            for strength, sigma, jitter in (
                (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02),
            )
        ),
        smallest=TINY,
    ),
    Corruption(
        "pixelate",
        digital.pixelate,
        ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        smallest=TINY,
    ),
    Corruption(
        "jpeg_compression",
        digital.jpeg_compression,
        ((80,), (65,), (58,), (50,), (40,)),
        ((25,), (18,), (15,), (10,), (7,)),
        smallest=TINY,
        channels=COLOUR,
    ),
    # factor and summand of the saturation
    Corruption(
        "saturate",
        digital.saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        smallest=TINY,
        channels=(3,),
    ),
)  # fmt: skip
CORRUPTIONS: dict[str, Corruption] = {corruption.name: corruption for corruption in _ALL}

__all__ = ["CORRUPTIONS", "Corruption", "corrupt", "occlude"]
