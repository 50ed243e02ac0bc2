"""Time and memory of reading 60,000 images from parquet and .npz, relative to Pillow and NumPy alone."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.memory import peak_over_data
from benchmarks.timing import ratio, say, spread
from bsk.data.formats import npz, parquet
from bsk.data.splits import Contents, Request

SPLITS = {"train": 50_000, "test": 10_000}
Reader = Callable[[Request], Contents]


def reading(repeats: int) -> None:
    """Measure both formats and print two rows for each."""
    with tempfile.TemporaryDirectory() as folder:
        forms: dict[str, tuple[Path, Reader, Callable[[Path], object]]] = {
            "npz": (_npz(Path(folder) / "a.npz"), npz.read, _by_numpy),
            "parquet": (_parquet(Path(folder) / "parquet"), parquet.read, _by_pillow),
        }
        for name, (source, read, alone) in forms.items():
            r = _ratio(source, read, alone, repeats)
            say(f"reading {name} / NumPy and Pillow alone", r.median, "<= 1.0", r.median <= 1.0, spread(r))
            over = peak_over_data(source, Path(folder) / "cifar10.safetensors")
            say(f"peak memory of prepare-data, {name} / size of the data", over, "<= 2", over <= 2)


def _ratio(source: Path, read: Reader, alone: Callable[[Path], object], repeats: int) -> Any:
    request = Request("cifar10", str(source), source.parent)
    return ratio(lambda: read(request), lambda: alone(source), repeats)


def _examples(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    n = SPLITS[split]
    pixels = np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return pixels, np.arange(n, dtype=np.int64) % 10


def _npz(path: Path) -> Path:
    arrays = {f"{axis}_{split}": array for split in SPLITS for axis, array in zip("xy", _examples(split), strict=True)}
    np.savez(path, **arrays)  # type: ignore[arg-type] # the stubs confuse these with another argument
    return path


def _parquet(folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    folder.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split in SPLITS:
        pixels, labels = _examples(split)
        files = pa.array([{"bytes": _png(each), "path": None} for each in pixels], kind)
        pq.write_table(pa.table({"img": files, "label": labels}), folder / f"{split}.parquet")
    return folder


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _by_numpy(path: Path) -> object:
    with np.load(path, allow_pickle=False) as file:
        return {key: np.ascontiguousarray(file[key].transpose(0, 3, 1, 2)) for key in file.files if key[0] == "x"}


def _by_pillow(folder: Path) -> object:
    from pyarrow import parquet as pq

    found = []
    for split in SPLITS:
        files = pq.read_table(folder / f"{split}.parquet").column("img").to_pylist()
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(each["bytes"]))) for each in files])
        found.append(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return found
