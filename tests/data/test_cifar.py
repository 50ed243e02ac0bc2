from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_archives import (
    CIFAR10_NAMES,
    cifar10_binary,
    cifar10_python,
    cifar100_binary,
    cifar100_python,
    images_and_labels,
    old_pickle,
    tarred,
    unpacked,
)
from safetensors.numpy import load_file

from bsk.data.official import OFFICIAL
from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.errors import InputError, UsageError


def _tensors(dataset: str, source: Path, out: Path, **keywords: Any) -> dict[str, np.ndarray]:
    prepare(dataset, str(source), out, **keywords)
    return load_file(out)


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_every_form_of_cifar10_gives_the_same_tensors(tmp_path: Path) -> None:
    python, binary = cifar10_python(40, 60), cifar10_binary(40, 60)
    sources = [
        tarred(tmp_path / "p.tar.gz", "cifar-10-batches-py", python),
        tarred(tmp_path / "p.tar", "cifar-10-batches-py", dict(reversed(python.items())), "w:"),
        tarred(tmp_path / "b.tar.gz", "cifar-10-batches-bin", binary),
        unpacked(tmp_path / "python", python),
        unpacked(tmp_path / "around" / "cifar-10-batches-bin", binary).parent,
    ]
    found = [_tensors("cifar10", source, tmp_path / "out.safetensors") for source in sources]
    assert all(_same(each, found[0]) for each in found[1:])
    images, labels = images_and_labels(200, 10)
    for split, n in (("train", 180), ("val", 20)):
        rows = found[0][f"{split}_index"]
        assert len(rows) == n
        assert np.array_equal(found[0][f"{split}_images"], images[rows].reshape(-1, 3, 32, 32))
        assert np.array_equal(found[0][f"{split}_labels"], labels[rows])
        assert np.bincount(found[0][f"{split}_labels"]).tolist() == [n // 10] * 10
    images, labels = images_and_labels(60, 10, seed=1)
    assert np.array_equal(found[0]["test_images"], images[found[0]["test_index"]].reshape(-1, 3, 32, 32))


def test_every_form_of_cifar100_gives_the_same_tensors(tmp_path: Path) -> None:
    python = tarred(tmp_path / "p.tar.gz", "cifar-100-python", cifar100_python(400, 100))
    binary = tarred(tmp_path / "b.tar.gz", "cifar-100-binary", cifar100_binary(400, 100))
    folder = unpacked(tmp_path / "folder", cifar100_python(400, 100))
    found = [_tensors("cifar100", each, tmp_path / "out.safetensors") for each in (python, binary, folder)]
    assert _same(found[0], found[1])
    assert _same(found[0], found[2])
    _, labels = images_and_labels(400, 100)
    assert np.array_equal(found[1]["train_labels"], labels[found[1]["train_index"]])  # the fine label, not the coarse
    assert open_data(tmp_path / "out.safetensors").classes[:2] == ["fine0", "fine1"]


def test_a_pickle_of_python_3_is_read_too(tmp_path: Path) -> None:
    files = cifar10_python(20, 20)
    images, labels = images_and_labels(20, 10, seed=1)
    for protocol in (2, 3):
        files["test_batch"] = pickle.dumps({"labels": labels.tolist(), "data": images}, protocol)
        found = _tensors("cifar10", unpacked(tmp_path / "files", files), tmp_path / "out.safetensors")
        assert np.array_equal(found["test_images"], images[found["test_index"]].reshape(-1, 3, 32, 32))
    files["test_batch"] = pickle.dumps({"labels": labels.tolist(), "data": np.asfortranarray(images)}, 2)
    again = _tensors("cifar10", unpacked(tmp_path / "files", files), tmp_path / "out.safetensors")
    assert _same(found, again)


def test_preparing_is_deterministic_to_the_byte(tmp_path: Path) -> None:
    source = tarred(tmp_path / "p.tar.gz", "cifar-10-batches-py", cifar10_python(40, 60))
    record = prepare("cifar10", str(source), tmp_path / "a.safetensors", train_limit=70, test_limit=25)
    prepare("cifar10", str(source), tmp_path / "b.safetensors", train_limit=70, test_limit=25)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (record["train"], record["val"], record["test"]) == (70, 20, 25)
    data = open_data(tmp_path / "a.safetensors")
    assert record["sha256"] == data.sha256
    assert np.bincount(data.split("train").labels).tolist() == [7] * 10
    assert (data.mean, data.augment, data.model) == ([0.4914, 0.4822, 0.4465], "crop-flip", "resnet18")
    md5 = hashlib.md5(source.read_bytes()).hexdigest()
    assert data.source == {"files": {"p.tar.gz": f"md5:{md5}"}, "official": False}


def test_copies_of_an_image_are_never_in_both_train_and_val(tmp_path: Path) -> None:
    files = cifar10_binary(40, 60)
    files["data_batch_2.bin"] = files["data_batch_1.bin"]
    found = _tensors("cifar10", unpacked(tmp_path / "files", files), tmp_path / "out.safetensors", val=60)
    train = {image.tobytes() for image in found["train_images"]}
    assert not train & {image.tobytes() for image in found["val_images"]}
    assert len(found["val_images"]) == 60
    with pytest.raises(InputError, match="120 of 200 train images can be held out for val"):
        prepare("cifar10", str(tmp_path / "files"), tmp_path / "out.safetensors", val=150)


def test_only_unofficial_images_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = cifar10_python(20, 20)
    source, folder = tarred(tmp_path / "p.tar.gz", "x", files), unpacked(tmp_path / "x", files)
    said: list[str] = []
    assert not prepare("cifar10", str(source), tmp_path / "out.safetensors", notice=said.append)["official"]
    md5 = hashlib.md5(source.read_bytes()).hexdigest()
    out = tmp_path / "out.safetensors"
    rows = "the official batches of its train or test, in their order"
    told = f"{out}: train_index val_index test_index number the rows of {rows}"
    told += "; train your own networks on the rows of train_index only"
    assert said == [f"{source}: not the official archive (md5 {md5}); using it anyway", told]
    assert not prepare("cifar10", str(folder), tmp_path / "out.safetensors", notice=said.append)["official"]
    assert said[2] == f"{folder}: not the official files; using it anyway"
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for name in ("cifar10", "cifar100"):
        monkeypatch.setitem(OFFICIAL, name, type(OFFICIAL[name])(OFFICIAL[name].url, "0", (md5,), sums))
    assert prepare("cifar10", str(source), tmp_path / "out.safetensors", notice=said.append)["official"]
    assert prepare("cifar10", f"file://{folder}", tmp_path / "out.safetensors", notice=said.append)["official"]
    assert said[3:] == [told] * 3


def _refused(dataset: str, source: Path) -> str:
    out = source.with_name("out.safetensors")
    with pytest.raises(InputError) as caught:
        prepare(dataset, str(source), out)
    assert not out.exists()
    message = str(caught.value)
    assert message.startswith(str(source))
    assert "\n" not in message
    assert "; " in message, "no next step"
    return message


def _without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


def test_sources_that_lack_something(tmp_path: Path) -> None:
    files = cifar10_python(20, 20)
    assert "no such file or folder" in _refused("cifar10", tmp_path / "nothing.tar.gz")
    (tmp_path / "empty").mkdir()
    assert "expected data_batch_1 and batches.meta or data_batch_1.bin" in _refused("cifar10", tmp_path / "empty")
    missing = tarred(tmp_path / "m.tar.gz", "x", _without(files, "data_batch_3"))
    assert "data_batch_3 is missing" in _refused("cifar10", missing)
    other = tarred(tmp_path / "o.tar.gz", "x", cifar100_python(100, 100))
    assert "holds cifar100, expected cifar10" in _refused("cifar10", other)
    (tmp_path / "page.tar.gz").write_bytes(b"\n<!DOCTYPE html><html>Too many requests</html>")
    assert "a web page, expected a .tar.gz" in _refused("cifar10", tmp_path / "page.tar.gz")
    (tmp_path / "none.tar.gz").write_bytes(b"")
    assert "an empty file" in _refused("cifar10", tmp_path / "none.tar.gz")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("test_batch", {"labels": [1, 2], "data": np.zeros((3, 3072), np.uint8)}, "2 labels for 3 images"),
        ("test_batch", {"labels": [1, 10], "data": np.zeros((2, 3072), np.uint8)}, "label 10 is outside 0..9"),
        ("test_batch", {"labels": [1, -2], "data": np.zeros((2, 3072), np.uint8)}, "label -1 is outside 0..9"),
        ("test_batch", {"labels": ["a", "b"], "data": np.zeros((2, 3072), np.uint8)}, "not a list of whole numbers"),
        ("test_batch", {"labels": [1], "data": np.zeros((1, 3071), np.uint8)}, "not an array (N, 3072) of uint8"),
        ("test_batch", {"labels": [1], "data": "pixels"}, "not an array (N, 3072) of uint8"),
        ("test_batch", {"labels": [1]}, "not an array (N, 3072) of uint8"),
        ("test_batch", {"labels": [], "data": np.zeros((0, 3072), np.uint8)}, "0 labels for 0 images"),
        ("test_batch", ["a"], "expected a pickled dictionary, found list"),
        ("batches.meta", {"label_names": ["a", "b"]}, "2 class names, expected 10"),
        ("batches.meta", {"label_names": ["a"] * 10}, "1 class names, expected 10"),
        ("batches.meta", {}, "0 class names, expected 10"),
    ],
)
def test_pickles_with_other_content_are_refused(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    files = cifar10_python(20, 20) | {name: old_pickle(content)}
    assert expected in _refused("cifar10", unpacked(tmp_path / "files", files))


def test_binary_files_with_other_content_are_refused(tmp_path: Path) -> None:
    files = cifar10_binary(20, 20)
    odd = unpacked(tmp_path / "odd", files | {"test_batch.bin": files["test_batch.bin"][:-1]})
    assert "expected a multiple of 3073" in _refused("cifar10", odd)
    label = unpacked(tmp_path / "label", files | {"test_batch.bin": b"\x63" + files["test_batch.bin"][1:]})
    assert "label 99 is outside 0..9" in _refused("cifar10", label)
    names = unpacked(tmp_path / "names", files | {"batches.meta.txt": b"cat dog"})
    assert "2 class names, expected 10" in _refused("cifar10", names)


@pytest.mark.parametrize("part", [0.001, 0.3, 0.6, 0.99, 0.99999])
def test_torn_archives_are_refused(tmp_path: Path, part: float) -> None:
    for mode, name in (("w:gz", "t.tar.gz"), ("w:", "t.tar")):
        source = tarred(tmp_path / name, "x", cifar10_python(20, 20), mode)
        content = source.read_bytes()
        if mode == "w:":
            content = content.rstrip(b"\0")  # the padding at the end may be missing
        source.write_bytes(content[: int(len(content) * part)])
        _refused("cifar10", source)


def test_a_flipped_bit_in_a_compressed_archive_is_noticed(tmp_path: Path) -> None:
    source = tarred(tmp_path / "t.tar.gz", "x", cifar10_python(20, 20))
    for place in (0.2, 0.5, 0.9):
        content = bytearray(source.read_bytes())
        content[int(len(content) * place)] ^= 4
        (tmp_path / "f.tar.gz").write_bytes(content)
        _refused("cifar10", tmp_path / "f.tar.gz")


def test_peak_memory_is_at_most_twice_the_data(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to measure a peak")
    files = cifar10_python(1600, 1600)
    source = tarred(tmp_path / "p.tar", "x", files, "w:")
    source = Path(_stored(source, tmp_path / "p.tar.gz"))
    code = f"""
import bsk.data.sources
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
bsk.data.sources.prepare("cifar10", {str(source)!r}, bsk.data.sources.Path({str(tmp_path / "out.safetensors")!r}))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    data = 6 * 1600 * 3072 / 1024
    assert int(done.stdout) < 2 * data, f"{int(done.stdout) / data:.2f} x the data"


def _stored(source: Path, target: Path) -> Path:
    with gzip.open(target, "wb", compresslevel=0) as file:
        file.write(source.read_bytes())
    return target


@pytest.mark.parametrize(
    ("dataset", "archive", "counts", "classes"),
    [
        ("cifar10", "cifar10-subset-exact-python.tar.gz", (9000, 1000, 2000), 10),
        ("cifar100", "cifar100-subset-python.tar.gz", (5400, 600, 2000), 100),
    ],
)
def test_real_images(
    shared: Path, tmp_path: Path, dataset: str, archive: str, counts: tuple[int, ...], classes: int
) -> None:
    source = shared / "data" / archive
    if not source.exists():
        pytest.skip(f"no {archive}")
    record = prepare(dataset, str(source), tmp_path / "out.safetensors")
    assert (record["train"], record["val"], record["test"]) == counts
    assert not record["official"]
    committed = Path(__file__).parents[2] / "results" / "small" / "runs" / dataset
    named = {json.loads(line).get("data_sha256") for each in committed.glob("*.jsonl") for line in each.open()}
    assert named - {None} == {record["sha256"]}  # so that make and bsk compare go on from these records
    data = open_data(tmp_path / "out.safetensors")
    for name, n in zip(("train", "val", "test"), counts, strict=True):
        split = data.split(name)
        assert np.bincount(split.labels).tolist() == [n // classes] * classes
        assert abs(split.images[:500].double().mean() / 255 - 0.47) < 0.03
    assert data.classes[:2] == (CIFAR10_NAMES[:2] if classes == 10 else ["apple", "aquarium_fish"])
    with tarfile.open(source) as whole:
        name = next(each for each in whole.getnames() if each.endswith(("test_batch", "/test")))
        loaded = pickle.load(whole.extractfile(name), encoding="latin1")  # as everybody else reads these files
    split = data.split("test")
    assert np.array_equal(split.images.numpy(), loaded["data"][split.index].reshape(-1, 3, 32, 32))
    assert split.labels.tolist() == np.array(loaded.get("labels", loaded.get("fine_labels")))[split.index].tolist()


@pytest.mark.parametrize("layout", ["python", "binary"])
def test_cifar100_has_coarse_labels_where_they_are_asked_for(tmp_path: Path, layout: str) -> None:
    files = cifar100_python(300, 100) if layout == "python" else cifar100_binary(300, 100)
    coarse = [f"coarse{i}" for i in range(20)]
    if layout == "python":
        names = {"fine_label_names": [f"fine{i}" for i in range(100)], "coarse_label_names": coarse}
        files["meta"] = old_pickle(names)
    else:
        files["coarse_label_names.txt"] = "\n".join(coarse).encode()
    source = unpacked(tmp_path / "x", files)
    record = prepare("cifar100", str(source), tmp_path / "a.safetensors", labels=["coarse_labels"], val=10)
    assert record["class_names"] == coarse
    _, labels = images_and_labels(300, 100, 0)
    found = open_data(tmp_path / "a.safetensors").split("train")
    assert np.array_equal(found.labels, (labels % 20)[found.index])
    fine = prepare("cifar100", str(source), tmp_path / "b.safetensors", labels=["fine_labels"], val=10)
    assert fine["classes"] == 100
    with pytest.raises(
        UsageError, match="--labels sex: cifar100 has fine_labels and coarse_labels; leave it out, or name"
    ):
        prepare("cifar100", str(source), tmp_path / "c.safetensors", labels=["sex"])
