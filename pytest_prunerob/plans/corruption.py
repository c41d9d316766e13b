"""Corruptions and occlusion: perturbations that no adversary chooses."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from pytest_prunerob.errors import PlanError
from pytest_prunerob.plans.plan import Parameter, Plan, Stage, ThreatModel, count, one_of, single

# The corruptions of the benchmark by its four groups (Hendrycks & Dietterich 2019, Section 4.1 and Appendix B).
GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
CORRUPTION_KINDS = tuple(kind for kinds in GROUPS.values() for kind in kinds)
CONSTANTS = ("cifar", "imagenet")
SEVERITIES = 5
TEXTURES = (".jpeg", ".jpg", ".png")  # endings of the files that are textures


def corruption(kind: str, severity: int, *, constants: str | None = None, textures: str | None = None) -> Plan:
    """A semantic-preserving corruption (Hendrycks & Dietterich 2019, arXiv:1903.12261), such as "fog".

    ``severity`` is 1 to 5. ``constants`` are those of CIFAR-10-C ("cifar") or of ImageNet-C ("imagenet"), by default by
    the size of the images: "cifar" up to 64 pixels on the shorter side. ``textures`` is a folder of photographs of
    frost (``.png``, ``.jpg``), which "frost" alone needs and this package does not have; their content enters the key.

    Raises:
        PlanError: for an unknown kind or severity, or textures that are missing or not asked for.
    """
    one_of("kind", kind, CORRUPTION_KINDS)
    if count("severity", severity) > SEVERITIES:
        raise PlanError(f"severity={severity!r} is not one of 1 to {SEVERITIES}")
    if constants is not None:
        one_of("constants", constants, CONSTANTS)
    params: dict[str, Parameter] = {"kind": kind, "severity": severity, "constants": constants or "by size"}
    if kind == "frost":
        if textures is None:
            raise PlanError(
                "frost is made of photographs: give a folder of them (.png, .jpg), such as "
                "accuracy_under(corruption('frost', 3, textures='FOLDER'))"
            )
        params |= {"textures": textures, "textures_sha256": content(texture_files(textures))}
    elif textures is not None:
        raise PlanError(f"textures={textures!r} is for frost alone, not for {kind}")
    if kind == "jpeg_compression":  # another codec rounds otherwise, so that its release belongs into the key
        params |= {"codec": f"pillow {version('pillow')}"}
    name = f"{kind} severity {severity}" + (f", {constants} constants" if constants else "")
    stage = Stage("corruption", tuple(sorted(params.items())))
    return Plan(name, "corruption", ThreatModel("none", None), (stage,))


def occlusion(size: int) -> Plan:
    """A central square of zeros, ``size`` pixels wide (Jordao & Pedrini 2021, Section 4, which uses 16 on CIFAR-10).

    Raises:
        PlanError: for a size that is no whole number of at least 1.
    """
    name = f"occlusion {count('size', size)}×{size}"
    return single("occlusion", ThreatModel("none", None), name=name, kind="corruption", size=size)


def by_kind(kind: str, severity: int, constants: str | None) -> Plan:
    """The plan of ``corruption(...)``, or of kind "occlusion" that of the square ``severity`` pixels wide.

    Raises:
        PlanError: as these do, and for constants of an occlusion, which has none.
    """
    if kind != "occlusion":
        one_of("kind", kind, (*CORRUPTION_KINDS, "occlusion"))
        return corruption(kind, severity, constants=constants)
    if constants is not None:
        raise PlanError(f"constants={constants!r}: an occlusion has none, only its size")
    return occlusion(severity)


def texture_files(folder: str) -> tuple[Path, ...]:
    """The textures in ``folder``, ordered by name.

    Raises:
        PlanError: where there are none.
    """
    place = Path(folder)
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in TEXTURES) if place.is_dir() else []
    if not found:
        raise PlanError(f"textures={folder!r} is no folder with images (.png, .jpg)")
    return tuple(found)


def content(files: tuple[Path, ...]) -> str:
    """The SHA-256 over the content of ``files`` in their order."""
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
