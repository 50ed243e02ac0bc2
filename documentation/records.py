"""The page of records and headers, from their JSON Schema."""

from __future__ import annotations

from typing import Any

import msgspec

from bsk.cli.schema import HEADERS, RECORDS
from bsk.comparison.compare import COLUMNS
from bsk.records import header_schema, schema

HEAD = """\
# Records and headers

This page is generated from the schema that `bsk schema` prints. A record is one line of JSON. Accuracies are fractions.
Times are in seconds. Passes count images that went forward or backward through the network. Fields that are not
required may be missing. Readers should ignore fields that they do not know.
"""


def page() -> str:
    """Return the page."""
    structs: dict[str, Any] = {name: schema.KINDS[name] for name in RECORDS}
    structs |= {f"header of {name}": header_schema.HEADERS[own] for name, own in HEADERS.items()}
    found, parts = msgspec.json.schema_components(list(structs.values()), ref_template="{name}")
    kinds = [_kind(name, parts[each["$ref"]]) for name, each in zip(structs, found, strict=True)]
    used = {each["$ref"] for each in found}
    nested = [_kind(name, part) for name, part in parts.items() if name not in used and "properties" in part]
    columns = [f"{number} `{name}`" for number, name in enumerate(COLUMNS, 1)]
    told = "## The columns of compare\n\nIn a pipe, `bsk compare` prints these as TSV. New ones are added at the end.\n"
    return "\n".join(
        [
            HEAD,
            told,
            ", ".join(columns) + "\n",
            *kinds,
            "## Parts\n",
            *(each.replace("## ", "### ", 1) for each in nested),
        ]
    )


def _kind(name: str, struct: dict[str, Any]) -> str:
    needed = struct.get("required", [])
    rows = [
        f"| `{field}` | {_type(rule)} | {'yes' if field in needed else ''} |"
        for field, rule in struct["properties"].items()
    ]
    table = ["| field | value | required |", "|---|---|---|", *rows]
    return "\n".join([f"## {name}\n", " ".join(struct.get("description", "").split()), "", *table, ""])


def _type(rule: dict[str, Any]) -> str:
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(map(_type, rule["anyOf"])))
    if "$ref" in rule:
        return f"`{rule['$ref']}`"
    if "enum" in rule:
        return ", ".join(f"`{each}`" for each in rule["enum"])
    if "description" in rule:
        return str(rule["description"]).replace("|", "\\|")
    kind = str(rule.get("type", "any value"))
    return f"{kind} of {_type(rule['items'])}" if isinstance(rule.get("items"), dict) else kind
