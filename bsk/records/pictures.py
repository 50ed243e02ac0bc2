"""Images with their labels and other columns, for other programs: NumPy arrays or a folder of PNG files."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.errors import InputError, UsageError
from bsk.records import jsonl
from bsk.records.atomic import lock, make_folder, naming_the_file, replacing, sweep, sync

TENSORS, ARRAYS = ".safetensors", ".npz"
LOSSY = (".jpg", ".jpeg", ".webp")
MODES = {1: "L", 3: "RGB"}  # of PNGs, by channels
INDEX = "images.jsonl"

Columns = Mapping[str, NDArray[np.integer[Any]]]
Record = dict[str, Any]


def checked_out(path: Path) -> Path:
    """Return a valid path for images: F.safetensors, F.npz or an empty or new folder.

    Raises:
        UsageError: it is another kind of file.
        InputError: the folder is not empty.
    """
    advice = "name F.safetensors, F.npz, or a folder for PNGs"
    if path.suffix.lower() in LOSSY:
        raise UsageError(f"--out {path}: lossy formats change pixels and so verdicts; {advice}")
    if path.suffix not in (TENSORS, ARRAYS, "") and not path.is_dir():
        raise UsageError(f"--out {path}: {advice}; other formats are not written")
    if is_folder(path) and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: exists and is not an empty folder; choose another --out")
    return path


def check_channels(path: Path, channels: int) -> None:
    """Raise an InputError if images with so many channels are to be written as PNG files, which cannot hold them."""
    if is_folder(path) and channels not in MODES:
        raise InputError(f"{path}: PNG cannot hold images with {channels} channels; name F.npz or F.safetensors")


def is_folder(path: Path) -> bool:
    """Return whether the path stands for a folder of PNG files, not for one file."""
    return path.suffix not in (TENSORS, ARRAYS)


def write_arrays(path: Path, images: NDArray[np.uint8], columns: Columns, record: Record) -> None:
    """Write `images` (N, C, H, W) uint8, columns (N,) and the record, as the text `record`, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        named: dict[str, Any] = {"images": images, "record": np.array(jsonl.dumps(record).strip()), **columns}
        np.savez(file, **named)


def write_folder(
    path: Path, images: NDArray[np.uint8], classes: Sequence[str], columns: Columns, record: Record
) -> None:
    """Write each image (C, H, W) uint8 as CLASS/INDEX.png, and `images.jsonl`: the record, then one line per image.

    CLASS is the name of the true class, or its number if one of the names cannot be a folder name. The folder appears
    atomically.

    Raises:
        InputError: the folder cannot be written.
    """
    from PIL import Image

    mode, folders = MODES[images.shape[1]], _folders(classes)
    with naming_the_file(path):
        make_folder(path.absolute().parent)
        sweep(path.absolute())
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.absolute().parent))
        handle = os.open(temporary, os.O_RDONLY)
        try:
            lock(handle)  # shows other processes that the folder is being written
            lines = [jsonl.dumps(record).strip()]
            for place, image in enumerate(images):
                own = {name: int(values[place]) for name, values in columns.items()}
                file = temporary / folders[own["labels"]] / f"{own['index']}.png"
                file.parent.mkdir(exist_ok=True)
                pixels = image[0] if mode == "L" else np.ascontiguousarray(image.transpose(1, 2, 0))
                Image.fromarray(pixels, mode).save(file, format="PNG")
                lines.append(jsonl.dumps({"file": str(file.relative_to(temporary)), **own}).strip())
            (temporary / INDEX).write_text("\n".join(lines) + "\n", encoding="utf-8")
            temporary.chmod(0o755)  # mkdtemp creates it with mode 0700
            temporary.replace(path)
            sync(path.absolute().parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(handle)


def _folders(classes: Sequence[str]) -> list[str]:
    plain = all(re.fullmatch(r"\w[\w .-]{0,99}", name) for name in classes) and len(set(classes)) == len(classes)
    return list(classes) if plain else [str(number) for number in range(len(classes))]
