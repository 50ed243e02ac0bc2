"""Checkpoints: tensors and one JSON header in a safetensors file. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bsk.errors import InputError
from bsk.files.atomic import naming_the_file, replacing
from bsk.files.records import SCHEMA

KEY = "bsk"  # the one metadata key: several would be written in random order
HEADER_LIMIT = 1 << 24  # bytes of metadata that are still believed


def save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and header to `path`, whole or not at all, the same bytes for the same content.

    Raises:
        InputError: the file cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **header}, sort_keys=True, allow_nan=False)
    with replacing(path) as temporary, _safetensors_as_os_errors(path):
        save_file(contiguous, temporary, metadata={KEY: text})


def load(path: Path, kind: str | tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the header of a file of one of these kinds.

    Raises:
        InputError: the file is missing, is not a whole safetensors file, or holds something else.
    """
    header = load_header(path, kind)
    with _opening(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - no dict


def load_header(path: Path, kind: str | tuple[str, ...]) -> dict[str, Any]:
    """Return the header alone of a file of one of these kinds; see `load`."""
    with _opening(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    kinds = (kind,) if isinstance(kind, str) else kind
    try:
        header = json.loads(metadata[KEY])
        found, schema = header["kind"], header["schema"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: a safetensors file, but not written by bsk; give one that bsk wrote") from error
    if found not in kinds:
        raise InputError(f"{path}: expected a {' or '.join(kinds)} file, found a {found} file; check the path")
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema}, this bsk reads {SCHEMA}; use the version that wrote it")
    return dict(header)


class _opening:
    """Turn what goes wrong while reading a safetensors file into one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        if self.path.is_dir():
            raise InputError(f"{self.path}: is a folder; give a .safetensors file")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{self.path}: no such file; check the path") from error
        if isinstance(error, OSError):
            raise InputError(f"{self.path}: cannot read: {error.strerror or error}; check the path") from error
        if isinstance(error, (SafetensorError, UnicodeDecodeError)):
            reason = str(error).splitlines()[0][:80]
            raise InputError(f"{self.path}: not a whole safetensors file ({reason}); make it again") from error


class _safetensors_as_os_errors:
    """The library reports a full disk as an error of its own kind, with the system's text in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SafetensorError):
            with naming_the_file(self.path):
                raise OSError(None, str(error).splitlines()[0][:80]) from error
