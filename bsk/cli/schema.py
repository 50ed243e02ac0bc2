"""`bsk schema`: the JSON Schema of records and file headers."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import emit
from bsk.errors import UsageError, nearest

RECORDS = ["evaluation", "attack", "landing", "data", "export", "start", "epoch", "alarm", "end"]
HEADERS = {
    "model": "model",
    "training-state": "training-state",
    "data-file": "data",
}  # the name on the command line -> the kind in the header
KINDS = [*RECORDS, *HEADERS]


def schema(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", autocompletion=o.completing(lambda: KINDS), help=f"{', '.join(KINDS)}."),
    ] = None,
) -> None:
    """Print the JSON Schema of records and headers.

    Without KIND it covers all kinds. Readers ignore fields that the schema does not list. Fields that it does not
    require may be missing.

        bsk schema evaluation > evaluation.schema.json
    """
    import msgspec

    from bsk.records import header_schema
    from bsk.records import schema as record_schema

    structs: dict[str, Any] = {name: record_schema.KINDS[name] for name in RECORDS}
    structs |= {name: header_schema.HEADERS[own] for name, own in HEADERS.items()}
    if kind is not None and kind not in structs:
        raise UsageError(f"schema {kind}: no such kind; {nearest(kind, KINDS)}")
    chosen = [structs[name] for name in ([kind] if kind else KINDS)]
    found, parts = msgspec.json.schema_components(chosen, ref_template="#/$defs/{name}")
    whole = found[0] if kind else {"anyOf": list(found)}
    emit(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "$defs": parts}, indent=2))
