"""The columns of a parquet file that are images and labels."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsk.data.formats.npz import LABELS
from bsk.data.splits import Request
from bsk.data.tree import printable
from bsk.errors import InputError

COLUMNS = 12  # columns listed in a message, at most


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels, the leaf column with the image files, class names, and if labels are text."""

    image: str
    leaf: str
    label: str
    names: tuple[str, ...] | None
    text: bool


def columns_of(request: Request, path: Path, schema: Any) -> Columns:
    """Return the columns of images and labels in a file with this schema.

    Raises:
        InputError: there is no such column, there are several candidates, or there is not one label per image.
    """
    features = _features(schema.metadata)
    leaves = {each.name: leaf for each in schema if (leaf := _leaf(each))}
    declared = [name for name in leaves if features.get(name, {}).get("_type") == "Image"]
    image = _one(path, "images", declared or [*leaves], schema, "keep one")
    numbers = [each.name for each in schema if _is_label(each.type) and each.name != image]
    declared = [name for name in numbers if features.get(name, {}).get("_type") == "ClassLabel"]
    others = [name for name in schema.names if name != image]
    named = [name for name in others if any(map(LABELS.fullmatch, re.split("[^a-z0-9]+", name.lower())))]
    likely = declared or [name for name in named if name in numbers] or named
    likely = [name for name in likely if "fine" in name.lower()] or likely if len(likely) > 1 else likely
    asked = [name for name in schema.names if name in request.labels]
    label = _one(path, "labels", asked if request.labels else likely, schema, "pass --labels NAME")
    if label not in numbers:
        kind = str(schema.field(label).type)[:40]
        found = f"{path}: column {printable(label)[:40]} is {kind}, expected one integer or text per image"
        raise InputError(f"{found}; convert it; several labels per image are not supported")
    names = features.get(label, {}).get("names")
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        names = None
    text = _is_text(schema.field(label).type)
    return Columns(image, leaves[image], label, None if names is None else tuple(names), text)


def _features(metadata: Any) -> dict[str, dict[str, Any]]:
    """Return the features in Hugging Face's metadata by column, or {} if they cannot be read."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: each for name, each in found.items() if isinstance(each, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _leaf(column: Any) -> str | None:
    """Return the leaf of a column that has the content of image files, or None."""
    from pyarrow import types

    if types.is_struct(column.type):
        kinds = {each.name: each.type for each in column.type}
        return f"{column.name}.bytes" if "bytes" in kinds and _is_binary(kinds["bytes"]) else None
    return column.name if _is_binary(column.type) else None


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return bool(_is_text(kind) or types.is_integer(value) or types.is_boolean(value))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _described(column: Any) -> str:
    return f"{printable(column.name)[:40]} ({str(column.type)[:40]})"


def _one(path: Path, what: str, found: list[str], schema: Any, advice: str) -> str:
    if len(found) == 1:
        return found[0]
    there = ", ".join(_described(schema.field(i)) for i in range(len(schema))[:COLUMNS])
    if found:
        both = ", ".join(printable(name)[:40] for name in found[:COLUMNS])
        raise InputError(f"{path}: columns {both} may each be the {what}; {advice}")
    expected = "image files as bytes" if what == "images" else "one named label; pass --labels NAME"
    raise InputError(f"{path}: no {what} in the columns {there}; expected {expected}")
