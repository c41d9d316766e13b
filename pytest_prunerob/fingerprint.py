"""What decides a result, as a SHA-256: key material, modules and weights (design 4.2).

A digest changes with every weight, buffer, setting or line of source that can change an output, and with nothing else:
not with the device, the process, its hash seed or the addresses of objects. What cannot be described this way raises
:class:`KeyMaterialError`, because a result stored under an incomplete key would be a wrong answer later.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import json
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pytest_prunerob.errors import KeyMaterialError

__all__ = ["canonical", "digest", "fingerprint", "sources", "weights_digest"]

# What every module carries for torch's own use; hooks among it are described on their own.
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_DEVICE = re.compile(r"device\(type='[a-z]+'(, index=\d+)?\)")
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
_DEPTH = 100
_ADAPTER = "pytest_prunerob.subjects.Model"
# Objects of torch whose instance attributes are all there is to them: pruning hooks, no_grad and autocast decorators.
_TOLD_BY_ATTRIBUTES = ("torch.nn.utils.", "torch.autograd.grad_mode", "torch.amp.autocast_mode")


def canonical(value: object) -> str:
    """Canonical JSON of key material: str, int, bool, None, float, Fraction ("a/b"), list, tuple, dict with str keys.

    Raises:
        KeyMaterialError: any other type, or nesting past 100 levels.
    """
    return json.dumps(_plain(value, 0), sort_keys=True, separators=(",", ":"))


def digest(value: object) -> str:
    """SHA-256 (hex) of :func:`canonical`."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 (hex) of everything in ``module`` that decides its outputs in evaluation mode.

    That is: names, dtypes, shapes and bytes of all parameters and buffers (non-persistent ones too), submodules with
    class, source, ``extra_repr`` and plain attributes, hooks and parametrizations; for an exported program its graph.
    Classes of torch count by name and torch version.

    Raises:
        KeyMaterialError: an attribute whose content cannot be told, or a class without source.
    """
    return digest(_module(module, "", _Walk()))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the sorted names, dtypes, shapes and bytes of a state dict.

    Raises:
        KeyMaterialError: an entry that is no tensor.
    """
    entries = []
    for name in sorted(state):
        if not isinstance(state[name], Tensor):
            kind = type(state[name]).__name__
            raise KeyMaterialError(f"state dict entry {name!r} is a {kind}, not a tensor")
        entries.append([name, _tensor(state[name], f"state dict entry {name!r}")])
    return digest(entries)


def _plain(value: object, depth: int) -> object:
    if depth > _DEPTH:
        raise KeyMaterialError(f"key material is nested past {_DEPTH} levels")
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case Fraction():
            return f"{value.numerator}/{value.denominator}"
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case dict():
            for key in value:
                if not isinstance(key, str):
                    raise KeyMaterialError(f"key material has the dict key {key!r}: keys are str")
            return {key: _plain(item, depth + 1) for key, item in value.items()}
    raise KeyMaterialError(
        f"key material of type {type(value).__name__}: allowed are str, int, bool, None, float, Fraction, list, "
        "tuple and dict with str keys"
    )


@dataclasses.dataclass(frozen=True)
class _Walk:
    """What one fingerprint has already described, by id: a second meeting is told by its first place."""

    modules: dict[int, str] = dataclasses.field(default_factory=dict)
    code: dict[int, str] = dataclasses.field(default_factory=dict)


def _module(module: nn.Module, path: str, walk: _Walk) -> object:
    if id(module) in walk.modules:
        return {"same module as": walk.modules[id(module)]}
    walk.modules[id(module)] = path
    here = path or "the model"
    try:
        extra = _ADDRESS.sub("at 0x", module.extra_repr())
    except Exception as error:
        raise KeyMaterialError(f"extra_repr() of {here} raises {error!r}: mend or remove it") from error
    children = ((name, child) for name, child in module._modules.items() if child is not None)
    return {
        "class": _class(type(module), here, walk),
        "extra_repr": extra,
        "parameters": _tensors(module._parameters, here),
        "buffers": _tensors(module._buffers, here),
        "attributes": [[name, _value(v, f"{here}.{name}", walk)] for name, v in _attributes(module)],
        "graph": _graph(module, here, walk) if isinstance(module, torch.fx.GraphModule) else None,
        "hooks": [
            [kind, [_hook(hook, f"a hook of {here}", walk) for hook in hooks.values()]]
            for kind in _HOOKS
            if (hooks := getattr(module, kind, None))
        ],
        "children": [[name, _module(c, f"{path}.{name}".lstrip("."), walk)] for name, c in children],
    }


def _attributes(module: nn.Module) -> Iterator[tuple[str, object]]:
    """The instance attributes that are the author's, sorted by name."""
    if type(module).__module__.startswith(("torch.fx.", "torch.export.")):
        return
    # torch.nn.utils.prune and weight_norm recompute the tensor from parameters and buffers before each forward; until
    # then the attribute is stale.
    derived = {
        getattr(hook, "_tensor_name", getattr(hook, "name", None))
        for hook in module._forward_pre_hooks.values()
        if type(hook).__module__.startswith("torch.nn.utils.")
    }
    # Stated about a model by the adapter, which does not compute with it.
    adapter = f"{type(module).__module__}.{type(module).__qualname__}" == _ADAPTER
    stated = ("accuracy", "twin") if adapter else ()
    for name in sorted(vars(module)):
        if name not in _BOOKKEEPING and name not in derived and name not in stated:
            yield name, vars(module)[name]


def _graph(module: torch.fx.GraphModule, here: str, walk: _Walk) -> object:
    """The text of a graph, without devices, and what the text only names: tensors and functions of the author."""
    named: dict[str, object] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and isinstance(vars(module).get(str(node.target)), Tensor):
            named[str(node.target)] = _value(vars(module)[str(node.target)], f"{here}.{node.target}", walk)
        if node.op == "call_function" and isinstance(node.target, types.FunctionType):
            named[node.name] = _function(node.target, f"{here}.{node.name}", walk)
    return [_DEVICE.sub("device", module.code), named]


def _tensors(named: Mapping[str, Tensor | None], here: str) -> object:
    return [[k, None if t is None else _tensor(t, f"{here}.{k}")] for k, t in sorted(named.items())]


def _tensor(tensor: Tensor, where: str) -> object:
    """Dtype, shape and SHA-256 of the bytes of a tensor in C order."""
    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        raw = plain.reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise KeyMaterialError(
            f"the bytes of {where} cannot be read ({type(tensor).__name__}, {tensor.dtype}, {tensor.layout}, on "
            f"{tensor.device}): give a dense tensor that has its data"
        ) from error
    sha = hashlib.sha256(raw.data).hexdigest()
    return {"tensor": [str(tensor.dtype), list(tensor.shape), sha]}


def _value(value: object, where: str, walk: _Walk, depth: int = 0) -> object:
    """Content of an attribute as key material; each kind has its own tag, so that no two kinds collide."""
    if depth > _DEPTH:
        raise KeyMaterialError(f"{where} is nested past {_DEPTH} levels")

    def inner(item: object) -> object:
        return _value(item, where, walk, depth + 1)

    match value:
        case enum.Enum():
            return {"enum": [_class(type(value), where, walk), value.name]}
        case None | bool() | int() | float() | str():
            return value
        case Fraction() | complex() | bytes() | range() | np.dtype():
            return {type(value).__name__: repr(value)}
        case torch.dtype() | torch.layout() | torch.memory_format():
            return {"torch": str(value)}
        case torch.device():
            return {"torch": "device"}
        case slice():
            return {"slice": [inner(value.start), inner(value.stop), inner(value.step)]}
        case Tensor():
            return _tensor(value, where)
        case np.ndarray() | np.generic():
            return _array(np.asarray(value), where)
        case list() | tuple():
            return {type(value).__qualname__: [inner(item) for item in value]}
        case set() | frozenset():
            return {"set": sorted((inner(item) for item in value), key=canonical)}
        case dict() | types.MappingProxyType():
            return {"dict": [[inner(key), inner(item)] for key, item in value.items()]}
        case nn.Module():
            return _module(value, where, walk)
        case functools.partial():
            return {"partial": [inner(value.func), inner(value.args), inner(value.keywords)]}
        case type():
            return {"class": _class(value, where, walk)}
        case types.MethodType():
            return {"method": [inner(value.__func__), inner(value.__self__)]}
        case types.FunctionType():
            return _function(value, where, walk)
    name = _library_name(value)
    if name is not None:
        return {"function": name}
    if dataclasses.is_dataclass(value) or type(value).__module__.startswith(_TOLD_BY_ATTRIBUTES):
        return _instance(value, where, walk, depth)
    raise KeyMaterialError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, whose content cannot be told: make it a "
        "buffer, a submodule or a plain value (number, string, tuple, list, dict)"
    )


def _array(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], where: str) -> object:
    if array.dtype.hasobject:
        raise KeyMaterialError(f"{where} is a numpy array of Python objects: use numbers")
    data = np.ascontiguousarray(array).tobytes()
    return {"array": [array.dtype.str, list(array.shape), hashlib.sha256(data).hexdigest()]}


def _instance(value: object, where: str, walk: _Walk, depth: int) -> object:
    fields = [[k, _value(v, f"{where}.{k}", walk, depth + 1)] for k, v in sorted(vars(value).items())]
    return {"object": [_class(type(value), where, walk), fields]}


def _hook(hook: object, where: str, walk: _Walk) -> object:
    if isinstance(hook, types.FunctionType | types.MethodType | functools.partial | nn.Module):
        return _value(hook, where, walk)
    if _library_name(hook) is not None or not hasattr(hook, "__dict__"):
        return _value(hook, where, walk)
    return _instance(hook, where, walk, 0)


def _library(module: str | None) -> str | None:
    """The library that owns ``module``, with its version, if its code is told by name and not by source."""
    top = (module or "").partition(".")[0]
    if top == "torch":
        return f"torch {torch.__version__.partition('+')[0]}"  # a CPU and a CUDA build share their results
    if top == "numpy":
        return f"numpy {np.__version__}"
    if top == "builtins" or top in sys.stdlib_module_names:
        file = getattr(sys.modules.get(top), "__file__", None)
        # A user's module may carry a name of the standard library ("test", "types").
        if file is None or Path(file).is_relative_to(_STDLIB):
            return "python"
    return None


def _library_name(value: object) -> str | None:
    """Qualified name of a built-in function or an operator of torch or numpy, None for everything else."""
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return str(value)
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    builtin = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
    if not isinstance(value, builtin):
        return None
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, type | types.ModuleType):
        return None
    module = getattr(value, "__module__", None) or getattr(value, "__objclass__", type(None)).__module__
    return f"{module}.{value.__qualname__}"


def _class(cls: type, where: str, walk: _Walk) -> object:
    """Qualified name of a class, with source of all that is not a library's in its line of inheritance."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    if id(cls) in walk.code:
        return name
    walk.code[id(cls)] = name
    line: list[object] = [name]
    for base in cls.__mro__:
        library = _library(base.__module__)
        try:
            line.append(library or inspect.getsource(base))
        except (OSError, TypeError) as error:
            raise KeyMaterialError(
                f"the source of {base.__module__}.{base.__qualname__}, used by {where}, cannot be found: define it in "
                "a file that is imported, not in an interactive session or by exec"
            ) from error
        if base.__module__ == "torch.fx.graph_module":  # generated from the graph, which is told by its text
            continue
        for attribute, member in sorted(vars(base).items(), key=lambda item: item[0]):
            function = _underlying(member)
            if function is None and not library and not attribute.startswith("__"):
                line.extend(_global(attribute, member, frozenset(), walk))
            if function is None or (_library(function.__module__) and library):
                continue
            # The source of the class has not all: a method may come from elsewhere, and what it calls does.
            line.append([attribute, _function(function, f"{where}.{attribute}", walk)])
    return line


def _underlying(member: object) -> types.FunctionType | None:
    """The function behind a method, static or class method, property or decorated function."""
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if isinstance(member, property):
        member = member.fget
    return member if isinstance(member, types.FunctionType) else None


def _function(function: types.FunctionType, where: str, walk: _Walk) -> object:
    name = f"{function.__module__}.{function.__qualname__}"
    library = _library(function.__module__)
    if library:
        return {"function": [name, library]}
    if id(function) in walk.code:
        return {"function": name}
    walk.code[id(function)] = name
    lines: list[object] = [name]
    try:
        lines.append(inspect.getsource(function))
    except (OSError, TypeError):  # generated, as the methods of a dataclass are
        lines.append(_bytecode(function.__code__))
    if function.__name__ == "<lambda>":  # two lambdas on a line have one source
        lines.append(_bytecode(function.__code__))
    lines.append(_value(function.__defaults__, f"a default of {where}", walk))
    lines.append(_value(function.__kwdefaults__, f"a default of {where}", walk))
    lines.append(_references(function, where, walk))
    return {"function": lines}


def _bytecode(code: types.CodeType) -> list[object]:
    constants: list[object] = []
    for constant in code.co_consts:
        match constant:
            case types.CodeType():
                constants.append(_bytecode(constant))
            case frozenset():
                constants.append(sorted(map(repr, constant)))  # its own order hangs on the hash seed
            case _:
                constants.append(repr(constant))
    return [code.co_code.hex(), list(code.co_names), constants]


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


@functools.cache
def _names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Names that ``code`` looks up as globals, and all names in it (attributes of modules are among them)."""
    loads = frozenset(
        step.argval
        for part in _nested(code)
        for step in dis.get_instructions(part)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    )
    return loads, frozenset(name for part in _nested(code) for name in part.co_names)


def _references(function: types.FunctionType, where: str, walk: _Walk) -> object:
    """What a function reads from outside: captured variables, and globals that are code or content."""
    found: list[object] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__":
            found.append([name, _value(cell.cell_contents, f"{name}, captured by {where},", walk)])
    loads, names = _names(function.__code__)
    for name in sorted(loads & function.__globals__.keys()):
        found.extend(_global(name, function.__globals__[name], names, walk))
    return found


def _global(name: str, value: object, names: frozenset[str], walk: _Walk) -> Sequence[object]:
    """A global by content where that can be told, else by type: loggers and caches do not decide an output."""
    if isinstance(value, types.ModuleType):
        if _library(value.__name__):
            return []
        inside = [(n, vars(value)[n]) for n in sorted(names & vars(value).keys())]
        code = [(n, v) for n, v in inside if not isinstance(v, types.ModuleType)]
        return [entry for n, v in code for entry in _global(f"{name}.{n}", v, names, walk)]
    trial = _Walk(dict(walk.modules), dict(walk.code))
    try:
        entry = [name, _value(value, f"the global {name}", trial)]
    except KeyMaterialError:
        return [[name, f"{type(value).__module__}.{type(value).__qualname__}"]]
    walk.modules.update(trial.modules)
    walk.code.update(trial.code)
    return [entry]


@functools.cache
def sources(*modules: types.ModuleType) -> Mapping[str, str]:
    """Digests of the files that define ``modules``; those of a whole package with its subpackages for a package.

    Read once: what runs is what was imported, whatever becomes of the files meanwhile.
    """
    found = {}
    for module in modules:
        path = Path(str(module.__file__))
        for file in sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]:
            found[f"{module.__name__}/{file.relative_to(path.parent).as_posix()}"] = hashlib.sha256(
                file.read_bytes()
            ).hexdigest()
    return found
