"""What attacks from the adversarial-robustness-toolbox (ART) share: the model as ART takes it, and a quiet run.

ART computes in NumPy, so an attack of it forwards what it likes: none keeps the positions of the batch.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_prunerob.attacks.attack import Model

LIBRARY = "adversarial-robustness-toolbox"
Array = np.ndarray[Any, Any]


def classifier(model: Model, x: Tensor, classes: int) -> Any:
    """``model`` as ART takes it: logits (N, ``classes``) of inputs like ``x`` (N, ...) in [0, 1], on its device.

    ART sees no module behind ``model``, so it can change neither its mode nor its parameters.
    """
    load_art()
    from art.estimators.classification import PyTorchClassifier

    class Wrapped(torch.nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return model(z)

    made = PyTorchClassifier(
        Wrapped().eval(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    made._device = x.device  # ART itself only knows the CPU and the current CUDA device
    return made


def load_art() -> None:
    """Import ART without its configuration of logging, which would close the handlers of everybody else."""
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        import art  # noqa: F401
    finally:
        logging.config.dictConfig = configure


@contextmanager
def quiet() -> Iterator[None]:
    """Without ART's log, which tells of every batch."""
    logger = logging.getLogger("art")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def array(x: Tensor) -> Array:
    """``x`` as ART takes it."""
    found: Array = x.detach().cpu().numpy()
    return found


def generated(attack: Any, x: Tensor, y: Tensor | None) -> Tensor:
    """What ``attack`` (an ART attack with its classifier) makes of ``x`` (N, ...), steered from or to ``y`` (N,)."""
    with quiet():
        returned = attack.generate(x=array(x), y=None if y is None else array(y))
    return torch.from_numpy(np.ascontiguousarray(returned)).to(x)
