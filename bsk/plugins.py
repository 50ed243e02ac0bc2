"""Plugins: methods, attacks, networks and data that the user names as `module:function`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pkgutil
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from bsk.errors import BskError, UsageError, named_error, nearest, out_of_memory

_SOURCE = ".py"
_BUILD = re.compile(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$")  # the local version: which device a build is for
_COMPUTED_IMPORTS = {"import_module", "__import__", "spec_from_file_location"}  # imports by computed names


@dataclass(frozen=True)
class Plugin:
    """A plugin function, the name that the user gave, and the SHA-256 of its code."""

    spec: str
    function: Callable[..., Any]
    sha256: str


@dataclass(frozen=True)
class _Code:
    """A module's file: the SHA-256 of its content ("" for a folder), and the modules that it may import."""

    spec: ModuleSpec
    sha256: str
    imports: list[str]


_SEEN: dict[str, _Code] = {}  # the code of each module when it was first seen imported


def is_plugin(name: str) -> bool:
    """Return whether a name has the form `module:function`."""
    return ":" in name


def load(spec: str, flag: str) -> Plugin:
    """Import `module:function`, which the user named explicitly; the module may be in the current folder.

    Output of the module goes to stderr.

    Args:
        spec: the module, dotted if it is in a package, a colon, and the name of a function or class in it.
        flag: the flag that named it, with which messages begin, e.g. `--method`.

    Raises:
        UsageError: there is no such module or function, or importing it fails in any way.
    """
    start = f"{flag} {spec}"
    module_name, _, name = spec.partition(":")
    if not (all(part.isidentifier() for part in module_name.split(".")) and name.isidentifier()):
        raise UsageError(f"{start}: expected module:function; write mycode:my_function")
    importlib.invalidate_caches()
    with outside(start, f"check {module_name}"):
        if module_name not in sys.modules and _spec(module_name) is None:
            raise UsageError(f"{start}: no module {module_name} here or on PYTHONPATH; check the name and the folder")
        module = importlib.import_module(module_name)
        sha256 = code_sha256(module_name)
    if module_name == "__main__" and not ((spec_of_main := _spec(module_name)) and _content(spec_of_main)):
        raise UsageError(f"{start}: has no file whose changes bsk could notice; put it in a file, such as mycode.py")
    if not hasattr(module, name):
        functions = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise UsageError(f"{start}: {module_name} has no {name}; {nearest(name, functions)}")
    function = getattr(module, name)
    if not callable(function):
        raise UsageError(f"{start}: expected a function, found {type(function).__name__}; name a function")
    return Plugin(spec, function, sha256)


@contextlib.contextmanager
def outside(
    start: str, step: str, kind: type[BskError] = UsageError, passing: type[Exception] = BskError
) -> Iterator[None]:
    """Run foreign code: its output goes to stderr, and any failure, even SystemExit, becomes a one-line error.

    Modules in the current folder can be imported. Errors of bsk and out-of-memory errors are raised unchanged.

    Args:
        start: how the message begins: flag or file.
        step: how the message ends: the next step.
        kind: the error to raise.
        passing: another error that is raised unchanged.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _torch_restored(), _folder_restored():
            yield
    except (BskError, passing):
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        raise kind(f"{start}: {named_error(error)}; {step}") from error
    finally:
        if sys.stderr.closed:  # by code that meant to close stdout
            sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115 - stays open until exit


@contextlib.contextmanager
def _folder_restored() -> Iterator[None]:
    """Make modules in the current folder importable, and restore the current folder afterwards."""
    folder = ""
    with contextlib.suppress(FileNotFoundError):  # it may have been removed
        folder = os.getcwd()
    added = bool(folder) and folder not in sys.path
    sys.path += [folder] * added  # last, so that it cannot hide an installed module
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        if added and folder in sys.path:
            sys.path.remove(folder)


@contextlib.contextmanager
def _torch_restored() -> Iterator[None]:
    """Restore torch's default dtype, default device and gradient mode after the block."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    dtype, grad, device = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()
    try:
        yield
    finally:
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)  # None is faster than "cpu"
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


def code_sha256(module: str) -> str:
    """Return the SHA-256 of a module's code and of all code that it imports, at top level or within functions.

    Code of bsk, the standard library and installed packages is excluded, except for the module itself and the version
    of its package without the device suffix: `torchvision.models` has the same digest on a CPU and on a GPU. The digest
    depends only on the names and contents of the modules, not on the folder or on what has been imported already. A
    module that imports by computed names includes all modules beside and below it.
    """
    from importlib import metadata  # slow to import, and --help should be fast

    digests: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = _spec(name)
        if name in digests or spec is None or not (name == module or _is_local(spec)):
            continue
        code = _code(spec)
        digests[name] = code.sha256
        waiting += code.imports if _is_local(spec) else []
    with contextlib.suppress(metadata.PackageNotFoundError):
        digests[""] = _BUILD.sub("", metadata.version(module.partition(".")[0]))
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _spec(name: str) -> ModuleSpec | None:
    """Return the spec of a module, imported or not, without importing it or its package."""
    module = sys.modules.get(name)
    loaded: ModuleSpec | None = getattr(module, "__spec__", None)
    if loaded:
        return loaded
    if name == "__main__":  # a script has no spec; a notebook or a prompt has no file either
        file = getattr(module, "__file__", None)
        return _script(file) if file else None
    parent = name.rpartition(".")[0]
    if not parent:
        found = (finder.find_spec(name, None) for finder in sys.meta_path)
        return next((spec for spec in found if spec), None)
    above = _spec(parent)  # importlib.util.find_spec would import it
    finders = map(pkgutil.get_importer, (above and above.submodule_search_locations) or ())
    below = [spec for finder in finders if finder and (spec := finder.find_spec(name))]
    return min(below, key=lambda spec: spec.loader is None, default=None)  # a folder without __init__.py comes last


@cache
def _script(file: str) -> ModuleSpec | None:
    return spec_from_file_location("__main__", file, loader=SourceFileLoader("__main__", file))


def _is_local(spec: ModuleSpec) -> bool:
    """Return whether a module is the user's own: not part of an installed package, of Python or of bsk."""
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return bool(places) and not any(_is_installed(Path(place)) for place in places if place)


def _is_installed(path: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    folders = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), Path(__file__).parent)
    return any(path.is_relative_to(folder) for folder in folders)


def _code(spec: ModuleSpec) -> _Code:
    seen = _SEEN.get(spec.name)
    if seen and seen.spec is spec:
        return seen
    code = _Code(spec, hashlib.sha256(_content(spec)).hexdigest() if spec.has_location else "", _imported(spec))
    running = spec in (getattr(sys.modules.get(name), "__spec__", None) for name in (spec.name, "__main__"))
    if running or spec.name == "__main__":
        _SEEN[spec.name] = code
    return code


def _content(spec: ModuleSpec) -> bytes:
    origin = spec.origin or ""
    try:
        return Path(origin).read_bytes()
    except OSError:  # in an archive, or removed
        with contextlib.suppress(OSError, AttributeError):
            return bytes(spec.loader.get_data(origin))  # type: ignore[union-attr]
        return b""


def _imported(spec: ModuleSpec) -> list[str]:
    """Return the names of modules that a module may import: its packages, and those in its import statements."""
    import ast

    names = [spec.name.rpartition(".")[0]]
    if not isinstance(spec.loader, SourceFileLoader) and not (spec.origin or "").endswith(_SOURCE):
        return [name for name in names if name]
    package = spec.name if spec.submodule_search_locations is not None else names[0]
    try:
        tree = ast.parse(_content(spec))
    except (SyntaxError, ValueError):  # then it cannot be imported either
        return [name for name in names if name]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
        elif getattr(node, "id", getattr(node, "attr", None)) in _COMPUTED_IMPORTS:
            names += _neighbours(spec, package)
    return [name for name in names if name]


def _neighbours(spec: ModuleSpec, package: str) -> list[str]:
    """Return the names of all modules of the module's package, or of its folder if it is in no package."""
    folder = Path(spec.origin or "").parent
    files = folder.rglob("*" + _SOURCE) if package else folder.glob("*" + _SOURCE)
    below = (file.relative_to(folder).with_suffix("").parts for file in files)
    return [".".join((*((package,) if package else ()), *parts)) for parts in below if parts[-1] != "__init__"]
