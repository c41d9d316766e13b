from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pytest_prunerob.datasets import Dataset, load
from pytest_prunerob.errors import DatasetError

DIGITS_TEST_DIGEST = "4e3144c07dcd3b357e1abadf0eae33b21cf60eb45f795f40bdeaacb65ccc08c9"


def small(n: int = 6, **changes: object) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    values: dict[str, object] = {
        "name": "toy",
        "x": torch.rand(n, 1, 2, 2, generator=generator),
        "y": torch.arange(n) % 3,
        "classes": 3,
    }
    return Dataset(**{**values, **changes})  # type: ignore[arg-type]


def test_digits_is_a_fixed_stratified_half_and_half() -> None:
    splits = load("digits")
    assert splits.train is not None
    assert (len(splits.test), len(splits.train)) == (899, 898)
    assert splits.test.inputs == (1, 8, 8)
    assert splits.test.classes == 10
    assert splits.test.y.bincount().tolist() == [89, 91, 89, 91, 91, 91, 90, 90, 87, 90]
    assert splits.train.y.bincount().tolist() == [89, 91, 88, 92, 90, 91, 91, 89, 87, 90]
    assert sorted(splits.test.ids + splits.train.ids) == list(range(1797))
    assert float(splits.test.x.max()) == 1.0
    assert load("digits").test.digest == splits.test.digest == DIGITS_TEST_DIGEST


def test_a_digest_follows_every_part_of_a_sample_and_nothing_else() -> None:
    base = small()
    assert small(name="renamed").digest == base.digest
    assert small(classes=4).digest != base.digest
    assert small(classes=4).digests == base.digests
    x = base.x.clone()
    x[2, 0, 1, 1] = torch.nextafter(x[2, 0, 1, 1], torch.tensor(1.0))
    y = base.y.clone()
    y[2] = 0
    for changed in (small(x=x), small(y=y), small(indices=(0, 1, 7, 3, 4, 5))):
        differing = [i for i in range(6) if changed.digests[i] != base.digests[i]]
        assert differing == [2]
        assert changed.digest != base.digest
    # The same bytes in another shape are another image.
    assert small(x=base.x.reshape(6, 1, 1, 4)).digests[0] != base.digests[0]


def test_first_is_a_prefix_of_one_permutation_that_only_the_samples_decide() -> None:
    data = small(40, y=torch.zeros(40, dtype=torch.int64))
    whole = data.first(None)
    assert sorted(whole.ids) == list(range(40))
    assert whole.ids != data.ids
    assert data.first(7).ids == whole.ids[:7]
    assert data.take(range(39, -1, -1)).first(7).ids == whole.ids[:7]
    assert torch.equal(whole.x[0], data.x[whole.ids[0]])
    assert whole.first(None).ids == whole.ids


@pytest.mark.parametrize("n", [0, -1, 7])
def test_first_takes_no_more_and_no_fewer_samples_than_there_are(n: int) -> None:
    with pytest.raises(DatasetError, match=rf"'toy': samples={n} asked for, allowed are 1 to 6"):
        small().first(n)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.full((6, 1, 2, 2), 255.0)}, r"lie in \[0, 1\], found a minimum of 255 .* \(divide by 255\?\)"),
        ({"x": torch.full((6, 1, 2, 2), -0.5)}, r"found a minimum of -0.5 and a maximum of -0.5$"),
        ({"x": torch.full((6, 1, 2, 2), torch.nan)}, "finite, found NaN or infinity in 6 samples"),
        ({"x": torch.zeros(6, 1, 2, 2, dtype=torch.float64)}, "must be float32, found float64"),
        ({"x": torch.zeros(6, 1, 2, 2, dtype=torch.uint8)}, r"found uint8: convert them, \(x / 255\)"),
        ({"x": torch.zeros(6, 2, 2)}, r"found \(6, 2, 2\): add the channel axis"),
        ({"x": torch.zeros(6, 4)}, r"must be \(N, C, H, W\), found \(6, 4\)"),
        ({"x": torch.zeros(0, 1, 2, 2), "y": torch.zeros(0, dtype=torch.int64)}, "the dataset is empty"),
        ({"y": torch.zeros(5, dtype=torch.int64)}, r"6 inputs need labels of shape \(6,\), found \(5,\)"),
        ({"y": torch.zeros(6)}, "labels must be whole numbers .* found float32"),
        ({"y": torch.tensor([0, 1, 2, 3, 0, 1])}, "labels must lie in 0 … 2, found a minimum of 0 and a maximum of 3"),
        ({"y": torch.tensor([0, 1, -1, 2, 0, 1])}, "found a minimum of -1"),
        ({"classes": 1}, "at least 2 classes are needed, found 1"),
        ({"indices": (0, 1, 2, 3, 4, 4)}, "6 samples need as many distinct indices, found 6 of which 5 differ"),
    ],
)
def test_what_is_no_dataset_is_refused_with_the_value_found(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        small(**changes)


def arrays(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {"x": np.zeros((3, 1, 2, 2), "float32"), "y": np.array([0, 1, 2])}
    return {**values, **changes}


def save(folder: Path, **changes: object) -> str:
    kept = {key: value for key, value in arrays(**changes).items() if value is not None}
    np.savez(folder / "data.npz", **kept)  # type: ignore[arg-type]
    return f"npz:{folder / 'data.npz'}"


def test_an_npz_file_gives_both_halves_and_the_classes(tmp_path: Path) -> None:
    train = {"x_train": np.ones((2, 1, 2, 2), ">f4"), "y_train": np.array([4, 0], "uint8")}
    splits = load(save(tmp_path, **train))
    assert splits.train is not None
    assert (len(splits.test), len(splits.train), splits.test.classes) == (3, 2, 5)
    assert splits.train.x.sum() == 8
    assert splits.train.y.tolist() == [4, 0]
    assert load(save(tmp_path)).train is None
    assert load(save(tmp_path, classes=np.array(7))).test.classes == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "needs the arrays x and y, found x$"),
        ({"x_train": np.zeros((1, 1, 2, 2), "float32")}, "the file has 'x_train' but no 'y_train'"),
        ({"x": np.zeros((3, 2, 2), "float32")}, r"add the channel axis, x\[:, None\]"),
        ({"x": np.full((3, 1, 2, 2), 255, "uint8")}, "must be float32, found uint8"),
        ({"y": np.array(["a", "b", "c"])}, "labels must be numbers, found the type <U1"),
        ({"classes": np.array([2.5])}, "classes must be one whole number, found float64"),
        ({"classes": np.array(2)}, "labels must lie in 0 … 1, found a minimum of 0 and a maximum of 2"),
    ],
)
def test_a_wrong_npz_file_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(save(tmp_path, **changes))


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.mark,))


def test_a_pickle_payload_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    name = save(tmp_path, x=np.array([Payload(mark)], dtype=object))
    with pytest.raises(DatasetError, match="it holds Python objects, which are never unpickled"):
        load(name)
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(DatasetError, match=r"no \.npz archive"):
        load(f"npz:{tmp_path / 'bare.npz'}")
    assert not mark.exists()


def test_a_damaged_file_is_an_error_of_the_dataset(tmp_path: Path) -> None:
    save(tmp_path)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[150] ^= 0xFF  # inside the first array
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="the file cannot be read"):
        load(f"npz:{tmp_path / 'data.npz'}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown dataset 'digit': allowed are digits, folder:PATH, npz:PATH, torchvision:NAME; did you mean"),
        ("digits:8", "digits takes no path"),
        ("npz", "the path is missing; allowed is npz:PATH"),
        ("npz:", "the path is missing"),
        ("npz:no/such.npz", "there is no file 'no/such.npz'"),
        ("folder", "the path is missing; allowed is folder:PATH"),
        ("torchvision:CIFAR", "unknown name of torchvision 'CIFAR': allowed are CIFAR10, .*; did you mean 'CIFAR10'"),
        ("torchvision:MNIST@", "the folder after '@' is missing"),
        ("torchvision", "unknown name of torchvision ''"),
    ],
)
def test_a_name_that_means_no_dataset_is_refused(name: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(name)


def picture(path: Path, value: int = 0, mode: str = "RGB", size: tuple[int, int] = (3, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16", "P") else (value,) * len(mode)).save(path)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for name, value in (("cat/b", 51), ("cat/a", 0), ("dog/a", 255)):
        picture(tmp_path / "animals" / f"{name}.png", value)
    (tmp_path / "animals" / "dog" / "notes.txt").write_text("no image")
    return tmp_path / "animals"


def test_a_folder_gives_images_by_sorted_class_and_name(animals: Path) -> None:
    data = load("folder:animals", animals.parent).test
    assert (data.name, data.classes, data.inputs) == ("folder:animals", 2, (3, 2, 3))
    assert data.x[:, 0, 0, 0].tolist() == [0.0, pytest.approx(0.2), 1.0]
    assert data.y.tolist() == [0, 0, 1]
    assert load(f"folder:{animals}").train is None
    again = load(f"folder:{animals}").test
    assert again.digest == data.digest  # neither the name nor where it lies
    picture(animals / "cat" / "a.png", 1)
    assert load(f"folder:{animals}").test.digest != data.digest


def test_halves_of_a_folder_are_read_when_they_are_asked_for(animals: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    animals.rename(whole / "val")
    for name in ("cat", "dog"):
        picture(whole / "train" / name / "1.png", 102, "L")
    splits = load(f"folder:{whole}")
    assert splits.train is not None
    assert (len(splits.test), len(splits.train), splits.train.inputs) == (3, 2, (1, 2, 3))
    assert splits.train is splits.train
    picture(whole / "test" / "cat" / "1.png")
    picture(whole / "test" / "dog" / "1.png")
    assert len(load(f"folder:{whole}").test) == 2  # test goes before val
    (whole / "train" / "cat" / "2.png").write_bytes(b"damaged")
    broken = load(f"folder:{whole}")
    with pytest.raises(DatasetError, match=r"cat/2\.png cannot be read as an image"):
        _ = broken.train
    (whole / "train" / "cow").mkdir()
    with pytest.raises(DatasetError, match="the same class folders, only one of them has 'cow'"):
        load(f"folder:{whole}")


def cut(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), "uint8")
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: picture(a / "cat/c.png", 0, "L"), r"one size and kind, found 2x3 RGB \(cat/a.png\) and 2x3 grey"),
        (lambda a: picture(a / "dog/c.png", 0, "RGB", (4, 2)), r"and 2x4 RGB \(dog/c.png\): convert them"),
        (lambda a: picture(a / "cat/c.png", 0, "RGBA"), r"cat/c.png has the mode RGBA: allowed are grey \(L\) or RGB"),
        (lambda a: picture(a / "cat/c.png", 0, "I;16"), "cat/c.png has the mode I;16"),
        (lambda a: (a / "cat/c.png").write_bytes(b""), "cat/c.png cannot be read as an image: cannot identify"),
        (lambda a: cut(a / "cat/c.png"), "cat/c.png cannot be read as an image: .*truncated"),
        (lambda a: (a / "cow").mkdir(), r"the class 'cow' has no image in 'animals' \(.jpg, "),
        (lambda a: a.rename(a.parent / "train"), "there is no folder '.*animals'"),
    ],
    ids=["grey", "size", "alpha", "deep", "empty file", "cut", "empty class", "gone"],
)
def test_a_wrong_folder_is_refused(animals: Path, change: Callable[[Path], object], message: str) -> None:
    change(animals)
    with pytest.raises(DatasetError, match=message):
        load(f"folder:{animals}")


def test_a_folder_that_is_none_names_the_nearest(animals: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder '.*animal'; did you mean 'animals'\?"):
        load("folder:animal", animals.parent)
    with pytest.raises(DatasetError, match="is no folder"):
        load(f"folder:{animals / 'cat' / 'a.png'}")
    with pytest.raises(DatasetError, match="a folder for each of at least 2 classes, has none"):
        load(f"folder:{animals / 'cat'}")
    (animals.parent / "half" / "train").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"half/train needs a folder half/test \(or val\) beside it"):
        load("folder:half", animals.parent)


def idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write ``array`` as MNIST is distributed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype("uint8").tobytes())


def test_torchvision_reads_a_local_folder_and_downloads_nothing(tmp_path: Path) -> None:
    for folder in ("data", "other"):
        for half, value in (("t10k", 51), ("train", 102)):
            raw = tmp_path / folder / "MNIST" / "raw"
            idx(raw / f"{half}-images-idx3-ubyte", np.full((4, 28, 28), value))
            idx(raw / f"{half}-labels-idx1-ubyte", np.array([3, 1, 4, 1]))
    splits = load("torchvision:MNIST", tmp_path)
    assert (splits.test.classes, splits.test.inputs, splits.test.y.tolist()) == (10, (1, 28, 28), [3, 1, 4, 1])
    assert splits.test.x.unique().tolist() == [pytest.approx(0.2)]
    assert splits.train is not None
    assert splits.train.x.unique().tolist() == [pytest.approx(0.4)]
    assert load(f"torchvision:MNIST@{tmp_path / 'other'}").test.digest == splits.test.digest
    with pytest.raises(
        DatasetError, match=r"Dataset not found: ask for the download with torchvision:KMNIST\?download"
    ):
        load("torchvision:KMNIST@data", tmp_path)
    (tmp_path / "data" / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\0\0")
    with pytest.raises(DatasetError, match="data' cannot be read"):
        load("torchvision:MNIST", tmp_path)


def test_a_download_is_asked_for_in_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Fake:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            asked.append((root, train, download))

        def __len__(self) -> int:
            return 1

        def __getitem__(self, place: int) -> tuple[Image.Image, int]:
            return Image.new("L", (16, 16)), 3

    monkeypatch.setattr("torchvision.datasets.USPS", Fake)
    for name in ("torchvision:USPS", "torchvision:USPS?download=1", "torchvision:USPS@here?download=1"):
        load(name, tmp_path)
    data, here = str(tmp_path / "data"), str(tmp_path / "here")
    assert asked == [(data, False, False), (data, False, True), (here, False, True)]
