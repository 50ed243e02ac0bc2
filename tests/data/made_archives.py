"""Tiny datasets in the official layouts, made for the tests."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def old_pickle(value: Any) -> bytes:
    """Pickle like Python 2 with protocol 2, as in the official files: text and pixels as 8-bit strings."""
    return b"\x80\x02" + b"".join(opcodes(value)) + b"."


def opcodes(value: Any) -> list[bytes]:
    if isinstance(value, dict):
        inner = [part for pair in value.items() for each in pair for part in opcodes(each)]
        return [b"}q\x01(", *inner, b"u"]
    if isinstance(value, list):
        return [b"]q\x02(", *(part for each in value for part in opcodes(each)), b"e"]
    if isinstance(value, str):
        return [b"U", bytes([len(value)]), value.encode("latin1")]
    if isinstance(value, int):
        return [b"J", struct.pack("<i", value)]
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8
    shape = b"".join(part for each in value.shape for part in opcodes(each))
    return [
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01",
        (b"(" + shape + b"t"),
        b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        b"T" + struct.pack("<i", value.nbytes) + value.tobytes() + b"tb",
    ]


def images_and_labels(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images (n, 3072), and labels in which each class comes up equally often, in a random order."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, 3072), np.uint8), random.permutation(np.arange(n) % classes)


def cifar10_python(batch: int, test: int) -> dict[str, bytes]:
    """The files of CIFAR-10's python layout, with a given number of images per batch."""
    files = {}
    images, labels = images_and_labels(5 * batch, 10)
    for i in range(5):
        rows = slice(i * batch, (i + 1) * batch)
        files[f"data_batch_{i + 1}"] = old_pickle(
            {
                "batch_label": f"training batch {i + 1} of 5",
                "labels": labels[rows].tolist(),
                "data": images[rows],
                "filenames": [f"image_{row}.png" for row in range(batch)],
            }
        )
    images, labels = images_and_labels(test, 10, seed=1)
    files["test_batch"] = old_pickle({"batch_label": "testing", "labels": labels.tolist(), "data": images})
    files["batches.meta"] = old_pickle({"num_cases_per_batch": batch, "label_names": CIFAR10_NAMES, "num_vis": 3072})
    return files


def cifar10_binary(batch: int, test: int) -> dict[str, bytes]:
    """The same images in CIFAR-10's binary layout."""
    images, labels = images_and_labels(5 * batch, 10)
    rows = np.hstack([labels[:, None].astype(np.uint8), images])
    files = {f"data_batch_{i + 1}.bin": rows[i * batch : (i + 1) * batch].tobytes() for i in range(5)}
    images, labels = images_and_labels(test, 10, seed=1)
    files["test_batch.bin"] = np.hstack([labels[:, None].astype(np.uint8), images]).tobytes()
    files["batches.meta.txt"] = "\n".join([*CIFAR10_NAMES, "", ""]).encode()
    return files


def cifar100_python(train: int, test: int) -> dict[str, bytes]:
    """The files of CIFAR-100's python layout."""
    files = {}
    for seed, (name, n) in enumerate((("train", train), ("test", test))):
        images, labels = images_and_labels(n, 100, seed)
        fine, coarse = labels.tolist(), (labels % 20).tolist()
        files[name] = old_pickle({"data": images, "coarse_labels": coarse, "fine_labels": fine})
    files["meta"] = old_pickle({"fine_label_names": [f"fine{i}" for i in range(100)], "coarse_label_names": ["c"]})
    return files


def cifar100_binary(train: int, test: int) -> dict[str, bytes]:
    """The same images in CIFAR-100's binary layout: coarse byte, fine byte, pixels."""
    files = {}
    for seed, (name, n) in enumerate((("train.bin", train), ("test.bin", test))):
        images, labels = images_and_labels(n, 100, seed)
        both = np.stack([labels % 20, labels], 1).astype(np.uint8)
        files[name] = np.hstack([both, images]).tobytes()
    files["fine_label_names.txt"] = "\n".join(f"fine{i}" for i in range(100)).encode()
    return files


def tarred(path: Path, folder: str, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    """Write files into a tar archive, below one folder."""
    keywords = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **keywords) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
