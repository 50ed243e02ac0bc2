"""`bsk schema` as a shell sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from bsk.cli.schema import HEADERS, KINDS, RECORDS
from bsk.records import header_schema, schema


def properties(whole: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = whole["$defs"][name]["properties"]
    return found


def test_an_evaluation_as_json_schema(bsk) -> None:
    whole = json.loads(bsk("schema", "evaluation").stdout)
    assert whole["$schema"].endswith("2020-12/schema") and whole["$ref"] == "#/$defs/EvaluationRecord"
    assert sorted(whole["$defs"]["EvaluationRecord"]["required"]) == [
        "accuracy",
        "attack",
        "checkpoint",
        "kind",
        "n",
        "split",
    ]
    fields = properties(whole, "EvaluationRecord")
    words = "a number from 0 to 1"
    assert fields["accuracy"] == {"description": words, "type": "number", "minimum": 0, "maximum": 1}
    assert (fields["n"]["minimum"], fields["n"]["maximum"]) == (1, 10**6)
    assert fields["kind"] == {"enum": ["evaluation"]}
    assert fields["correct"]["anyOf"][0]["contentEncoding"] == "base64"


def test_every_kind_alone_and_all_together(call) -> None:
    assert sorted(RECORDS) == sorted(schema.KINDS) and sorted(HEADERS.values()) == sorted(header_schema.HEADERS)
    whole = json.loads(call("schema").stdout)
    assert len(whole["anyOf"]) == len(KINDS)
    for kind in KINDS:
        alone = json.loads(call("schema", kind).stdout)
        assert {"$ref": alone["$ref"]} in whole["anyOf"]
        assert all(whole["$defs"][name] == part for name, part in alone["$defs"].items())
        (own,) = properties(alone, alone["$ref"].split("/")[-1])["kind"]["enum"]
        assert own == HEADERS.get(kind, kind)
    assert properties(whole, "Progress")["step"]["minimum"] == 0


def test_no_such_kind_is_usage(bsk) -> None:
    done = bsk("schema", "evaluations", check=2)
    assert done.stdout == "" and done.stderr == "bsk: schema evaluations: no such kind; did you mean evaluation?\n"


@pytest.mark.parametrize("words", [["schema", "model"], ["schema"]])
def test_it_needs_no_torch(words: list[str]) -> None:
    lines = (
        f"import sys; sys.argv = ['bsk', *{words}]",
        "from bsk.cli.app import main",
        "try: main()",
        "finally: assert 'torch' not in sys.modules",
    )
    code = "\n".join(lines)
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
