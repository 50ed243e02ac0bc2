"""Peak memory of `bsk prepare-data cifar10` on an archive of the official size, relative to the size of the data."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

# Code of a function `peak`, which returns the peak resident memory of its process in bytes. It reads VmHWM rather than
# ru_maxrss, since a process inherits ru_maxrss from its parent.
PEAK = """
import re
from pathlib import Path
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
_PREPARE = (
    PEAK
    + """
import sys
from bsk.data.sources import prepare
import bsk.data.formats.cifar
import pyarrow.parquet
before = peak()
prepare("cifar10", sys.argv[1], Path(sys.argv[2]))
print(peak() - before)
"""
)


def prepare_data_over_data() -> float:
    """Return the growth of peak resident memory after imports, relative to the bytes of pixels and labels."""
    with tempfile.TemporaryDirectory() as folder:
        archive, out = Path(folder) / "cifar-10-python.tar.gz", Path(folder) / "cifar10.safetensors"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
                _add(tar, name)
            _pack(tar, "batches.meta", {b"label_names": [f"class {i}".encode() for i in range(10)]})
        return peak_over_data(archive, out)


def peak_over_data(source: Path, out: Path) -> float:
    """Return the same ratio for CIFAR-10 in any source format; the prepared file is `out`."""
    out.unlink(missing_ok=True)
    command = [sys.executable, "-c", _PREPARE, str(source), str(out)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return peak / out.stat().st_size


def _add(tar: tarfile.TarFile, name: str) -> None:
    random = np.random.default_rng(sum(name.encode()))
    pixels = random.integers(0, 256, (10_000, 3072), dtype=np.uint8)
    _pack(tar, name, {b"data": pixels, b"labels": [i % 10 for i in range(10_000)]})


def _pack(tar: tarfile.TarFile, name: str, content: dict[bytes, object]) -> None:
    body = pickle.dumps(content, protocol=2)
    member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    member.size = len(body)
    tar.addfile(member, io.BytesIO(body))
