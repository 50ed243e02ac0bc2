"""What other tools' forms need beside bsk, and where they may be written."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bsk.errors import InputError, UsageError


def check_installed(form: str, packages: tuple[str, ...]) -> None:
    """Raise a UsageError that names the extra of a form unless its packages are there."""
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"--to {form}: {package} is not installed; pip install 'bsk[{form}]'")


def check_free(path: Path, force: bool) -> None:
    """Raise an InputError if something stands at `path`, unless forced."""
    if path.exists() and not force:
        raise InputError(f"{path}: exists; choose another --out, or --force")


def check_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Raise a UsageError unless a path has one of these endings."""
    if path.suffix not in endings:
        raise UsageError(f"--out {path}: must end in {' or '.join(endings)}")
