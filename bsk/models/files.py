"""Recognising and reading files of weights; only tensors and numbers are unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from bsk.errors import InputError, first_line
from bsk.models.unpickling import AGAIN, quoted, saving, torch_load
from bsk.records.headers import check_head

SAFETENSORS, TORCH = "a safetensors file", "a file of torch.save"
SCRIPT, EXPORTED, OTHER_ZIP = "a file of TorchScript", "a file of torch.export", "a zip archive, not of torch.save"
# files that hold code beside their weights -> how to extract the weights with torch, without running pickles
_WITH_CODE = {SCRIPT: "torch.jit.load({0}).state_dict()", EXPORTED: "torch.export.load({0}).state_dict"}
# other kinds, by their first bytes -> what they are, and the next step
_OTHERS = {
    b"version https://git-lfs": "a pointer of git lfs, not the file itself; fetch it with git lfs pull",
    b"<": "a web page or other markup; download the file itself",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x89HDF": "an HDF5 file, as written by Keras; give a state dict of torch",
    b"\x93NUMPY": "a numpy array; give a state dict of torch",
    b"\x08": "a protocol buffer, as ONNX and TensorFlow write; give a state dict of torch",
}


def kind(path: Path) -> str | None:
    """Return the kind of a file by its content: one of the constants of this module, or None.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":  # after the length of the JSON header
        return SAFETENSORS
    if not zipfile.is_zipfile(path):
        return TORCH if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") else None
    with zipfile.ZipFile(path) as archive:
        every = archive.namelist()
    names = {*every, *(name.partition("/")[2] for name in every)}  # most begin with the archive's name
    if names & {"models/model.json", "serialized_exported_program.json"}:  # since torch 2.7, and before it
        return EXPORTED
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return SCRIPT
    return TORCH if any(name.lower().endswith("data.pkl") for name in names) else OTHER_ZIP


def contents(path: Path) -> object:
    """Return the contents of a file of weights on the CPU: tensors by name, possibly in nested dicts.

    Raises:
        InputError: the file is missing, corrupt or of another kind, or holds more than tensors and plain numbers.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file of weights; {AGAIN}")
    try:
        found = kind(path)
        if found == SAFETENSORS or (found is None and path.suffix.lower() == ".safetensors"):
            check_head(path, AGAIN)
            tensors: Mapping[str, object] = load_file(path)
            return tensors
        if found is None:
            _refuse_others(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check --weights") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}; check --weights") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({first_line(error, 80)}); {AGAIN}") from error
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a whole zip archive ({first_line(error, 80)}); {AGAIN}") from error
    if found in _WITH_CODE:
        raise InputError(f"{path}: is {found}, which includes code; {_taken_out(path, _WITH_CODE[found])}")
    if found == OTHER_ZIP:
        raise InputError(f"{path}: is {found}; {AGAIN}")
    try:
        return torch_load(path)
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}; check --weights") from error


def _refuse_others(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(64)
    for sign, said in _OTHERS.items():
        if start.lstrip().startswith(sign):
            raise InputError(f"{path}: is {said}")


def _taken_out(path: Path, weights: str) -> str:
    """Return a command that saves the weights of a file as a state dict."""
    out = path.with_name(f"{path.stem}-weights.pt")
    return f"extract its weights with: {saving(weights.format(quoted(path)), out)}"
