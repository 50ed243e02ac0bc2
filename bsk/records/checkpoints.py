"""Checkpoints: tensors and one JSON header in a safetensors file. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bsk.records.atomic import replacing
from bsk.records.header_schema import MODEL, STATE
from bsk.records.headers import load_header, metadata, opening

__all__ = ["MODEL", "MODEL_PART", "STATE", "load", "model_tensors", "save"]

MODEL_PART = "model."  # in the names of a training state


def model_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the network alone, from the tensors of a training state."""
    return {name.removeprefix(MODEL_PART): t for name, t in tensors.items() if name.startswith(MODEL_PART)}


def save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and header to `path`, whole or not at all, the same bytes for the same content.

    Raises:
        InputError: the file cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary, _safetensors_as_os_errors():
        save_file(contiguous, temporary, metadata=metadata(header))


def load(path: Path, kind: str | tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the header of a file of one of these kinds.

    Raises:
        InputError: the file is missing, is not a whole safetensors file, or holds something else.
    """
    header = load_header(path, kind)
    with opening(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - no dict


@contextlib.contextmanager
def _safetensors_as_os_errors() -> Iterator[None]:
    """The library reports a full disk as an error of its own kind, with the system's text in it."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(None, str(error).splitlines()[0][:80]) from error
