"""Models as the user gives them: the adapter, and what identifies a subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor, nn

from pytest_prunerob.errors import ModelError
from pytest_prunerob.fingerprint import fingerprint, weights_digest

__all__ = ["LoadedSubject", "Model", "MultiExit", "as_logits", "is_exported", "plain_attributes", "prepare"]

EXPORT_HINT = 'export it with torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})'


class MultiExit(Protocol):
    """A network with several exits, as ``multi_exit_pgd`` attacks it; any nn.Module with this method is one."""

    def exits(self, x: Tensor) -> Sequence[Tensor]:
        """Logits (N, K) of every exit for ``x: (N, C, H, W)``, the earliest first and the last one last.

        The network is judged by its ``forward``, which may choose an exit for each input or give the last one's logits.
        """


class Model(nn.Module):
    """Adapter for a network that expects normalised input or returns a dict or a tuple.

    ``forward(x)`` with ``x: (N, C, ...)`` in [0, 1] computes ``module((x - mean) / std)`` and returns the logits
    ``(N, K)``.

    Args:
        module: the network.
        mean: one number, or one per channel; 0 if not given.
        std: one number, or one per channel, all positive; 1 if not given.
        logits: key (str) or index (int) of the logits in what ``module`` returns.
        accuracy: the clean accuracy that was stated for the network, a share in [0, 1] such as "0.943": claims about
            a model that is off it, beyond chance and the printed digits, are errors. It changes no measurement.
        twin: the float network that a quantised or binarised one was made from, which takes and returns what this
            model does. It is attacked when survival of this one is to count, and what breaks it is tried here.

    Raises:
        ModelError: a mean, std or accuracy that does not fit, or (when called) an output that holds no logits.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        mean: float | Sequence[float] | Tensor | None = None,
        std: float | Sequence[float] | Tensor | None = None,
        logits: str | int | None = None,
        accuracy: str | float | Fraction | None = None,
        twin: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ModelError(f"Model(...) wraps an nn.Module, not {kind_of(module)}")
        if not (logits is None or (isinstance(logits, str | int) and not isinstance(logits, bool))):
            raise ModelError(f"logits={logits!r}: give a key (str) or an index (int)")
        self.module = module
        self.logits = logits
        self.accuracy = None if accuracy is None else _declared(accuracy)
        if not (twin is None or isinstance(twin, nn.Module)):
            raise ModelError(f"twin={kind_of(twin)}: give the float network, an nn.Module")
        self.__dict__["twin"] = twin  # no part of this module: nothing of it is computed, hashed or counted with
        self.training = module.training
        self.register_buffer("mean", _per_channel("mean", 0.0 if mean is None else mean), persistent=False)
        self.register_buffer("std", _per_channel("std", 1.0 if std is None else std), persistent=False)
        if not bool((self.std > 0).all()):
            raise ModelError(f"std={_listed(self.std)}: every entry must be positive")
        if self.mean.ndim and self.std.ndim and len(self.mean) != len(self.std):
            raise ModelError(f"mean has {len(self.mean)} entries and std {len(self.std)}: give one per channel in both")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x: (N, C, ...)`` in [0, 1]."""
        # Not len(x): torch.export would take the batch for a constant.
        return as_logits(self.module(self._scaled(x)), logits=self.logits, samples=x.shape[0])

    @property
    def exits(self) -> Callable[[Tensor], list[Tensor]]:
        """The method ``exits(x)`` of the network on ``(x - mean) / std``, for :class:`MultiExit` networks.

        Raises:
            AttributeError: where the network has none, so that this adapter has none either.
        """
        inner = getattr(self.module, "exits", None)
        if not callable(inner) or isinstance(inner, nn.Module):
            raise AttributeError("the network has no method exits(x)")
        return self._exits

    def _exits(self, x: Tensor) -> list[Tensor]:
        # No assertion that it can be called: pytest rewrites those of plugins, and the source of this class is in keys.
        found: Sequence[Tensor] = self.module.exits(self._scaled(x))  # type: ignore[operator]
        return [as_logits(logits, samples=x.shape[0]) for logits in found]

    def train(self, mode: bool = True) -> Model:
        """Set the mode of the network; an exported graph has none and is left as it is."""
        self.training = mode
        if not is_exported(self.module):
            self.module.train(mode)
        return self

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"mean={_listed(self.mean)}, std={_listed(self.std)}, logits={self.logits!r}"

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self._along("mean", self.mean, x)) / self._along("std", self.std, x)

    def _along(self, name: str, value: Tensor, x: Tensor) -> Tensor:
        if value.ndim == 0:
            return value
        if x.ndim < 2 or x.shape[1] != len(value):
            raise ModelError(f"{name} has {len(value)} entries, the input is {tuple(x.shape)}: give one per channel")
        return value.view(-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class LoadedSubject:
    """A model in its role, on its device, with what identifies it.

    Attributes:
        role: ``"dense"``, ``"pruned"`` or another name that a report may show.
        module: the network, mapping inputs (N, C, H, W) in [0, 1] to logits (N, K).
        digest: fingerprint of everything that decides its outputs.
        weights: digest of the state dict (of the inner module, for a :class:`Model`).
        exported: whether an exported program is in it, whose train flag means nothing.
        accuracy: the clean accuracy stated for it, as the interval of its printed digits.
        twin: the float network it was made from, on the same device.
    """

    role: str
    module: nn.Module
    digest: str
    weights: str
    exported: bool
    accuracy: tuple[Fraction, Fraction] | None = None
    twin: nn.Module | None = None


def prepare(model: object, *, role: str, device: str) -> LoadedSubject:
    """Identify a model and move it, in place and otherwise untouched, to ``device``.

    The digests are taken before the move, so that no device can change them.

    Raises:
        ModelError: not an nn.Module, an exported program with a fixed batch, or a device that does not take it.
        KeyMaterialError: something in the model cannot be fingerprinted.
    """
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ModelError(f"the {role} model is the class {model.__name__}: give an instance of it")
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"the {role} model is {kind_of(model)}: give an nn.Module, a Model(...) or an exported program"
        )
    graphs = [part for part in model.modules() if is_exported(part)]
    for graph in graphs:
        check_batch(graph, f"the exported program of the {role} model")
    inner = model.module if isinstance(model, Model) else model
    subject = LoadedSubject(
        role=role,
        module=model,
        digest=fingerprint(model),
        weights=weights_digest(inner.state_dict()),
        exported=bool(graphs),
        accuracy=model.accuracy if isinstance(model, Model) else None,
        twin=vars(model)["twin"] if isinstance(model, Model) else None,
    )
    try:
        model.to(device)
        if subject.twin is not None:
            subject.twin.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"the {role} model cannot be moved to {device!r}: {first_line(error)}") from error
    for graph in graphs:
        _move_graph(graph, device)
    return subject


def is_exported(module: nn.Module) -> bool:
    """Whether ``module`` is the graph of an exported program: ATen operators, which keep no train mode."""
    return isinstance(module, torch.fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def plain_attributes(module: nn.Module) -> dict[str, object]:
    """The author's attributes of ``module`` and its parts that are numbers, strings or tuples of them, by full name."""
    found = {}
    for path, part in module.named_modules():
        if type(part).__module__.startswith(("torch.fx.", "torch.export.")):
            continue
        for name, value in vars(part).items():
            if name not in _OF_TORCH and _is_plain(value):
                found[f"{path}.{name}".lstrip(".")] = value
    return found


_OF_TORCH = frozenset(vars(nn.Module()))


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | complex | str | bytes | Fraction)


def as_logits(output: object, *, samples: int, logits: str | int | None = None) -> Tensor:
    """The logits (samples, K) in what a network returned: the output, or its entry ``logits``.

    Raises:
        ModelError: no such entry, or not a floating tensor of that shape.
    """
    if isinstance(output, Mapping):
        keys = ", ".join(map(repr, output))
        if logits is None:
            example = next(iter(output), "logits")
            raise ModelError(f"the model returns a dict with keys {keys}: say Model(..., logits={example!r})")
        if logits not in output:
            raise ModelError(f"logits={logits!r}: the model returns a dict with keys {keys}")
        output = output[logits]
    elif isinstance(output, tuple | list):
        size = len(output)
        if logits is None:
            raise ModelError(f"the model returns a {type(output).__name__} of {size}: say Model(..., logits=0)")
        if not isinstance(logits, int) or not -size <= logits < size:
            raise ModelError(f"logits={logits!r}: the model returns a {type(output).__name__} of {size}")
        output = output[logits]
    elif logits is not None:
        raise ModelError(f"logits={logits!r}: the model returns {kind_of(output)}, neither dict nor tuple")
    if not isinstance(output, Tensor):
        raise ModelError(f"the logits are {kind_of(output)}: they must be a floating tensor (N, K)")
    if output.ndim != 2 or output.shape[0] != samples or not output.is_floating_point():
        raise ModelError(
            f"the logits are {output.dtype} of shape {tuple(output.shape)}: they must be a floating tensor "
            f"(N, K) with N = {samples}"
        )
    return output


def check_batch(module: nn.Module, what: str) -> None:
    """Refuse a graph whose batch dimension is fixed or bounded: attacks call it with any number of samples."""
    assert isinstance(module, torch.fx.GraphModule)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or not isinstance(inputs[0].meta.get("val"), Tensor):
        raise ModelError(f"{what} takes {len(inputs)} inputs: it must take one tensor (N, C, H, W)")
    shape = inputs[0].meta["val"].shape
    if not shape or not isinstance(shape[0], torch.SymInt):
        size = shape[0] if shape else "no"
        raise ModelError(f"{what} has a fixed batch of {size}: {EXPORT_HINT}")
    ranges = getattr(module, "range_constraints", None) or {}
    limit = ranges.get(shape[0].node.expr)
    if limit is not None and str(limit.upper) != "int_oo":
        raise ModelError(f"{what} allows a batch of at most {limit.upper}: {EXPORT_HINT}")


def _move_graph(module: nn.Module, device: str) -> None:
    """Move what ``Module.to`` does not reach in a graph: constants kept as attributes, devices in calls."""
    assert isinstance(module, torch.fx.GraphModule)
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            setattr(module, name, value.to(device))
    changed = False
    for node in module.graph.nodes:
        if "device" in node.kwargs and node.kwargs["device"] != torch.device(device):
            node.update_kwarg("device", torch.device(device))
            changed = True
    if changed:
        module.recompile()


def _declared(value: object) -> tuple[Fraction, Fraction]:
    """The interval that a printed share stands for; floats drop zeros at their end, so two digits are the least."""
    text = str(value).strip()
    try:
        share = value if isinstance(value, Fraction) else Fraction(text)
        if isinstance(value, bool) or not 0 <= share <= 1:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ModelError(f"accuracy={value!r}: give a share in [0, 1], such as '0.943'") from None
    if isinstance(value, Fraction) or "/" in text or "e" in text.lower():
        return share, share
    half = Fraction(1, 2 * 10 ** max(2, len(text.partition(".")[2])))
    return max(Fraction(0), share - half), min(Fraction(1), share + half)


def _per_channel(name: str, value: float | Sequence[float] | Tensor) -> Tensor:
    try:
        numbers = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}={value!r}: give one number, or one per channel") from error
    if numbers.ndim > 1 or numbers.numel() == 0 or not bool(numbers.isfinite().all()):
        raise ModelError(f"{name}={numbers.tolist()!r}: give one finite number, or one per channel")
    return numbers


def _listed(value: Tensor) -> str:
    return str(value.tolist())


def kind_of(value: object) -> str:
    """What ``value`` is, in words."""
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace(" builtins.", " ")


def form_of(value: Tensor) -> str:
    """Type and shape of a tensor, in words."""
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
