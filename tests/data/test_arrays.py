"""Images and labels as arrays, tensors and user-defined functions: the same data set from each, or a one-line error."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bsk.data.arrays import arranged, contents_of, from_arrays, images_of
from bsk.data.batches import to_unit
from bsk.data.store import Info, open_data, write
from bsk.errors import InputError

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    "given",
    [
        BYTES,
        BYTES.transpose(0, 2, 3, 1),
        torch.from_numpy(BYTES),
        torch.from_numpy(BYTES) / 255,
        (torch.from_numpy(BYTES) / 255).requires_grad_(),
        BYTES.transpose(0, 2, 3, 1) / np.float32(255),
    ],
    ids=["bytes", "channels last", "tensor", "floats", "with gradient", "floats, channels last"],
)
def test_images_are_equal_from_every_kind_of_array(given) -> None:
    found = images_of(given, "x")
    assert found.dtype == np.uint8 and np.array_equal(found, BYTES)


def test_floats_that_are_not_8_bit_levels_are_kept() -> None:
    x = torch.rand(5, 1, 4, 4)
    assert torch.equal(torch.from_numpy(images_of(x, "x")), x)
    assert torch.equal(to_unit(from_arrays(test=(x, torch.zeros(5, dtype=torch.long))).split("test").images), x)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((2, 8, 8), (2, 1, 8, 8)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        ((2, 8, 8, 1), (2, 1, 8, 8)),
        ((2, 13, 8, 8), (2, 13, 8, 8)),
        ((2, 8, 8, 13), (2, 13, 8, 8)),
        ((2, 3, 5, 3), (2, 3, 5, 3)),
    ],
)
def test_channels_are_found(shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    assert images_of(np.zeros(shape, np.uint8), "x").shape == found


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 8)), r"shape \(2, 8\), expected \(N, C, H, W\)"),
        (np.zeros((0, 1, 8, 8)), "shape"),
        (np.zeros((2, 8, 8, 8), np.uint8), r"shape \(2, 8, 8, 8\) does not show which axis has the channels"),
        (np.full((2, 1, 8, 8), 255.0), r"values from 255 to 255, expected floats in \[0, 1\]"),
        (np.full((2, 1, 8, 8), -0.1), "values from -0.1"),
        (np.full((2, 1, 8, 8), 1 + 2**-23), "values from 1.00000012 to 1.00000012, expected"),
        (np.full((2, 1, 8, 8), np.nan), "values from nan"),
        (np.zeros((2, 1, 8, 8), np.int64), "int64, expected uint8, .*; convert levels from 0 to 255 with astype"),
        ("images", "shape"),
        ([[1], [2, 3]], "not an array"),
        ([Image.new("P", (8, 8))] * 2, r"images of Pillow with a palette; convert them with image.convert\('RGB'\)"),
    ],
)
def test_invalid_images_are_refused(images, said: str) -> None:
    with pytest.raises(InputError, match=f"^mine: train images: {said}") as refused:
        contents_of({"train": (images, [0, 1])}, "mine")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "mine: no images"),
        ({"trian": 3}, "mine: 'trian' is unknown; did you mean train"),
        ({"train": BYTES}, r"mine: train: expected \(images, labels\), found a ndarray; return two arrays"),
        ({"train": (BYTES, LABELS[:3])}, r"mine: train labels: shape \(3,\), expected \(40,\)"),
        ({"train": (BYTES, LABELS / 2)}, "mine: train labels: float64, expected integers from 0"),
        (
            {"train": (BYTES, np.eye(4)[LABELS])},
            r"mine: train labels: shape \(40, 4\), expected one label per image, .* one-",
        ),
        ({"train": (BYTES, np.int64(3))}, r"mine: train labels: shape \(\), expected one label per image"),
        (
            {"train": (BYTES, LABELS + 10**12)},
            "mine: train labels: 1000000000003, expected integers below 32768; convert",
        ),
        (
            {"train": (BYTES, LABELS.astype(np.uint64) << np.uint64(62))},
            "mine: train labels: 13835058055282163712, expec",
        ),
        ({"train": (BYTES, LABELS), "mean": 0.5}, "mine: mean: expected a list with one number per channel"),
        ({"train": (BYTES, LABELS), "std": ["a"] * 3}, "mine: std: expected a list with one number per channel"),
        ({"train": (BYTES, LABELS - 1)}, "mine: train labels: -1, expected integers from 0"),
        ({"train": (BYTES, LABELS), "classes": ["a", "b"]}, "mine: a label is 3, but there are 2 classes"),
        ({"train": (BYTES, LABELS), "classes": 4}, "mine: classes must be a list"),
        ({"train": (BYTES, LABELS), "test": (BYTES[:, :1], LABELS)}, "mine: image shapes differ .*; use one size"),
    ],
)
def test_invalid_splits_are_refused(found, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}") as refused:
        contents_of(found, "mine")
    assert "\n" not in str(refused.value)


def test_a_data_set_in_memory_is_the_file_that_it_would_be(tmp_path: Path) -> None:
    data = from_arrays((BYTES, LABELS), test=(BYTES[:8], LABELS[:8]), classes=list("abcd"), name="mine", val_images=8)
    assert data.counts == {"train": 32, "val": 8, "test": 8}
    info = {name: getattr(data, name) for name in Info.__dataclass_fields__}
    write(tmp_path / "mine.safetensors", data.parts, Info(**info))
    file = open_data(tmp_path / "mine.safetensors")
    assert file.sha256 == data.sha256 and file.mean == data.mean
    for name in ("train", "val", "test"):
        for ours, theirs in ((data.split(name, 5), file.split(name, 5)), (data.stream(name), file.stream(name))):
            rows = torch.tensor([2, 0])
            assert torch.equal(ours.take(rows), theirs.take(rows)) and ours.shape == theirs.shape
            assert torch.equal(ours.labels, theirs.labels) and torch.equal(ours.index, theirs.index)


def test_labels_may_have_a_second_axis_of_one() -> None:
    whole = from_arrays((BYTES, LABELS), test=(BYTES[:8], LABELS[:8]), val_images=8)
    column = from_arrays((BYTES, LABELS[:, None]), test=(BYTES[:8], torch.from_numpy(LABELS)[:8, None]), val_images=8)
    assert column.sha256 == whole.sha256


def test_a_mean_is_used_without_a_std_and_the_other_way_round() -> None:
    measured = from_arrays((BYTES, LABELS), val_images=8)
    mean = from_arrays((BYTES, LABELS), val_images=8, mean=[0.1, 0.2, 0.3])
    assert (mean.mean, mean.std) == ([0.1, 0.2, 0.3], measured.std)
    std = contents_of({"train": (BYTES, LABELS), "mean": None, "std": torch.tensor([0.5, 0.25, 1])}, "mine").customs
    assert std == {"std": [0.5, 0.25, 1.0]}
    std_only = from_arrays((BYTES, LABELS), val_images=8, std=[0.5, 0.25, 1])
    assert (std_only.mean, std_only.std) == (measured.mean, [0.5, 0.25, 1.0])


def test_invalid_properties_of_data_are_refused() -> None:
    with pytest.raises(InputError, match="mine: mean and std have 1 numbers, expected one for each of 3 channels"):
        from_arrays(test=(BYTES, LABELS), name="mine", mean=[0.5], std=[0.2])
    with pytest.raises(InputError, match="a b: name 'a b', expected letters"):
        from_arrays(test=(BYTES, LABELS), name="a b")
    with pytest.raises(InputError, match=r"mine: eps 2, expected a number above 0, at most 1"):
        from_arrays(test=(BYTES, LABELS), name="mine", eps=2)
    with pytest.raises(InputError, match=r"mine: eps array\(\[\[1., 1.\], \[1., 1.\]\]\), expected a number"):
        contents = {"test": (BYTES, LABELS), "eps": np.ones((2, 2))}
        arranged(contents, "mine")


SOURCE = """
import numpy
def mine():
    random = numpy.random.default_rng(0)
    images = random.random((60, 8, 8, 3))
    return {"train": (images[:40], numpy.arange(40) % 4), "test": (images[40:], numpy.arange(20) % 4), "eps": 0.1}
def with_val():
    print("loading")
    return mine() | {"val": mine()["test"], "classes": ["a", "b", "c", "d"]}
def own_val(): return mine() | {"val": mine()["test"]}
def nothing(): return None
def only_train(): return {"train": mine()["train"]}
def far(): return {"train": (mine()["train"][0] * 255, numpy.arange(40)), "test": mine()["test"]}
def leaves(): raise SystemExit
class Lazy:
    def __init__(self, shape): self.shape = shape
    def __len__(self): return self.shape[0]
    def __array__(self, dtype=None, copy=None): raise OSError("the disk is gone")
def lazy(): return {"train": (Lazy((40, 8, 8, 3)), mine()["train"][1]), "test": mine()["test"]}
def masked():
    x, y = mine()["train"]
    return {"train": (numpy.ma.masked_array(x, x > 0.9), y), "test": mine()["test"]}
def wrong_eps(): return mine() | {"eps": 8}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"mydata_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    return name


def test_a_function_s_images_become_a_data_file(call, module: str, tmp_path: Path) -> None:
    done = call("prepare-data", f"{module}:mine")
    record = json.loads(done.stdout)
    assert (record["path"], record["name"]) == ("data/mine.safetensors", "mine")
    assert (record["train"], record["val"], record["test"], record["eps"]) == (36, 4, 20, 0.1)
    assert f"{module}:mine: train has 40 images (3, 8, 8)" in done.stderr
    data = open_data(tmp_path / "data/mine.safetensors")
    (source,) = data.source["files"].items()
    assert source[0] == f"{module}:mine" and source[1].startswith("sha256:") and data.model == "cnn"
    images = np.random.default_rng(0).random((60, 8, 8, 3))[40:]
    test = data.split("test")
    expected = np.rint(images.astype(np.float32) * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    assert np.array_equal(test.images[test.index.argsort()].numpy(), expected)
    own = json.loads(call("prepare-data", f"{module}:with_val", "--out", "own.safetensors").stdout)
    assert (own["train"], own["val"]) == (40, 20)
    assert open_data(tmp_path / "own.safetensors").classes == ["a", "b", "c", "d"]
    trained = call("train", "--dataset", "mine", "--epochs", 1, "--batch-size", 18, "--threads", 1, "--quiet")
    assert json.loads(trained.stdout)["dataset"] == "mine"


@pytest.mark.parametrize(
    ("function", "more", "code", "said"),
    [
        ("nothing", [], 3, 'expected a dict {"train": (images, labels), "test": (images, labels)}, found a NoneType'),
        ("only_train", [], 3, "no test split; return (images, labels) for train and test"),
        ("far", [], 3, "train images: values from "),
        ("wrong_eps", [], 3, "eps 8, expected a number above 0, at most 1"),
        ("lazy", [], 3, "train images: not an array (the disk is gone)"),
        ("masked", [], 3, "train images: some values are masked; fill them, by filled()"),
        ("leaves", [], 2, "SystemExit: no message; check the module and function"),
        ("mien", [], 2, "has no mien; did you mean mine?"),
        ("mine", ["--from", "x"], 2, "finds its own data"),
        ("mine", ["--size", "8"], 2, "has labels and a fixed image size"),
        ("own_val", ["--val", "8"], 2, "has a val split of its own"),
    ],
)
def test_a_violated_contract_is_a_one_line_error(
    call, module: str, function: str, more: list[str], code: int, said: str
) -> None:
    assert said in call("prepare-data", f"{module}:{function}", *more, "--quiet", check=code).line


def test_what_may_be_a_mistake_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from_arrays((BYTES, LABELS + 1), test=(BYTES[:8], LABELS[:8]), val_images=8)
    said = capsys.readouterr().err
    assert "arrays: 1 of 5 classes have no image in train (0)" in said
    assert "of test also in train: 8 images (8 with a different label)" in said
    assert "; bsk.prepare(..., drop_leaks=True) removes these" in said
    from_arrays((BYTES // 16, LABELS), val_images=8)
    assert "arrays: train has no level above 15 of 255; rescale the images" in capsys.readouterr().err
    from_arrays((BYTES / np.float32(255 * 255), LABELS), val_images=8)
    assert "train has no level above 1 of 255" in capsys.readouterr().err
    alpha = np.concatenate([BYTES, np.full_like(BYTES[:, :1], 255)], axis=1)
    from_arrays((alpha, LABELS), val_images=8)
    assert "the fourth channel has one value, as alpha does" in capsys.readouterr().err
    from_arrays((BYTES, LABELS), val_images=8)
    assert capsys.readouterr().err == ""


def test_a_normalisation_for_levels_is_refused() -> None:
    with pytest.raises(InputError, match=r"arrays: mean 125: expected values for pixels in \[0, 1\]; divide by 255"):
        from_arrays((BYTES, LABELS), val_images=8, mean=[125.0, 120.0, 110.0], std=[60.0] * 3)
    with pytest.raises(InputError, match="arrays: std 60: expected values for pixels"):
        from_arrays((BYTES, LABELS), val_images=8, mean=[0.5] * 3, std=[60.0] * 3)


def test_copies_are_found_though_one_split_has_floats(capsys: pytest.CaptureFixture[str]) -> None:
    floats = BYTES * np.float32(1 / 255)  # not equal to BYTES / 255 in the last bit
    from_arrays((floats, LABELS), test=(BYTES[:8], LABELS[:8]), val_images=8)
    assert "of test also in train: 8 images" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "HSV"])
def test_pillow_images_of_other_modes_are_refused(mode: str) -> None:
    images = [Image.new("RGB", (4, 4)).convert("L" if mode == "LA" else "RGB").convert(mode) for _ in range(4)]
    with pytest.raises(
        InputError, match=rf"of mode {mode}; convert them with image.convert\('{'L' if mode == 'LA' else 'R'}"
    ):
        from_arrays((images, np.arange(4)), val_images=1)


def test_pillow_images_of_16_bits_are_not_to_be_cut() -> None:
    with pytest.raises(InputError, match="images of Pillow of mode I;16; divide by the largest level"):
        from_arrays(([Image.fromarray(np.zeros((4, 4), np.uint16)) for _ in range(4)], np.arange(4)), val_images=1)


def test_tensors_in_bf16_are_taken() -> None:
    x = (torch.arange(4 * 48).reshape(4, 3, 4, 4) / 256).bfloat16()
    assert images_of(x, "mine").dtype == np.float32
