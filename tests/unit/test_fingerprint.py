from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import math
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from pytest_prunerob import compression
from pytest_prunerob.errors import KeyMaterialError
from pytest_prunerob.fingerprint import canonical, digest, fingerprint, sources, weights_digest
from pytest_prunerob.subjects import Model

SCALE = 1.0
Pair = namedtuple("Pair", ["a", "b"])


@dataclass(frozen=True)
class Setting:
    width: int = 8


def helper(x: Tensor) -> Tensor:
    return x * SCALE


class Net(nn.Module):
    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4, eps=1e-5)
        self.act = F.relu
        self.slope = 0.5
        self.sizes = (1, [2, {"k": 3}])
        self.table = np.arange(3.0)
        self.setting = Setting()
        self.register_buffer("hidden", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = helper(self.act(self.norm(self.conv(x))))
        return x.flatten(1) + self.factor


def made() -> Net:
    torch.manual_seed(0)
    return Net()


def silent_hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output + 1


class Shift:
    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0] + self.by,)


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    def act(x: Tensor) -> Tensor:
        return x * factor

    return act


# ---- canonical


def test_canonical_json_is_literal() -> None:
    value = {"b": [1, 1.0, True, None, "ε"], "a": (Fraction(8, 255), 0.1, -0.0, Fraction(1)), "n": math.nan}
    assert canonical(value) == '{"a":["8/255",0.1,-0.0,"1/1"],"b":[1,1.0,true,null,"\\u03b5"],"n":NaN}'
    assert canonical(np.float64(0.1)) == "0.1"
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert len({digest(v) for v in (1, 1.0, True, "1", [1], None, math.inf, -math.inf, math.nan)}) == 9


@pytest.mark.parametrize("value", [{1: 2}, {"a": {2}}, b"x", torch.zeros(1), np.float32(1), 1j, object()])
def test_other_key_material_raises(value: object) -> None:
    with pytest.raises(KeyMaterialError):
        canonical(value)


def test_endless_key_material_raises() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(KeyMaterialError, match="nested past 100 levels"):
        canonical(loop)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.fractions(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), PLAIN))
def test_the_order_of_a_dict_does_not_count(value: dict[str, object]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 47), st.integers(0, 7))
def test_each_bit_of_a_weight_counts(byte: int, bit: int) -> None:
    weight = torch.zeros(12)
    before = weights_digest({"w": weight})
    weight.view(torch.uint8)[byte] ^= 1 << bit
    assert weights_digest({"w": weight}) != before


# ---- what must change it


def _weight(net: Net) -> None:
    net.conv.weight.data.view(-1)[7] = torch.nextafter(net.conv.weight.data.view(-1)[7], torch.tensor(9.0))


def _swap_children(net: Net) -> None:
    net.norm = nn.BatchNorm2d(4, eps=1e-5, affine=False)


CHANGES: dict[str, Callable[[Net], object]] = {
    "one weight, one bit": _weight,
    "a buffer": lambda net: net.norm.running_mean.add_(1),  # type: ignore[union-attr]
    "a non-persistent buffer": lambda net: net.hidden.add_(1),  # type: ignore[operator]
    "dtype": lambda net: net.conv.half(),
    "activation": lambda net: setattr(net, "act", F.gelu),
    "torch activation": lambda net: setattr(net, "act", torch.tanh),
    "lambda": lambda net: setattr(net, "act", lambda x: x * 2),
    "partial": lambda net: setattr(net, "act", functools.partial(F.leaky_relu, negative_slope=0.2)),
    "captured number": lambda net: setattr(net, "act", scaled(2.0)),
    "float": lambda net: setattr(net, "slope", 0.5000001),
    "nested": lambda net: net.sizes[1][1].update(k=4),  # type: ignore[index,attr-defined]
    "array": lambda net: net.table.__setitem__(1, 7.0),
    "frozen dataclass": lambda net: setattr(net, "setting", Setting(9)),
    "ε of a layer": lambda net: setattr(net.norm, "eps", 1e-4),
    "a new submodule": lambda net: net.add_module("extra", nn.ReLU()),
    "another submodule": _swap_children,
    "hook": lambda net: net.conv.register_forward_hook(silent_hook),
    "pre-hook": lambda net: net.register_forward_pre_hook(Shift(0.1)),  # type: ignore[arg-type]
    "backward hook": lambda net: net.register_full_backward_hook(lambda *a: None),
    "parametrization": lambda net: parametrizations.weight_norm(net.conv),
    "pruning": lambda net: prune.l1_unstructured(net.conv, "weight", 0.5),
    "instance method": lambda net: setattr(net, "forward", functools.partial(Net.forward, net)),
    "unregistered module": lambda net: setattr(net, "spare", [nn.Linear(1, 1)]),
    "adapter": lambda net: None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_it(name: str) -> None:
    net = made()
    before = fingerprint(net)
    CHANGES[name](net)
    after: nn.Module = Model(net) if name == "adapter" else net
    assert fingerprint(after) != before


def test_near_misses_differ_from_each_other() -> None:
    def with_act(act: object) -> str:
        net = made()
        net.act = act  # type: ignore[assignment]
        return fingerprint(net)

    def with_hook(by: float) -> str:
        net = made()
        net.register_forward_pre_hook(Shift(by))  # type: ignore[arg-type]
        return fingerprint(net)

    up, down = (lambda x: x + 1), (lambda x: x - 1)
    acts = (
        up,
        down,
        scaled(1.0),
        scaled(2.0),
        functools.partial(F.elu, alpha=1.0),
        functools.partial(F.elu, alpha=2.0),
    )
    assert len({with_act(act) for act in acts}) == 6
    assert with_hook(0.1) != with_hook(0.2)
    assert with_hook(0.1) == with_hook(0.1)
    net = made()
    means = {
        fingerprint(Model(net, mean=m, std=s, logits=k))
        for m, s, k in ((0.5, 1, None), (0.4, 1, None), (0.5, 2, None), (0.5, 1, 0))
    }
    assert len(means) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("SCALE", 2.0), ("helper", lambda x: x), ("helper", F.relu)],
)
def test_what_forward_calls_counts(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    before = fingerprint(made())
    monkeypatch.setitem(globals(), name, value)
    assert fingerprint(made()) != before


def test_a_patched_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    net = made()
    before = fingerprint(net)
    with monkeypatch.context() as patch:
        patch.setattr(Net, "factor", 2.0)
        assert fingerprint(net) != before
    with monkeypatch.context() as patch:
        patch.setattr(Net, "forward", lambda self, x: x)
        assert fingerprint(net) != before
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda self, x: x)
        assert fingerprint(net) != before
    assert fingerprint(net) == before


SOURCE = """
import torch
from torch import nn
class Base(nn.Module):
    def forward(self, x):
        return torch.relu(x)
class Child(Base):
    pass
"""


def test_the_source_of_a_base_class_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(text: str, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location("prunerob_child", tmp_path / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "prunerob_child", module)
        spec.loader.exec_module(module)
        return fingerprint(module.Child())

    assert loaded(SOURCE, "one") == loaded(SOURCE, "copy")
    assert loaded(SOURCE, "one") != loaded(SOURCE.replace("relu", "tanh"), "two")
    twice = SOURCE + "\nif {}:\n    class Child(Base):\n        def forward(self, x): return -x"
    assert loaded(twice.format("1 > 2"), "never") != loaded(twice.format("2 > 1"), "always")


# ---- what must not


def test_copies_and_reloads_keep_it(tmp_path: Path) -> None:
    net = made()
    before = fingerprint(net)
    assert fingerprint(copy.deepcopy(net)) == before
    assert fingerprint(net.double().float()) == before
    assert fingerprint(net.eval()) == before
    for p in net.parameters():
        p.requires_grad_(False)
    net(torch.rand(2, 1, 8, 8))
    assert fingerprint(net) == before
    torch.save(net.state_dict(), tmp_path / "net.pt")
    fresh = Net()
    assert fingerprint(fresh) != before
    fresh.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert fingerprint(fresh) == before


@pytest.mark.parametrize("kind", ["prune", "weight_norm"])
def test_derived_weights_and_parametrizations_are_stable(kind: str) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)
        if kind == "prune":
            prune.l1_unstructured(layer, "weight", 0.5)
        else:
            parametrizations.weight_norm(layer)
        return layer.eval()

    layer = build()
    before = fingerprint(layer)
    assert before == fingerprint(build())
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    layer.load_state_dict({k: v + 1 for k, v in state.items()})
    assert fingerprint(layer) != before
    layer.load_state_dict(state)
    assert fingerprint(layer) == before
    layer(torch.rand(1, 4))
    assert fingerprint(layer) == before


def test_sharing_and_cycles_end() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.second = self.first
            self.third = nn.Linear(2, 2)
            self.third.weight = self.first.weight
            self.whole = [self]

    torch.manual_seed(0)
    net = Shared()
    assert fingerprint(net) == fingerprint(copy.deepcopy(net))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.int64, torch.bool, torch.float8_e4m3fn]
)
def test_every_dtype_has_bytes(dtype: torch.dtype) -> None:
    one = torch.tensor([1, 0, 1, 1], dtype=torch.float32).to(dtype)
    assert weights_digest({"w": one}) == weights_digest({"w": one.reshape(2, 2).t().t().reshape(4)})
    assert weights_digest({"w": one}) != weights_digest({"w": one.reshape(2, 2)})
    assert weights_digest({"w": one[:0]}) != weights_digest({"w": one[:0].float().double()})
    assert weights_digest({"w": one[0]}) != weights_digest({"w": one[1]})
    assert weights_digest({"w": one, "v": one[:1]}) == weights_digest({"v": one[:1], "w": one})


def test_views_and_conjugates_are_read_as_they_look() -> None:
    z = torch.tensor([[1 + 2j, 3 - 1j], [0j, 1j]])
    assert weights_digest({"w": z.conj()}) == weights_digest({"w": z.conj().clone().resolve_conj()})
    assert weights_digest({"w": z.t()}) == weights_digest({"w": z.t().contiguous()})
    assert weights_digest({"w": z.conj()}) != weights_digest({"w": z})


SCRIPT = """
import torch
from torch import nn
from prunerob_hashed import Net
from pytest_prunerob.fingerprint import fingerprint
torch.manual_seed(0)
print(fingerprint(Net()), end="")
"""
NET = """
from torch import nn
CHOICES = {"b", "a", "c"}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.kinds = {"relu", "tanh", "gelu", "silu"}
        self.act = lambda x: x if "a" in {"p", "q", "r", "s"} else -x
    def forward(self, x):
        return self.layer(x) if "a" in CHOICES else x
"""


def test_another_process_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prunerob_hashed.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    here = fingerprint(importlib.import_module("prunerob_hashed").Net())
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    there = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert there == here


def test_the_device_in_a_graph_does_not_count() -> None:
    class Ranged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(3, device=x.device)

    program = torch.export.export(Ranged(), (torch.rand(2, 3),))
    here, there = program.module(), program.module()
    for node in there.graph.nodes:
        if "device" in node.kwargs:
            node.update_kwarg("device", torch.device("cuda", 1))
    there.recompile()
    assert there.code != here.code
    assert fingerprint(there) == fingerprint(here)


# ---- what cannot be told


def test_an_attribute_of_unknown_content_raises() -> None:
    net = made()
    net.conv.rng = torch.Generator()  # type: ignore[assignment]
    with pytest.raises(KeyMaterialError) as caught:
        fingerprint(net)
    assert str(caught.value) == (
        "conv.rng is a torch._C.Generator, whose content cannot be told: make it a buffer, a submodule or a plain "
        "value (number, string, tuple, list, dict)"
    )


def test_a_class_without_source_raises() -> None:
    space: dict[str, object] = {"nn": nn, "__name__": "typed_in"}
    exec("class Typed(nn.Module):\n    pass", space)
    with pytest.raises(KeyMaterialError, match=r"the source of typed_in.Typed, used by the model, cannot be found"):
        fingerprint(space["Typed"]())  # type: ignore[operator]


def test_tensors_without_readable_bytes_raise() -> None:
    with pytest.raises(
        KeyMaterialError, match=r"the bytes of the model\.weight cannot be read \(Parameter, torch.float32"
    ):
        fingerprint(nn.ParameterDict({"weight": nn.Parameter(torch.empty(2, device="meta"))}))
    with pytest.raises(KeyMaterialError, match="state dict entry 'epoch' is a int, not a tensor"):
        weights_digest({"epoch": 3})  # type: ignore[dict-item]


def test_decorated_methods_and_plain_kinds_are_taken() -> None:
    class Decorated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kinds = [Pair(1, 2), slice(1, 2), 1j, b"x", range(3), torch.float16, torch.device("cpu"), {3, 4}, Net]
            self.size = torch.Size([1, 2])

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return x

        @property
        def twice(self) -> float:
            return 2 * SCALE

    assert fingerprint(Decorated()) == fingerprint(Decorated())


def test_the_sources_of_a_package_are_those_of_its_subpackages_too() -> None:
    root = Path(str(compression.__file__)).parent
    files = {f"pytest_prunerob.compression/{file.relative_to(root).as_posix()}" for file in root.rglob("*.py")}
    assert sources(compression).keys() == files
    assert "pytest_prunerob.compression/criteria/pls.py" in files
