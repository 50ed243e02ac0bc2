"""Checks before an export: installed packages, free paths and file endings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bsk.errors import InputError, UsageError


def check_installed(form: str, packages: tuple[str, ...]) -> None:
    """Raise a UsageError that names the packages of a format unless they are installed."""
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"--to {form}: {package} is not installed; pip install {' '.join(packages)}")


def check_free(path: Path, force: bool) -> None:
    """Raise an InputError if `path` exists, unless forced."""
    if path.exists() and not force:
        raise InputError(f"{path}: exists; choose another --out, or pass --force")


def check_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Raise a UsageError unless a path has one of these endings."""
    if path.suffix not in endings:
        raise UsageError(f"--out {path}: must end in {' or '.join(endings)}")
