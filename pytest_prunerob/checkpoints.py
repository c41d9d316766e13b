"""Where models come from: a callable, an exported program, a state dict in a file. Nothing is ever unpickled."""

from __future__ import annotations

import difflib
import importlib
import io
import json
import pickle
import pkgutil
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pytest_prunerob.errors import ModelError
from pytest_prunerob.subjects import EXPORT_HINT, check_batch, first_line, form_of, kind_of


def load_reference(ref: str, *, root: Path | None = None) -> nn.Module:
    """The model that ``"pkg.mod:callable"`` returns or that an exported program ``"path.pt2"`` holds.

    Both are programs: their code runs, so refer only to what you would run. Pickles inside a ``.pt2`` are refused.

    Args:
        ref: the reference.
        root: folder that a relative path starts from; the current one if not given.

    Raises:
        ModelError: the reference does not lead to a model.
    """
    suffix = Path(ref).suffix
    if suffix == ".pt2":
        return _load_program(_existing(Path(root or ".") / ref))
    if suffix in (".pt", ".pth", ".safetensors"):
        path = _existing(Path(root or ".") / ref)
        _refuse_torchscript(path)
        raise ModelError(
            f"{ref!r} holds weights, not a network: write a function that builds the network and returns "
            "load_state(network, path), and refer to it as 'pkg.mod:function'"
        )
    name, colon, attribute = ref.partition(":")
    if not colon or not name or not attribute:
        raise ModelError(f"model reference {ref!r}: allowed are 'pkg.mod:callable' and a path ending in .pt2")
    target: object = _import(name, ref)
    for part in attribute.split("."):
        if not hasattr(target, part):
            hint = _nearest(part, (n for n in dir(target) if not n.startswith("_")))
            raise ModelError(f"model reference {ref!r}: {name} has no {part!r}{hint}")
        target = getattr(target, part)
    if isinstance(target, nn.Module) or not callable(target):
        raise ModelError(
            f"model reference {ref!r} is {kind_of(target)}: it must be a callable that returns an nn.Module"
        )
    try:
        model = target()
    except Exception as error:
        raise ModelError(f"model reference {ref!r} raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model reference {ref!r} returned {kind_of(model)}: it must return an nn.Module")
    return model


def load_state(module: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict into ``module``, strictly, and return the module in evaluation mode.

    Raises:
        ModelError: see :func:`read_state`; or keys, shapes or dtypes that are not exactly the module's.
    """
    state = read_state(path)
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    wrong = [
        f"{k} is {form_of(state[k])}, the model's {form_of(own[k])}"
        for k in own
        if k in state and (own[k].shape != state[k].shape or own[k].dtype != state[k].dtype)
    ]
    if wrong:
        raise ModelError(f"{path} does not fit the model: {_few(wrong)}")
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        missing = [k for k in module.state_dict() if k not in state]
        extra = [k for k in state if k not in module.state_dict()]
        parts = [f"missing {_few(missing)}"] * bool(missing) + [f"unexpected {_few(extra)}"] * bool(extra)
        raise ModelError(f"{path} does not fit the model: {'; '.join(parts) or first_line(error)}") from error
    return module.eval()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors``, ``.pt`` or ``.pth`` file, on the CPU; nothing in it is executed.

    A file that wraps it as ``{"state_dict": ...}`` or ``{"model": ...}`` is accepted.

    Raises:
        ModelError: no such file, another format, a pickle of anything but tensors, or no state dict in it.
    """
    file = _existing(Path(path))
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file, device="cpu")
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is no readable safetensors file: {first_line(error)}") from error
    if file.suffix not in (".pt", ".pth"):
        raise ModelError(f"{path}: a state dict ends in .safetensors, .pt or .pth, not {file.suffix!r}")
    _refuse_torchscript(file)
    try:
        content = _tensors_only(file)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds Python objects besides tensors, and loading those could run code: save "
            "model.state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # torch's reader meets a damaged file with whatever its next step raises
        raise ModelError(f"{path} is no readable torch file: {first_line(error)}") from error
    return _unwrap(content, path)


def _tensors_only(file: Path | io.BytesIO) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a remark on the pickle protocol must not hide what is wrong
        return torch.load(file, weights_only=True, map_location="cpu")


def _unwrap(content: object, path: str | Path) -> dict[str, Tensor]:
    if _is_state(content):
        return content  # type: ignore[return-value]
    if isinstance(content, Mapping):
        for key in ("state_dict", "model"):
            if _is_state(content.get(key)):
                return content[key]  # type: ignore[no-any-return]
        held = f"a dict with keys {_few([repr(k) for k in content])}"
    else:
        held = kind_of(content)
    raise ModelError(f"{path} holds {held}: a state dict is expected, alone or under 'state_dict' or 'model'")


def _is_state(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _load_program(path: Path) -> nn.Module:
    try:
        held = _pickles(path)
    except Exception as error:
        raise ModelError(f"{path} is no readable exported program: {first_line(error)}") from error
    if held:
        raise ModelError(
            f"{path} holds pickled objects ({_few(held)}), which could run code: export plain tensors only"
        )
    try:
        module = torch.export.load(path).module()
    except Exception as error:
        raise ModelError(f"{path} is no readable exported program: {first_line(error)}") from error
    check_batch(module, str(path))
    return module


def _pickles(path: Path) -> list[str]:
    """What torch.export.load would unpickle without its own check: it falls back to that for all but plain tensors."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [name for name in set(names) if names.count(name) > 1]
        if not any(name.endswith("/archive_format") for name in names):
            found.append("archive of an older format")
        for name in names:
            if name.endswith("_config.json"):
                payloads = json.loads(archive.read(name))["config"].values()
                found += [
                    p["path_name"]
                    for p in payloads
                    if p["use_pickle"] or not p["path_name"].startswith(("weight_", "tensor_"))
                ]
            elif name.endswith(".pt") and archive.getinfo(name).file_size:
                try:
                    _tensors_only(io.BytesIO(archive.read(name)))
                except Exception:  # what the checked reader does not take, the unchecked one would run
                    found.append(name)
    return found


def _import(name: str, ref: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ModelError(f"model reference {ref!r}: importing {name} failed: {error}") from error
        parent, _, last = error.name.rpartition(".")
        paths = getattr(importlib.import_module(parent), "__path__", []) if parent else None
        hint = _nearest(last, (found.name for found in pkgutil.iter_modules(paths)))
        raise ModelError(f"model reference {ref!r}: there is no module {error.name!r}{hint}") from error
    except Exception as error:
        raise ModelError(
            f"model reference {ref!r}: importing {name} raised {type(error).__name__}: {first_line(error)}"
        ) from error


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    names = (p.name for p in path.parent.iterdir()) if path.parent.is_dir() else iter(())
    raise ModelError(f"there is no file {str(path)!r}{_nearest(path.name, names)}")


def _refuse_torchscript(path: Path) -> None:
    if path.suffix == ".safetensors":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # no archive, or a damaged one: the reader that follows says so
        return
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(f"{path} is a TorchScript archive, which is not supported: {EXPORT_HINT}")


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _nearest(name: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(set(allowed)), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
