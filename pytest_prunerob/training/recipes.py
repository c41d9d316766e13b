"""The recipes: everything that decides a training besides network, data and seed, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pytest_prunerob.errors import InputError, unknown

Adversary = Literal["none", "fgsm", "fast", "free", "pgd", "trades"]
Augmentation = Literal["none", "crop-flip", "mixup", "cutmix", "cutout"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides network, data and seed; plain values, so that it can enter a key.

    ``lr`` is the highest learning rate. Schedule "cosine" rises to it over ``warmup`` of the training and falls to
    zero; "multistep" multiplies it by ``decay`` after each number of epochs in ``milestones``; "plateau" does so
    whenever the validation loss has not fallen for ``patience`` epochs; "constant" keeps it. ``validation`` is the
    share of the training half that is held out for that loss; training ends early where it has not fallen for
    ``stop_patience`` epochs. ``momentum`` and ``nesterov`` are of SGD.

    ``eps`` and ``step_size`` of the ``adversary`` are rationals in strings, ``None`` for training on clean inputs;
    ``steps`` is the number of its gradient steps, ``replays`` how often free training repeats a batch, ``beta`` the
    weight of TRADES's second term. ``mix`` is the parameter of the Beta distribution of mixup and cutmix,
    ``augmented`` the share of batches that are, ``hole`` the side of cutout's square as a share of the image's.

    ``precision`` "mixed" means float16 where torch deems it safe, on CUDA; on the CPU it is float32. Fine-tuning after
    a pruning step takes ``tuning_epochs``, ``None`` for a quarter of ``epochs``.
    """

    name: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    optimizer: Literal["adamw", "adam", "sgd"]
    schedule: Literal["cosine", "multistep", "plateau", "constant"]
    eps: str | None = None
    steps: int = 0
    step_size: str | None = None
    adversary: Adversary = "none"
    replays: int = 1
    beta: float | None = None
    momentum: float = 0.0
    nesterov: bool = False
    milestones: tuple[int, ...] = ()
    decay: float | None = None
    patience: int | None = None
    stop_patience: int | None = None
    validation: float | None = None
    augmentation: Augmentation = "none"
    mix: float | None = None
    augmented: float = 1.0
    hole: float | None = None
    precision: Literal["float32", "mixed"] = "float32"
    tuning_epochs: int | None = None


# Adam's rate from Merkle, Samsinger & Schöttle 2021 (Sec. 3.6); epochs, decay of the weights and the cosine are ours.
_STANDARD = Recipe("standard", 30, 128, 1e-3, 1e-4, 0.2, "adamw", "cosine", precision="mixed")
# 8/255 on colour images, and 7 steps of ε/4, from Madry et al. 2018, arXiv:1706.06083.
_PGD = replace(_STANDARD, name="pgd", adversary="pgd", eps="8/255", steps=7, step_size="2/255")
# The paper names no batch size, no weight decay and no share for validation: 128, none and a tenth are ours.
_MERKLE = Recipe(
    "merkle2021",
    150,
    128,
    1e-3,
    0.0,
    0.0,
    "adam",
    "plateau",
    decay=0.3,
    patience=12,
    stop_patience=15,
    validation=0.1,
    tuning_epochs=150,
)
TRAININGS: dict[str, Recipe] = {
    one.name: one
    for one in (
        _STANDARD,
        _PGD,
        # Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572: one step of ε from the clean input.
        replace(_PGD, name="fgsm", adversary="fgsm", steps=1, step_size="8/255"),
        # Wong, Rice & Kolter 2020, arXiv:2001.03994 (Alg. 3): one step of 1.25 ε from a random start.
        replace(_PGD, name="fast", adversary="fast", steps=1, step_size="10/255"),
        # Shafahi et al. 2019, arXiv:1904.12843 (Alg. 1): m = 8 on CIFAR, as many epochs as divided by m are ours.
        replace(_PGD, name="free", epochs=10, adversary="free", replays=8, steps=1, step_size="8/255"),
        # Zhang et al. 2019, arXiv:1901.08573 (Sec. 5): 10 steps of 0.007 and 1/λ = 6.
        replace(_PGD, name="trades", adversary="trades", beta=6.0, steps=10),
        # Zhang et al. 2018, arXiv:1710.09412 (Sec. 3.2): α = 1 on CIFAR.
        replace(_STANDARD, name="mixup", augmentation="mixup", mix=1.0),
        # Yun et al. 2019, arXiv:1905.04899 (Sec. 4.1): α = 1; every second batch on CIFAR, as in their code.
        replace(_STANDARD, name="cutmix", augmentation="cutmix", mix=1.0, augmented=0.5),
        # DeVries & Taylor 2017, arXiv:1708.04552 (Sec. 4.1): a square of half the side on CIFAR-10.
        replace(_STANDARD, name="cutout", augmentation="cutout", hole=0.5),
        # Merkle, Samsinger & Schöttle 2021 (Sec. 3.6), its three bigger networks.
        _MERKLE,
        # The same for its CNN5: patience 5, one rate.
        replace(_MERKLE, name="merkle2021-cnn5", schedule="constant", decay=None, patience=None, stop_patience=5),
        # Vora et al. 2023 (A.2); the first milestone is where training ends, so that the rate stays what it is.
        Recipe(
            "vora2023",
            10,
            128,
            0.1,
            0.0,
            0.0,
            "sgd",
            "multistep",
            momentum=0.9,
            nesterov=True,
            milestones=(10, 20, 30),
            decay=0.1,
        ),
        # Jordao & Pedrini 2021 (Sec. 4): epochs and augmentation. They name no rates: those and their steps at a half
        # and three quarters are of He et al. 2016, arXiv:1512.03385 (Sec. 4.2), the choice is ours.
        Recipe(
            "jordao2021",
            200,
            128,
            0.1,
            1e-4,
            0.0,
            "sgd",
            "multistep",
            momentum=0.9,
            milestones=(100, 150),
            decay=0.1,
            augmentation="crop-flip",
            tuning_epochs=200,
        ),
    )
}


def _on_digits() -> dict[str, Recipe]:
    """On 898 digits of 8×8: ε 0.2, and high rates for few epochs, so that each takes seconds (all ours).

    Few strong steps and many epochs at a high rate give the most robust network per second of training.
    """
    changes: dict[str, dict[str, object]] = {
        "standard": {"epochs": 25, "batch_size": 32, "lr": 6e-3},
        "pgd": {"epochs": 45, "batch_size": 64, "lr": 8e-3, "eps": "0.2", "steps": 2, "step_size": "0.15"},
        "fgsm": {"epochs": 45, "batch_size": 64, "lr": 8e-3, "eps": "0.2", "step_size": "0.2"},
        "fast": {"epochs": 45, "batch_size": 64, "lr": 8e-3, "eps": "0.2", "step_size": "0.25"},
        "free": {"epochs": 25, "batch_size": 64, "lr": 8e-3, "eps": "0.2", "step_size": "0.2", "replays": 4},
        "trades": {"epochs": 30, "batch_size": 64, "lr": 8e-3, "eps": "0.2", "steps": 2, "step_size": "0.15"},
        "mixup": {"epochs": 25, "batch_size": 32, "lr": 6e-3},
        "cutmix": {"epochs": 25, "batch_size": 32, "lr": 6e-3},
        # A square of a quarter of the image hides most of a digit: a quarter of the side.
        "cutout": {"epochs": 25, "batch_size": 32, "lr": 6e-3, "hole": 0.25},
        "merkle2021": {"epochs": 60, "batch_size": 32, "tuning_epochs": 15},
        "merkle2021-cnn5": {"epochs": 60, "batch_size": 32, "tuning_epochs": 15},
        # Without batch normalisation a rate of 0.1 does not converge.
        "vora2023": {"batch_size": 32, "lr": 0.02},
        # A mirrored 2 is no 2 and a digit fills its 8×8 pixels: neither crop nor flip.
        "jordao2021": {
            "epochs": 40,
            "batch_size": 32,
            "lr": 0.02,
            "milestones": (20, 30),
            "augmentation": "none",
            "tuning_epochs": 10,
        },
    }
    return {name: replace(TRAININGS[name], precision="float32", **given) for name, given in changes.items()}  # type: ignore[arg-type]


TUNED: dict[str, dict[str, Recipe]] = {"digits": _on_digits()}


def recipe(name: str, *, dataset: str) -> Recipe:
    """The recipe of training ``name`` (of TRAININGS) on ``dataset``, with the ε of that dataset.

    Raises:
        InputError: for an unknown training.
    """
    if name not in TRAININGS:
        raise InputError(unknown("training", name, TRAININGS))
    return TUNED.get(dataset, TRAININGS)[name]


def fine_tuning(recipe: Recipe) -> Recipe:
    """The recipe that follows each pruning step after training by ``recipe``.

    It is a quarter as long unless the recipe says otherwise. A cosine peaks at half the rate; steps are followed by the
    rate at which training ended (Liu et al. 2019, arXiv:1810.05270, Sec. 3); other schedules begin anew.
    """
    epochs = max(1, recipe.epochs // 4) if recipe.tuning_epochs is None else recipe.tuning_epochs
    shorter = replace(recipe, name=f"{recipe.name}-fine-tuning", epochs=epochs)
    if recipe.schedule == "cosine":
        return replace(shorter, lr=recipe.lr / 2)
    if recipe.schedule == "multistep":
        passed = sum(milestone < recipe.epochs for milestone in recipe.milestones)
        lr = recipe.lr * (1.0 if recipe.decay is None else recipe.decay) ** passed
        return replace(shorter, lr=lr, schedule="constant", milestones=(), decay=None)
    return shorter
