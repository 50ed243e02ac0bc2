"""The guard before `torch.load`: files of torch.save that hold tensors and numbers, and nothing that could run."""

from __future__ import annotations

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

# What state dicts are made of. Of what torch admits beside it, some makes bytes of a number, some no plain tensors.
NEEDED = re.compile(
    r"collections (OrderedDict|Counter)|torch (\w+Storage|Size|Tensor|device|[a-z]+\d+\w*|bool)"
    r"|torch\.cuda \w+Storage|torch\.storage (Typed|Untyped)Storage|torch\.nn\.parameter Parameter"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor _rebuild_from_type_v2|(builtins|__builtin__) set"
)
PICKLE = 1 << 20  # bytes of a pickle that are still believed; as objects they can be 80 times as much
PICKLES = 5  # in a file of the form before zip: what it is, its version, the machine, the content, its storages
AGAIN = "give a state dict, as torch.save(model.state_dict(), path) writes it"


def torch_load(path: Path) -> object:
    """Return what a file of torch.save holds, on the CPU, by `torch.load` with `weights_only=True`.

    A hostile or torn pickle can fail in any way, so every failure is the file's, and warnings add nothing.

    Raises:
        InputError: the file is torn, or holds more than tensors and plain numbers.
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
    except (OSError, InputError):
        raise
    except Exception as error:
        if needs := re.search(r"GLOBAL (\S+)", str(error)):
            raise _too_much(path, needs[1]) from error
        raise InputError(f"{path}: not a whole file of torch.save ({type(error).__name__}); {AGAIN}") from error
    return found


def _check_expansion(path: Path) -> None:
    """Refuse a zip archive whose members are larger than itself: torch.save compresses nothing."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inside = sum(member.file_size for member in archive.infolist())
        if inside > path.stat().st_size:
            raise InputError(f"{path}: expands to {inside} bytes, as no file of torch.save does; {AGAIN}")


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """Yield the pickles of a file of torch.save, each open at its start, whichever its form."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():  # torch finds them in any case, and one of those that stand twice
                if member.filename.lower().endswith(".pkl"):
                    with archive.open(member) as file:
                        yield file
    else:
        with path.open("rb") as file:
            for _ in range(PICKLES):
                yield file


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Read one pickle to its end, without running it, and rehearse it if it holds numbers of numpy.

    Raises:
        InputError: it is too long, of a protocol that torch does not read, or names what no state dict needs.
        ValueError: it is torn.
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
            raise InputError(f"{path}: a pickle of more than {PICKLE} bytes, as no state dict has; {AGAIN}")
    if strange := refused(names):
        raise _too_much(path, strange.replace(" ", "."))
    if any(map(NUMPY.fullmatch, names)):
        end = file.tell()
        file.seek(start)
        _rehearse(path, file.read(end - start))


def _protocol(opcode: str, argument: object) -> int | None:
    """Return the protocol of an opcode that torch's reader does not know for its protocol alone."""
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
    return InputError(f"{path}: is written with {known}; if you trust what it runs, convert it by: {command}")


def saving(what: str, path: Path) -> str:
    """Return the command that saves what a line of Python with torch says, at `path`."""
    return f"python -c {shlex.quote(f'import torch; torch.save({what}, {quoted(path)})')}"


def quoted(path: Path) -> str:
    """Return a path as Python's text, without the quotes that a shell's would need to escape."""
    return json.dumps(str(path))


def _too_much(path: Path, name: str) -> InputError:
    return InputError(f"{path}: holds more than tensors ({printable(name)}), which bsk does not unpickle; {AGAIN}")


def printable(name: str) -> str:
    """Return a name out of a file as a message can have it."""
    return (name if name.isprintable() else ascii(name))[:80]
