from __future__ import annotations

import ast
import inspect
import io
import json
import pickle
import zipfile
from fractions import Fraction
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pytest_prunerob.checkpoints import load_reference, load_state, read_state
from pytest_prunerob.errors import ModelError
from pytest_prunerob.fingerprint import weights_digest
from pytest_prunerob.subjects import Model, is_exported, plain_attributes, prepare


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(8, 3)
        self.shift = torch.tensor([0.0, 1.0, 2.0])

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.head(h) + self.shift + torch.arange(3, device=x.device)


class Returns(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


def export(path: Path, batch: object, *, dim: object = None) -> Path:
    torch.manual_seed(0)
    shapes = {"x": {0: dim or torch.export.Dim("batch")}} if batch == "dynamic" else None
    torch.export.save(torch.export.export(Net().eval(), (torch.rand(2, 1, 4, 4),), dynamic_shapes=shapes), path)
    return path


# ---- the adapter


def test_the_adapter_normalises_and_selects() -> None:
    x = torch.rand(2, 3, 2, 2)
    model = Model(nn.Flatten(), mean=[0.5, 0.25, 0.0], std=(0.5, 1.0, 2.0))
    assert torch.equal(model(x), torch.stack([(x[:, 0] - 0.5) / 0.5, x[:, 1] - 0.25, x[:, 2] / 2], dim=1).flatten(1))
    assert torch.equal(Model(nn.Flatten(), mean=0.5)(x), (x - 0.5).flatten(1))
    logits = torch.rand(2, 4)
    assert Model(Returns({"aux": 1, "out": logits}), logits="out")(x) is logits
    assert Model(Returns((1, logits)), logits=-1)(x) is logits
    assert list(model.state_dict()) == []


def test_the_adapter_asserts_nothing() -> None:
    """pytest rewrites the assertions of plugins, and its fingerprint would be another one outside of pytest."""
    tree = ast.parse(inspect.getsource(Model))
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"std": [1.0, 0.0]}, "std=[1.0, 0.0]: every entry must be positive"),
        ({"std": -1}, "std=-1.0: every entry must be positive"),
        ({"mean": [0.1, 0.2], "std": [1.0]}, "mean has 2 entries and std 1: give one per channel in both"),
        ({"mean": float("nan")}, "mean=nan: give one finite number, or one per channel"),
        ({"mean": []}, "mean=[]: give one finite number, or one per channel"),
        ({"mean": "imagenet"}, "mean='imagenet': give one number, or one per channel"),
        ({"logits": True}, "logits=True: give a key (str) or an index (int)"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        Model(nn.Flatten(), **settings)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Model(nn.Flatten(), mean=[0.5, 0.5]), "mean has 2 entries, the input is (2, 3, 2, 2): give one per channel"),
        (
            Model(Returns({"out": 1, "aux": 2})),
            "the model returns a dict with keys 'out', 'aux': say Model(..., logits='out')",
        ),
        (Model(Returns((1, 2))), "the model returns a tuple of 2: say Model(..., logits=0)"),
        (Model(Returns({"out": 1}), logits="ou"), "logits='ou': the model returns a dict with keys 'out'"),
        (Model(Returns([1]), logits=1), "logits=1: the model returns a list of 1"),
        (Model(Returns((1,)), logits="out"), "logits='out': the model returns a tuple of 1"),
        (Model(nn.Flatten(), logits=0), "logits=0: the model returns a torch.Tensor, neither dict nor tuple"),
        (Model(Returns(None)), "the logits are a NoneType: they must be a floating tensor (N, K)"),
        (
            Model(nn.Identity()),
            "the logits are torch.float32 of shape (2, 3, 2, 2): they must be a floating tensor (N, K) with N = 2",
        ),
        (
            Model(Returns(torch.zeros(2, 3, dtype=torch.int64))),
            "the logits are torch.int64 of shape (2, 3): they must be a floating tensor (N, K) with N = 2",
        ),
    ],
)
def test_an_output_without_logits_is_described(model: Model, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        model(torch.rand(2, 3, 2, 2))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("accuracy", "interval"),
    [
        ("0.943", ("0.9425", "0.9435")),
        ("0.9430", ("0.94295", "0.94305")),
        (0.9, ("0.895", "0.905")),
        ("1", ("0.995", "1")),
        (1, ("0.995", "1")),
        (0.0, ("0", "0.005")),
        ("9/10", ("0.9", "0.9")),
        (Fraction(1, 3), ("1/3", "1/3")),
        (1e-5, ("0.00001", "0.00001")),
    ],
)
def test_a_stated_accuracy_is_known_up_to_its_digits(accuracy: object, interval: tuple[str, str]) -> None:
    model = Model(nn.Flatten(), accuracy=accuracy)  # type: ignore[arg-type]
    subject = prepare(model, role="pruned", device="cpu")
    assert subject.accuracy == model.accuracy == (Fraction(interval[0]), Fraction(interval[1]))


@pytest.mark.parametrize("accuracy", [94.3, "94.3%", "-0.1", True, float("nan"), "1/0", "", [0.9]])
def test_a_stated_accuracy_is_a_share(accuracy: object) -> None:
    with pytest.raises(ModelError) as caught:
        Model(nn.Flatten(), accuracy=accuracy)  # type: ignore[arg-type]
    assert str(caught.value) == f"accuracy={accuracy!r}: give a share in [0, 1], such as '0.943'"


def test_a_stated_accuracy_is_no_part_of_the_model() -> None:
    class Own(Model):
        pass

    plain, stated = (prepare(Model(nn.Flatten(), accuracy=a), role="pruned", device="cpu") for a in (None, "0.9"))
    assert plain.digest == stated.digest
    assert plain.accuracy is None
    own = [prepare(Own(nn.Flatten(), accuracy=a), role="pruned", device="cpu").digest for a in (None, "0.9")]
    assert own[0] != own[1]  # an own class may compute with it


def test_plain_attributes_are_the_authors() -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Dropout(0.5)
            self.temperature, self.name, self.sizes, self.on = 2.0, "a", (1, (2, 3)), True
            self.items, self.none, self.tensor, self.mixed = [1], None, torch.zeros(1), (1, [2])

    assert plain_attributes(Tempered()) == {
        "temperature": 2.0, "name": "a", "sizes": (1, (2, 3)), "on": True, "inner.p": 0.5, "inner.inplace": False,
    }  # fmt: skip
    program = torch.export.export(nn.Flatten(), (torch.zeros(2, 1, 2, 2),)).module()
    assert plain_attributes(program) == {}


# ---- references


REFERENCED = """
from torch import nn
made = nn.Linear(1, 2)
number = 3
class Zoo:
    @staticmethod
    def small(): return nn.Linear(3, 2)
def build(): return nn.Linear(2, 2)
def listed(): return [1]
def broken(): return {}["weights"]
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prunerob_zoo.py").write_text(REFERENCED)
    (tmp_path / "prunerob_halfzoo.py").write_text("import prunerob_no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("zoo")
def test_a_reference_is_imported_and_called() -> None:
    assert load_reference("prunerob_zoo:build").in_features == 2
    assert load_reference("prunerob_zoo:Zoo.small").in_features == 3


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        (
            "prunerob_zoo:biuld",
            "model reference 'prunerob_zoo:biuld': prunerob_zoo has no 'biuld'; did you mean 'build'?",
        ),
        ("prunerob_zo:build", "there is no module 'prunerob_zo'; did you mean 'prunerob_zoo'?"),
        ("prunerob_halfzoo:build", "importing prunerob_halfzoo failed: No module named 'prunerob_no_such_dependency'"),
        ("prunerob_zoo:number", "'prunerob_zoo:number' is a int: it must be a callable that returns an nn.Module"),
        ("prunerob_zoo:made", "'prunerob_zoo:made' is a torch.nn.modules.linear.Linear: it must be a callable"),
        ("prunerob_zoo:listed", "'prunerob_zoo:listed' returned a list: it must return an nn.Module"),
        ("prunerob_zoo:broken", "model reference 'prunerob_zoo:broken' raised KeyError: 'weights'"),
        ("prunerob_zoo", "model reference 'prunerob_zoo': allowed are 'pkg.mod:callable' and a path ending in .pt2"),
        ("nothing.pt2", "there is no file"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong(ref: str, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_reference(ref)
    assert sentence in str(caught.value)


# ---- exported programs


def test_an_exported_program_loads_and_is_prepared(tmp_path: Path) -> None:
    export(tmp_path / "net.pt2", "dynamic")
    module = load_reference("net.pt2", root=tmp_path)
    assert is_exported(module)
    assert module(torch.rand(5, 1, 4, 4)).shape == (5, 3)
    subject = prepare(module, role="pruned", device="cpu")
    assert (subject.exported, subject.module is module) == (True, True)
    again = prepare(load_reference("net.pt2", root=tmp_path), role="pruned", device="cpu")
    assert (again.digest, again.weights) == (subject.digest, subject.weights)
    wrapped = Model(module, mean=0.5).eval()  # the graph itself refuses eval()
    assert wrapped(torch.rand(1, 1, 4, 4)).shape == (1, 3)
    assert prepare(wrapped, role="pruned", device="cpu").exported


def test_a_graph_moves_with_its_constants_and_devices(tmp_path: Path) -> None:
    module = load_reference(str(export(tmp_path / "net.pt2", "dynamic")))
    prepare(module, role="pruned", device="meta")
    assert "device(type='meta')" in module.code
    assert module(torch.rand(5, 1, 4, 4, device="meta")).shape == (5, 3)


def test_a_fixed_or_bounded_batch_is_refused(tmp_path: Path) -> None:
    fixed = export(tmp_path / "fixed.pt2", "fixed")
    with pytest.raises(ModelError) as caught:
        load_reference(str(fixed))
    assert str(caught.value) == (
        f"{fixed} has a fixed batch of 2: export it with torch.export.export(model, (x,), "
        'dynamic_shapes={"x": {0: torch.export.Dim("batch")}})'
    )
    with pytest.raises(ModelError, match="of the dense model has a fixed batch of 2"):
        prepare(torch.export.load(fixed).module(), role="dense", device="cpu")
    bounded = export(tmp_path / "bounded.pt2", "dynamic", dim=torch.export.Dim("batch", max=64))
    with pytest.raises(ModelError, match="allows a batch of at most 64"):
        load_reference(str(bounded))


class Payload:
    """Unpickling this makes the file ``ran``."""

    def __init__(self, folder: Path) -> None:
        self.ran = folder / "ran"

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.ran), "w"))


def test_an_exported_program_with_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    source = export(tmp_path / "net.pt2", "dynamic")
    bad = io.BytesIO()
    torch.save(Payload(tmp_path), bad)

    def altered(name: str, ending: str, change: object) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
            for item in old.namelist():
                data = old.read(item)
                new.writestr(item, change(data) if item.endswith(ending) else data)  # type: ignore[operator]
        return path

    def opaque(data: bytes) -> bytes:
        config = json.loads(data)
        first = next(iter(config["config"].values()))
        first["path_name"] = "opaque_obj_0"
        return json.dumps(config).encode()

    for path in (
        altered("inputs.pt2", "sample_inputs/model.pt", lambda _: bad.getvalue()),
        altered(
            "flag.pt2", "weights_config.json", lambda d: d.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        ),
        altered("opaque.pt2", "constants_config.json", opaque),
    ):
        with pytest.raises(ModelError, match="holds pickled objects"):
            load_reference(str(path))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "text.pt2").write_text("no archive")
    with pytest.raises(ModelError, match="is no readable exported program: File is not a zip file"):
        load_reference("text.pt2", root=tmp_path)


def test_torchscript_and_bare_weights_are_refused_as_a_reference(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
    torch.save(Net().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"script.pt is a TorchScript archive, which is not supported: export it with"):
        load_reference("script.pt", root=tmp_path)
    with pytest.raises(ModelError, match="is a TorchScript archive"):
        load_state(Net(), tmp_path / "script.pt")
    with pytest.raises(ModelError, match=r"'weights\.pt' holds weights, not a network: write a function"):
        load_reference("weights.pt", root=tmp_path)


# ---- state dicts


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net.pth"])
def test_a_state_dict_loads_strictly(tmp_path: Path, name: str) -> None:
    source, path = Net(), tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path)
    target = load_state(Net().train(), path)
    assert not any(part.training for part in target.modules())
    assert (
        weights_digest(target.state_dict()) == weights_digest(source.state_dict()) == weights_digest(read_state(path))
    )


def test_wrapped_state_dicts(tmp_path: Path) -> None:
    state, path = Net().state_dict(), tmp_path / "net.pt"
    for key in ("state_dict", "model"):
        torch.save({"epoch": 3, key: state}, path)
        assert list(read_state(path)) == list(state)
    for content, held in (
        ({"epoch": 3, "state_dict": 5}, "a dict with keys 'epoch', 'state_dict'"),
        ([1], "a list"),
        ({}, "a dict with keys "),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError) as caught:
            read_state(path)
        expected = f"{path} holds {held}: a state dict is expected, alone or under 'state_dict' or 'model'"
        assert str(caught.value) == expected


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    state = Net().state_dict()
    torch.save({**{k: v for k, v in state.items() if not k.startswith("norm")}, "tail.bias": torch.zeros(1)}, path)
    with pytest.raises(ModelError) as caught:
        load_state(Net(), path)
    assert str(caught.value) == (
        f"{path} does not fit the model: missing norm.weight, norm.bias, norm.running_mean and 2 more; "
        "unexpected tail.bias"
    )
    torch.save({**state, "head.weight": torch.zeros(4, 8), "head.bias": state["head.bias"].double()}, path)
    with pytest.raises(ModelError) as caught:
        load_state(Net(), path)
    assert str(caught.value) == (
        f"{path} does not fit the model: head.weight is float32 (4, 8), the model's float32 (3, 8), "
        "head.bias is float64 (3,), the model's float32 (3,)"
    )


def test_a_pickle_payload_is_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path)}, tmp_path / "new.pt")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Payload(tmp_path)))
    for name in ("new.pt", "old.pth"):
        with pytest.raises(ModelError, match="holds Python objects besides tensors, and loading those could run code"):
            load_state(Net(), tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("net.bin", b"", "a state dict ends in .safetensors, .pt or .pth, not '.bin'"),
        ("net.safetensors", b"garbage", "is no readable safetensors file"),
        ("net.pt", b"", "is no readable torch file"),
        ("net.pt", b"PK\x03\x04 cut", "is no readable torch file"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(")):
        read_state(tmp_path / name)


def test_a_missing_file_has_its_nearest_match(tmp_path: Path) -> None:
    (tmp_path / "dense.pt").touch()
    with pytest.raises(ModelError, match=r"there is no file .*; did you mean 'dense\.pt'"):
        read_state(tmp_path / "dens.pt")


# ---- prepare


def test_prepare_identifies_and_leaves_the_model_alone() -> None:
    net = Net()
    net.head.weight.requires_grad_(False)
    subject = prepare(net, role="dense", device="cpu")
    assert (subject.role, subject.module is net, subject.exported) == ("dense", True, False)
    assert [p.requires_grad for p in net.parameters()] == [True] * 4 + [False, True]
    assert net.training
    assert subject.weights == weights_digest(net.state_dict())
    adapted = prepare(Model(net, mean=0.5), role="dense", device="cpu")
    assert adapted.weights == subject.weights
    assert adapted.digest != subject.digest


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"a": 1}, "the dense model is a dict: give an nn.Module, a Model(...) or an exported program"),
        (Net, "the dense model is the class Net: give an instance of it"),
    ],
)
def test_what_is_no_model_is_refused(model: object, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        prepare(model, role="dense", device="cpu")
    assert str(caught.value) == sentence


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(ModelError, match="the dense model cannot be moved to 'gpu'"):
        prepare(Net(), role="dense", device="gpu")
