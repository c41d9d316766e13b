"""What a training needs to be continued after its process was killed, as tensors and plain values.

Continued on the CPU, a training gives the same model bit for bit. What is kept: the state of the model, of the
optimizer and of the generators of torch, the epoch, and what the validation losses have led to. Nothing that trains
here draws from ``random`` or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pytest_prunerob.compression.masks import Masks
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.fingerprint import digest, weights_digest
from pytest_prunerob.training.recipes import Recipe
from pytest_prunerob.training.schedules import Watch

MODEL, OPTIMIZER, RANDOM, NOISE = "model.", "optimizer.", "random.", "noise"


@dataclass(frozen=True, eq=False)
class Saved:
    """A training after some epoch: ``tensors`` on the CPU and ``facts`` that are plain JSON.

    ``facts["of"]`` says which training it is, ``facts["finished"]`` whether it was the last epoch.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Keep(Protocol):
    """The place for the checkpoint of one training."""

    def load(self, of: str) -> Saved | None:
        """The checkpoint of the training ``of``; one that is damaged or another's is set aside and not returned."""

    def due(self) -> bool:
        """Whether enough time has passed for another checkpoint amid training."""

    def save(self, saved: Saved) -> None:
        """Put ``saved`` in the place of the last one."""


@dataclass
class State:
    """What changes while a model is trained, besides the model."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    generator: torch.Generator
    noise: Tensor | None = None
    watch: Watch = field(default_factory=Watch)
    epoch: int = 0


@dataclass(frozen=True, eq=False)
class Book:
    """The checkpoints of one training: where they go, which training ``of`` is, its name and its last epoch."""

    keep: Keep
    of: str
    label: str
    last: int

    def load(self) -> Saved | None:
        """The checkpoint to continue from, if there is one."""
        return self.keep.load(self.of)

    def write(self, state: State, model: nn.Module, device: torch.device, *, finished: bool) -> None:
        """Keep the training as it is now; a finished one needs nothing but the model."""
        tensors = {f"{MODEL}{name}": t for name, t in model.state_dict().items() if isinstance(t, Tensor)}
        facts: dict[str, Any] = {"of": self.of, "label": self.label, "finished": finished}
        facts |= {"epoch": state.epoch, "last": self.last}
        if not finished:
            tensors |= _optimizer(state) | _random(state, device)
            if state.noise is not None:
                tensors[NOISE] = state.noise
            facts |= {"watch": asdict(state.watch), "scaler": state.scaler.state_dict()}
        # Copied: safetensors takes no tensors that share memory, such as tied weights.
        copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
        self.keep.save(Saved(copies, facts))


def identity(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    masks: Masks | None,
    epochs: int,
    last: int,
) -> str:
    """SHA-256 (hex) of all that decides a training that is about to start; the kind of device counts too."""
    return digest(
        {
            "start": weights_digest({name: t for name, t in model.state_dict().items() if isinstance(t, Tensor)}),
            "masks": weights_digest(masks.as_tensors()) if masks is not None else None,
            "data": data.digest,
            "recipe": asdict(recipe),
            "epochs": [epochs, last],
            "seed": seed,
            "device": torch.device(device).type,
        }
    )


def adopt(saved: Saved, model: nn.Module) -> None:
    """Give ``model`` the state that ``saved`` holds.

    Raises:
        RuntimeError: if it is the state of another network.
    """
    model.load_state_dict(_part(saved, MODEL), strict=True)


def restore(saved: Saved, state: State, model: nn.Module, device: str) -> None:
    """Put ``model``, ``state`` and the generators of torch into the condition that ``saved`` holds."""
    adopt(saved, model)
    values: dict[int, dict[str, Tensor]] = {}
    for place, tensor in _part(saved, OPTIMIZER).items():
        number, _, name = place.partition(".")
        values.setdefault(int(number), {})[name] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": values, "param_groups": groups})
    state.scaler.load_state_dict(dict(saved.facts["scaler"]))
    state.noise = saved.tensors[NOISE].to(device) if NOISE in saved.tensors else None
    state.watch, state.epoch = Watch.of(saved.facts["watch"]), int(saved.facts["epoch"])
    drawn = _part(saved, RANDOM)
    state.generator.set_state(drawn["own"])
    torch.default_generator.set_state(drawn["cpu"])
    if "cuda" in drawn:
        torch.cuda.set_rng_state(drawn["cuda"], torch.device(device))


def _optimizer(state: State) -> dict[str, Tensor]:
    found = state.optimizer.state_dict()["state"]
    return {
        f"{OPTIMIZER}{number}.{name}": value
        for number, values in found.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def _random(state: State, device: torch.device) -> dict[str, Tensor]:
    found = {"own": state.generator.get_state(), "cpu": torch.default_generator.get_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return {f"{RANDOM}{name}": drawn for name, drawn in found.items()}


def _part(saved: Saved, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in saved.tensors.items() if name.startswith(prefix)}
