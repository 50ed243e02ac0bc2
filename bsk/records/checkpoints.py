"""Checkpoints: tensors and a JSON header in a safetensors file, without pickle."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bsk.errors import first_line
from bsk.records.atomic import make_folder, naming_the_file, replacing
from bsk.records.header_schema import MODEL, STATE
from bsk.records.headers import head, load_header, metadata, opening

__all__ = ["MODEL", "MODEL_PART", "STATE", "load", "model_tensors", "save"]

MODEL_PART = "model."  # prefix of the network's tensors in a training state


def model_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's own tensors from those of a training state."""
    return {name.removeprefix(MODEL_PART): t for name, t in tensors.items() if name.startswith(MODEL_PART)}


def save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and header to `path` atomically; the same content gives the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, _safetensors_as_os_errors():
        save_file(_apart(tensors), temporary, metadata=metadata(header))


def load(path: Path, kind: str | tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the header of a file whose kind is one of `kind`.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    header = load_header(path, kind)
    with opening(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - no dict


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors contiguous on the CPU; one with several names, as tied weights have, is copied for each."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        dense = tensor.detach().cpu().resolve_conj().contiguous()
        found[name] = dense.clone() if dense.untyped_storage().data_ptr() in seen else dense
        seen.add(dense.untyped_storage().data_ptr())
    return found


@contextlib.contextmanager
def _safetensors_as_os_errors() -> Iterator[None]:
    """Turn SafetensorError into OSError, since the library reports a full disk by an exception of its own."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(None, first_line(error, 80)) from error


class Bulk:
    """An fp32 tensor larger than memory, whose rows are written in any order.

    Until `save`, the rows are in an unnamed temporary file in the folder of `path`, which vanishes with the process.
    """

    def __init__(self, path: Path) -> None:
        """Remember the path of the safetensors file to write."""
        self.path = path
        self._file: Any = None

    def __enter__(self) -> Bulk:
        """Open the temporary file."""
        with naming_the_file(self.path):
            make_folder(self.path.parent)
            self._file = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 - closed in __exit__
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the temporary file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing retries a write that a full disk refused
                self._file.close()

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Write values (K, ...) fp32 as the rows (K,) of the tensor.

        Raises:
            InputError: the disk is full.
        """
        assert self._file is not None
        flat = values.detach().cpu().contiguous().flatten(1).numpy()
        with naming_the_file(self.path):
            for row, value in zip(rows.tolist(), flat, strict=True):
                self._file.seek(row * value.nbytes)
                self._file.write(value.data)
            self._file.flush()

    def take(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the rows (K,) that were put, as (K, *shape) fp32."""
        assert self._file is not None
        values = torch.empty(len(rows), *shape)
        for row, value in zip(rows.tolist(), values.numpy(), strict=True):
            self._file.seek(row * value.nbytes)
            self._file.readinto(value.data)
        return values

    def save(self, name: str, shape: list[int], tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Write the rows as the tensor `name`, after the int64 tensors, with a header, atomically.

        Raises:
            InputError: the file cannot be written.
        """
        assert self._file is not None
        shapes = {each: ("I64", list(tensor.shape)) for each, tensor in tensors.items()} | {name: ("F32", shape)}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.write(head(shapes, header))
            for tensor in tensors.values():
                file.write(tensor.contiguous().numpy().astype("<i8").data)
            self._file.seek(0)
            shutil.copyfileobj(self._file, file)
