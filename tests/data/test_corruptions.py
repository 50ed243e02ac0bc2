"""CIFAR-10-C, CIFAR-100-C and CIFAR-10.1: read exactly, evaluated, and distinguished in tables."""

from __future__ import annotations

import json
import runpy
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_archives import CIFAR10_NAMES
from numpy.typing import NDArray

import bsk as package
from bsk.data.formats.cifar import NAMES
from bsk.data.sources import prepare, prepare_each
from bsk.data.store import open_data
from bsk.errors import InputError, UsageError
from bsk.evaluation.flags import ModelFlags
from bsk.evaluation.settings import each_data
from bsk.progress import evaluation_line

N = 30
LABELS = np.random.default_rng(9).integers(0, 10, N)
CORRUPTIONS = {name: np.random.default_rng(i) for i, name in enumerate(("fog", "jpeg_compression"))}
ARRAYS = {name: random.integers(0, 256, (5 * N, 32, 32, 3), np.uint8) for name, random in CORRUPTIONS.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for name, array in ARRAYS.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return folder


def check(out: Path, corruption: str, severity: int, names: list[str] = CIFAR10_NAMES) -> None:
    data = open_data(out / f"{corruption}-{severity}.safetensors")
    assert data.corrupted == {"corruption": corruption, "severity": severity} and data.classes == names
    assert data.counts == {"train": 0, "val": 0, "test": N}
    found = data.split("test")
    expected = ARRAYS[corruption][(severity - 1) * N : severity * N].transpose(0, 3, 1, 2)
    assert np.array_equal(found.images, expected[found.index])
    assert np.array_equal(found.labels, LABELS[found.index])
    assert (data.eps, data.mean, data.std) == (0.031, [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616])


def test_each_corruption_and_severity_is_a_file(call, source: Path, tmp_path: Path) -> None:
    said = call("prepare-data", "cifar10-c", "--from", source)
    records = [json.loads(line) for line in said.stdout.splitlines()]
    places = [(record["corruption"], record["severity"]) for record in records]
    assert places == [(name, severity) for name in ARRAYS for severity in range(1, 6)]
    assert all(record["test"] == N and record["name"] == "cifar10-c" for record in records)
    for corruption, severity in places:
        check(tmp_path / "data" / "cifar10-c", corruption, severity)
    again = [json.loads(line) for line in call("prepare-data", "cifar10-c", "--from", source).stdout.splitlines()]
    assert [each["sha256"] for each in again] == [each["sha256"] for each in records]


def test_an_archive_and_labels_of_one_severity_are_accepted(source: Path, tmp_path: Path) -> None:
    np.save(source / "labels.npy", LABELS[:, None])
    with tarfile.open(tmp_path / "CIFAR-10-C.tar", "w") as archive:
        archive.add(source, "CIFAR-10-C")
    records = list(prepare_each("cifar10-c", str(tmp_path / "CIFAR-10-C.tar"), tmp_path / "out", test_limit=N))
    assert len(records) == 10
    check(tmp_path / "out", "jpeg_compression", 4)
    limited = next(prepare_each("cifar10-c", str(source), tmp_path / "few", test_limit=7))
    assert limited["test"] == 7
    with pytest.raises(InputError, match="has other data"):
        next(prepare_each("cifar10-c", str(source), tmp_path / "few"))


def test_cifar100_c_has_the_names_of_cifar100(source: Path, tmp_path: Path, shared: Path) -> None:
    assert next(prepare_each("cifar100-c", str(source), tmp_path / "out"))["class_names"] == NAMES["cifar100"]
    prepare("cifar100", str(shared / "data" / "cifar100-subset-python.tar.gz"), tmp_path / "a.safetensors")
    assert open_data(tmp_path / "a.safetensors").classes == NAMES["cifar100"]


def test_shared_cases(tmp_path: Path, shared: Path) -> None:
    runpy.run_path(str(shared / "cases" / "make_data.py"))["main"](tmp_path)
    records = list(prepare_each("cifar10-c", str(tmp_path / "corrupted"), tmp_path / "out"))
    assert [record["severity"] for record in records] == [1, 2, 3, 4, 5]
    images, labels = (np.load(tmp_path / "corrupted" / f"{name}.npy") for name in ("gaussian_noise", "labels"))
    for record in records:
        found = open_data(Path(record["path"])).split("test")
        rows = 100 * (record["severity"] - 1) + found.index.numpy()
        assert np.array_equal(found.images, images.transpose(0, 3, 1, 2)[rows])
        assert np.array_equal(found.labels, labels[rows])


def test_a_single_file_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fog.npy: a single file; give the folder that has it and labels.npy"):
        list(prepare_each("cifar10-c", str(source / "fog.npy"), tmp_path / "out"))


def changed(source: Path, name: str, array: NDArray[Any] | None) -> None:
    (source / name).unlink() if array is None else np.save(source / name, array)


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        (
            "labels.npy",
            None,
            "no cifar10-c in its 2 .npy files, expected CORRUPTION.npy files and labels.npy; c",
        ),
        ("labels.npy", np.arange(7), "fog.npy: 7 labels for 5 x 30 images; use labels.npy of the same cifar10-c"),
        ("labels.npy", np.int64(3), "labels.npy: shape (), expected one label per image, (N,) or (N, 1)"),
        ("labels.npy", np.full(150, 10), "fog.npy: severity 1: a label is 10, but there are 10 classes"),
        ("fog.npy", ARRAYS["fog"][:-1], "fog.npy: shape (149, 32, 32, 3), expected (5 N, 32, 32, 3), ordered by"),
        ("fog.npy", ARRAYS["fog"][:, :28], "fog.npy: shape (150, 28, 32, 3), expected (5 N, 32, 32, 3), ordered"),
        ("fog.npy", np.float32(3), "fog.npy: shape (), expected (5 N, 32, 32, 3), ordered by severity; use the"),
        (
            "a b.npy",
            ARRAYS["fog"],
            "a b.npy: not the name of a corruption, expected letters, digits and ._+-; rename it",
        ),
        ("a.npy", np.array([{}]), "a.npy: has Python objects, which need pickle; pickles are not"),
    ],
)
def test_invalid_sources_are_one_line_errors(
    source: Path, tmp_path: Path, name: str, array: Any, expected: str
) -> None:
    changed(source, name, array)
    with pytest.raises(InputError) as error:
        list(prepare_each("cifar10-c", str(source), tmp_path / "out"))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_meaningless_flags_are_refused(call, source: Path, tmp_path: Path) -> None:
    said = call("prepare-data", "cifar10-c", "--from", source, "--val", 7, check=2)
    assert said.line == "bsk: --val: cifar10-c has test images only; leave it out"
    said = call("prepare-data", "cifar10-c", "--from", source, "--out", "a.safetensors", check=2)
    assert said.line == "bsk: --out a.safetensors: cifar10-c is written as many files; name a folder"
    assert "pass --from FOLDER, with labels.npy in it" in call("prepare-data", "cifar10-c", check=2).line
    with pytest.raises(UsageError, match="make them with: bsk prepare-data cifar10-c --from FOLDER"):
        package.prepare("cifar10-c", source=str(source))


def test_a_folder_of_data_is_each_file_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "cifar10-c"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match="the folder has no data files; check --data, or run bsk prepare-data"):
        each_data(ModelFlags(data=folder))
    for name in ("b", "a"):
        (folder / f"{name}.safetensors").touch()
    files = [Path("data/cifar10-c") / f"{name}.safetensors" for name in ("a", "b")]
    assert [each.data for each in each_data(ModelFlags(dataset="cifar10-c"))] == files
    assert [each.data for each in each_data(ModelFlags(data=folder))] == [tmp_path / each for each in files]
    for other in (ModelFlags(), ModelFlags(data=folder / "a.safetensors"), ModelFlags(dataset="digits")):
        assert each_data(other) == [other]


NETWORK = """
import torch
def network():
    class Net(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] * 9
    return Net()
"""


def test_an_evaluation_says_which_images_it_had(call, source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "corrupted_toy.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    call("prepare-data", "cifar10-c", "--from", source)
    common = ["--model", "corrupted_toy:network", "--dataset", "cifar10-c", "--eps", "0.01", "--out", "r.jsonl"]
    said = call("evaluate", *common, "--attack", "natural", "--mean", "0,0,0", "--std", "1,1,1", "--no-checks")
    records = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(records) == 10 and len({record["key"] for record in records}) == 10
    for record in records:
        rows = slice((record["severity"] - 1) * N, record["severity"] * N)
        x = torch.from_numpy(ARRAYS[record["corruption"]][rows].transpose(0, 3, 1, 2).copy())
        expected = (x.flatten(1)[:, :10].argmax(1).numpy() == LABELS).mean()
        assert record["accuracy"] == pytest.approx(expected, abs=1e-12)
        assert f"on {record['corruption']} {record['severity']}, natural at eps" in evaluation_line(record)
    table = [line.split("\t") for line in call("compare", "r.jsonl", "--by", "corruption").stdout.splitlines()]
    assert table[0][5:13] == ["corruption", *(f"severity_{k}" for k in range(1, 6)), "mean", "n"]
    assert [line[5] for line in table[1:]] == ["fog", "jpeg_compression", "mean"]
    fog = [record["accuracy"] for record in records if record["corruption"] == "fog"]
    assert [float(each) for each in table[1][6:12]] == pytest.approx([*fog, sum(fog) / 5])
    every = sum(record["accuracy"] for record in records) / 10
    assert float(table[3][11]) == pytest.approx(every)


def test_equal_images_at_two_severities_have_a_record_each(call, source: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "corrupted_toy.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    np.save(source / "fog.npy", np.concatenate([ARRAYS["fog"][:N]] * 5))
    call("prepare-data", "cifar10-c", "--from", source)
    common = ["--model", "corrupted_toy:network", "--dataset", "cifar10-c", "--eps", "0.01", "--out", "r.jsonl"]
    said = call("evaluate", *common, "--attack", "natural", "--no-checks")
    records = [json.loads(line) for line in said.stdout.splitlines()]
    assert len({(record["corruption"], record["severity"]) for record in records}) == len(records) == 10
    table = [line.split("\t") for line in call("compare", "r.jsonl", "--by", "corruption").stdout.splitlines()]
    assert set(table[1][6:12]) == {str(records[0]["accuracy"])}


def test_cifar10_1_takes_the_version_that_is_recommended(tmp_path: Path) -> None:
    folder, random = tmp_path / "CIFAR-10.1" / "datasets", np.random.default_rng(0)
    folder.mkdir(parents=True)
    x, y = random.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % 10
    for version, rows in (("v4", slice(0, 40)), ("v6", slice(5, 35))):
        np.save(folder / f"cifar10.1_{version}_data.npy", x[rows])
        np.save(folder / f"cifar10.1_{version}_labels.npy", y[rows])
    out = tmp_path / "cifar10.1.safetensors"
    for source, rows in ((folder.parent, slice(5, 35)), (folder / "cifar10.1_v4_data.npy", slice(0, 40))):
        record = prepare("cifar10.1", str(source), out, force=True)
        assert (record["train"], record["test"], record["class_names"]) == (0, len(y[rows]), CIFAR10_NAMES)
        found = open_data(out).split("test")
        assert np.array_equal(found.images, x[rows].transpose(0, 3, 1, 2)[found.index])
        assert np.array_equal(found.labels, y[rows][found.index])
    assert open_data(out).mean == [0.4914, 0.4822, 0.4465]
    (folder / "cifar10.1_v6_labels.npy").unlink()
    with pytest.raises(InputError, match="cifar10.1_v6_labels.npy is missing"):
        prepare("cifar10.1", str(folder), out)
    (folder / "cifar10.1_v6_data.npy").unlink()
    with pytest.raises(InputError, match="no cifar10.1_v6_data.npy in its 2 .npy files; check --from, or give"):
        prepare("cifar10.1", str(folder), out)
    with pytest.raises(UsageError, match="--from: cifar10.1 has no official archive; pass --from FOLDER"):
        prepare("cifar10.1", None, out)
