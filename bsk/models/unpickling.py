"""The guard in front of `torch.load`: it admits files of torch.save with tensors and numbers only, and no code."""

from __future__ import annotations

import errno
import json
import pickle
import pickletools
import re
import shlex
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from bsk.errors import InputError
from bsk.models.numpy_numbers import NUMPY, STAND_INS, refused, rehearse

# What state dicts consist of. The other names that torch allows create bytes from numbers, or unusual tensors.
NEEDED = re.compile(
    r"collections (OrderedDict|Counter)|torch (\w+Storage|Size|Tensor|device|[a-z]+\d+\w*|bool)"
    r"|torch\.cuda \w+Storage|torch\.storage (Typed|Untyped)Storage|torch\.nn\.parameter Parameter"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor _rebuild_from_type_v2|(builtins|__builtin__) set"
)
PICKLE = 1 << 20  # maximum bytes of a pickle; as objects they can take 80 times as much memory
PICKLES = 5  # in a file of the format before zip: magic number, version, system information, content, storage keys
AGAIN = "give a state dict, as written by torch.save(model.state_dict(), path)"


def torch_load(path: Path) -> object:
    """Return the contents of a file of torch.save on the CPU, read by `torch.load` with `weights_only=True`.

    A malicious or corrupt pickle can fail in any way, so every failure is blamed on the file, and warnings are ignored.

    Raises:
        InputError: the file is corrupt, or holds more than tensors and plain numbers.
        OSError: it cannot be read.
    """
    try:
        _check_expansion(path)
        for text in _pickles(path):
            _check_pickle(path, text)
        names: list[Any] = [(stand_in, ".".join(name)) for name, stand_in in STAND_INS.items()]
        with warnings.catch_warnings(), torch.serialization.safe_globals(names), path.open("rb") as file:
            warnings.simplefilter("ignore")
            found: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        damaged = isinstance(error, OSError) and error.errno == errno.EINVAL  # a member before the file's beginning
        if isinstance(error, OSError | InputError) and not damaged:
            raise
        if needs := re.search(r"GLOBAL (\S+)", str(error)):
            raise _too_much(path, needs[1]) from error
        raise InputError(f"{path}: not a whole file of torch.save ({type(error).__name__}); {AGAIN}") from error
    return found


def _check_expansion(path: Path) -> None:
    """Refuse a zip archive whose members are larger than itself, since torch.save does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inside = sum(member.file_size for member in archive.infolist())
        if inside > path.stat().st_size:
            raise InputError(f"{path}: expands to {inside} bytes, unlike any file of torch.save; {AGAIN}")


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """Yield the pickles of a file of torch.save in either format, as a file positioned at each of them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():  # torch ignores case, and reads one of two members with the same name
                if member.filename.lower().endswith(".pkl"):
                    with archive.open(member) as file:
                        yield file
    else:
        with path.open("rb") as file:
            for _ in range(PICKLES):
                yield file


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Read one pickle to its end without running it, and rehearse it if it contains numbers of numpy.

    Raises:
        InputError: it is too long, has a protocol that torch does not read, or names something no state dict needs.
        ValueError: it is corrupt.
    """
    start = file.tell()
    names: set[str] = set()
    for opcode, argument, place in pickletools.genops(file):
        if (protocol := _protocol(opcode.name, argument)) is not None:
            raise _unread_protocol(path, protocol)
        if opcode.name == "GLOBAL":
            names.add(str(argument))
            if not (NEEDED.fullmatch(str(argument)) or NUMPY.fullmatch(str(argument))):
                raise _too_much(path, str(argument).replace(" ", "."))
        if (place or 0) - start >= PICKLE:
            raise InputError(f"{path}: a pickle of more than {PICKLE} bytes, unlike any state dict; {AGAIN}")
    if strange := refused(names):
        raise _too_much(path, strange.replace(" ", "."))
    if any(map(NUMPY.fullmatch, names)):
        end = file.tell()
        file.seek(start)
        _rehearse(path, file.read(end - start))


def _protocol(opcode: str, argument: object) -> int | None:
    """Return the protocol of an opcode if torch's safe reader does not support that protocol, else None."""
    if opcode == "PROTO" and isinstance(argument, int) and argument > 3:
        return argument
    return 3 if opcode.endswith("BINBYTES") else None


def _rehearse(path: Path, text: bytes) -> None:
    try:
        rehearse(text)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: holds more than tensors and numbers ({error}); {AGAIN}") from error


def _unread_protocol(path: Path, protocol: int) -> InputError:
    known = f"pickle protocol {protocol}; torch's safe reader knows 2, and 3 without bytes"
    command = saving(f"torch.load({quoted(path)}, weights_only=False)", path.with_name(f"{path.stem}-2.pt"))
    return InputError(f"{path}: is written with {known}; if you trust the code in it, convert it with: {command}")


def saving(what: str, path: Path) -> str:
    """Return a shell command that saves the value of a Python expression with torch at `path`."""
    return f"python -c {shlex.quote(f'import torch; torch.save({what}, {quoted(path)})')}"


def quoted(path: Path) -> str:
    """Return a path as a Python string literal in double quotes, which a single-quoted shell argument can contain."""
    return json.dumps(str(path))


def _too_much(path: Path, name: str) -> InputError:
    return InputError(f"{path}: holds more than tensors ({printable(name)}), which bsk does not unpickle; {AGAIN}")


def printable(name: str) -> str:
    """Return a name from a file in a form that a message can contain."""
    return (name if name.isprintable() else ascii(name))[:80]
