"""Weights out of other people's files: whatever holds a state dict, without unpickling anything else."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bsk.errors import InputError
from bsk.records.headers import check_head

# Keys under which training scripts keep the state dict, and names that wrapping modules put before all keys.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
PREFIXES = ("module.", "model.", "_orig_mod.", "network.", "net.", "state_dict.")
LEVELS = 8  # of dicts in dicts, in which a state dict is looked for
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


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name, on the CPU, without prefixes that all names share.

    A .safetensors file is read as such, any other by `torch.load` with `weights_only=True`. The state dict
    may lie under `state_dict`, `model`, `net` and the like.

    Raises:
        InputError: the file is missing, torn, holds more than tensors and plain numbers, no tensors, or other
            ones than dense real ones.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file of weights; {AGAIN}")
    try:
        if path.suffix.lower() == ".safetensors":
            check_head(path, AGAIN)
            found: object = load_file(path)
        else:
            found = _torch_load(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check --weights") from error
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}; check --weights") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({_line(error)}); {AGAIN}") from error
    tensors = _tensors(found)
    if not tensors:
        raise InputError(f"{path}: expected tensors by name, found {_described(found)}; {AGAIN}")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_complex() or tensor.is_quantized:
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}".replace("torch.", "")
            raise InputError(f"{path}: {_printable(name)} is no plain tensor of real numbers ({kind}); {AGAIN}")
    return stripped(tensors)


def stripped(tensors: Mapping[str, Tensor], prefixes: Iterable[str] = PREFIXES) -> dict[str, Tensor]:
    """Return the tensors without those of the prefixes that all names begin with, one after the other."""
    result = dict(tensors)
    known = tuple(prefixes)
    while prefix := next((p for p in known if result and all(name.startswith(p) for name in result)), None):
        result = {name.removeprefix(prefix): tensor for name, tensor in result.items()}
    return result


def _torch_load(path: Path) -> object:
    """A hostile or torn pickle can fail in any way, so every failure is the file's, and warnings add nothing."""
    try:
        _check_expansion(path)
        for text in _pickles(path):
            _check_pickle(path, text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: object = torch.load(path, map_location="cpu", weights_only=True)
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
    """Read one pickle, without running it, to its end.

    Raises:
        InputError: it is too long, or names what no state dict needs.
        ValueError: it is torn.
    """
    start = file.tell()
    for opcode, argument, place in pickletools.genops(file):
        if opcode.name == "GLOBAL" and not NEEDED.fullmatch(str(argument)):
            raise _too_much(path, str(argument).replace(" ", "."))
        if (place or 0) - start >= PICKLE:
            raise InputError(f"{path}: a pickle of more than {PICKLE} bytes, as no state dict has; {AGAIN}")


def _too_much(path: Path, name: str) -> InputError:
    return InputError(f"{path}: holds more than tensors ({_printable(name)}), which bsk does not unpickle; {AGAIN}")


def _printable(name: str) -> str:
    return (name if name.isprintable() else ascii(name))[:80]


def _tensors(found: object, seen: set[int] | None = None, levels: int = LEVELS) -> dict[str, Tensor]:
    """Return the tensors of a dict, or of the one in it that is a state dict; {} where there is none.

    Each dict is looked at once: a pickle can have one in itself, and in a thousand places.
    """
    seen = set() if seen is None else seen
    if not isinstance(found, Mapping) or id(found) in seen or not levels:
        return {}
    seen.add(id(found))
    inner: list[Any] = [found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)]
    for each in inner:
        if tensors := _tensors(each, seen, levels - 1):
            return tensors
    own = {name: tensor for name, tensor in found.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    nested = [tensors for each in found.values() if (tensors := _tensors(each, seen, levels - 1))]
    return nested[0] if not own and len(nested) == 1 else own


def _described(found: object) -> str:
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    keys = ", ".join(str(key) for key in list(found)[:5])
    return f"a dict of {keys}{', ...' * (len(found) > 5)}" if found else "an empty dict"


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:80]
