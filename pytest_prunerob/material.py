"""What the key of a measurement is made of: everything that decides its outcomes (design 4.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

import torch
from torch import nn

from pytest_prunerob import attacks, corruptions, engine, oracle, randomness, votes
from pytest_prunerob.attacks import ATTACKS
from pytest_prunerob.datasets import Dataset
from pytest_prunerob.engine import Engine
from pytest_prunerob.fingerprint import digest, sources, weights_digest
from pytest_prunerob.plans import Plan
from pytest_prunerob.subjects import LoadedSubject, is_exported

version = cache(metadata.version)  # reads a file each time, and every key asks


def key_material(kind: str, plan: Plan | None, loaded: LoadedSubject, data: Dataset, used: Engine) -> dict[str, Any]:
    """The key material; forward chunk, worker and device are provenance and no part of it.

    Only where votes judge is the kind of device one: the same seed draws one thing on a CPU and another on a GPU.
    """
    libraries = {ATTACKS[stage.attack].library for stage in plan.stages} if plan else set()
    voted = kind == "voted" or (plan is not None and plan.randomised)
    return {
        "kind": kind,
        "subject": loaded.digest,
        "training": list(training(loaded.module)),
        "dataset": data.digest,
        "plan": plan.material() if plan else None,
        "sources": _source_of_attacks() if plan or voted else {},
        "versions": {name: version(name) for name in sorted({"torch", *libraries})},
        "seed": used.seed,
        "precision": precision(),
        **({"draws": used.device.partition(":")[0]} if voted else {}),
    }


def precision() -> dict[str, str | bool]:
    """The flags of torch that decide how exactly it computes."""
    return {
        "default_dtype": str(torch.get_default_dtype()),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn_tf32": bool(torch.backends.cudnn.allow_tf32),
        "deterministic": bool(torch.are_deterministic_algorithms_enabled()),
    }


def training(module: nn.Module) -> tuple[str, ...]:
    """The parts in train mode, which no fingerprint tells: they make another function of the same weights."""
    return tuple(name for name, part in module.named_modules() if part.training and not is_exported(part))


def state(module: nn.Module) -> str:
    """What a test can change of a module that it holds: parameters, buffers, train mode."""
    tensors = dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])
    return digest([weights_digest(tensors), list(training(module))])


def made_of(content: Mapping[str, Any], material: Mapping[str, Any]) -> bool:
    """Whether a manifest names the key material ``material``: a key alone could be anybody's."""
    return all(content.get(name) == value for name, value in json.loads(json.dumps(material)).items())


def _source_of_attacks() -> Mapping[str, str]:
    # Defaults that no plan names are in these files, and so is the rule of what counts as a witness.
    return sources(attacks, corruptions, engine, oracle, randomness, votes)
