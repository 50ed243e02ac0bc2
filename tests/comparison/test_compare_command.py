from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bsk.cli.compare import compare as command
from bsk.cli.options import FORMATS as OFFERED
from bsk.comparison.compare import COLUMNS, compare
from bsk.comparison.tables import FORMATS, render
from bsk.errors import BskError

Make = Any


@pytest.fixture
def file(results: Make, tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in results))
    return path


@pytest.fixture
def here(call: Make) -> Make:
    """Run `bsk` in this process; arguments are split at spaces if there is but one."""
    return lambda *words, **more: call(*(words[0].split() if len(words) == 1 else words), **more)


def test_the_formats_offered_are_those_there_are() -> None:
    assert list(FORMATS) == OFFERED


def test_a_pipe_gets_tsv_of_files_and_of_stdin(bsk: Make, file: Path, results: Make, place: Make) -> None:
    expected = render(compare(place(results))[0], "tsv")
    assert bsk("compare results.jsonl").stdout == expected
    piped = bsk("compare", input=file.read_text())
    assert piped.stdout == expected and piped.stderr == ""


def test_a_requirement_prints_the_table_and_decides_the_exit_code(here: Make, file: Path, tmp_path: Path) -> None:
    plain = here("compare results.jsonl").stdout
    met = here("compare", "results.jsonl", "--require", "bs.robust - fast-at.robust > 0", "--require", "robust > 0.4")
    assert (met.stdout, met.stderr) == (plain, "")
    unmet = here("compare", "results.jsonl", "--require", "robust > 0.9", check=5)
    assert unmet.stdout == plain
    assert unmet.stderr == (
        "bsk: --require 'robust > 0.9': fast-at: 0.5 > 0.9 does not hold; "
        "--require 'robust > 0.9': bs: 0.6667 > 0.9 does not hold\n"
    )
    wrong = here("compare", "results.jsonl", "--require", "robust", check=2)
    assert wrong.stdout == "" and wrong.stderr.count("\n") == 1


def test_pareto_has_its_column_and_its_line(here: Make, file: Path, tmp_path: Path) -> None:
    marked = here("compare results.jsonl --pareto --plot with.svg")
    header, *rows = [line.split("\t") for line in marked.stdout.splitlines()]
    assert [row[header.index("pareto")] for row in rows] == ["0", "1"]
    here("compare results.jsonl --plot without.svg")
    drawn = [(tmp_path / name).read_text().count("stroke-dasharray") for name in ("with.svg", "without.svg")]
    assert drawn[0] == drawn[1] + 1


def test_each_file_has_the_format_of_its_ending_and_is_whole_or_absent(call, here: Make, file: Path, tmp_path) -> None:
    endings = {"txt": "table", "tsv": "tsv", "jsonl": "jsonl", "md": "markdown", "tex": "latex"}
    asked = [word for ending in endings for word in ("--out", f"tables/t.{ending}")]
    plain = here("compare", "results.jsonl", *asked).stdout
    for ending, name in endings.items():
        expected = call("compare", "results.jsonl", "--format", name).stdout
        assert (tmp_path / f"tables/t.{ending}").read_text() == expected, ending
    assert plain == here("compare results.jsonl").stdout
    wrong = here("compare results.jsonl --out u.md --out u.pdf", check=2)
    assert wrong.stderr == "bsk: --out u.pdf: a table ends in .txt, .tsv, .jsonl, .md, .tex\n" and wrong.stdout == ""
    assert not (tmp_path / "u.md").exists()


def test_records_are_not_replaced_by_a_table(call, file: Path, tmp_path: Path) -> None:
    """Neither those that are read nor others; a table is."""
    before = file.read_bytes()
    (tmp_path / "log.jsonl").write_text('\n{"kind": "start"}\n')
    for name in ("results.jsonl", "log.jsonl"):
        said = call("compare", "results.jsonl", "--out", "t.md", "--out", name, check=3)
        assert said.line == f"bsk: {name}: has records of bsk, which this file would replace; choose another name"
    assert file.read_bytes() == before and not (tmp_path / "t.md").exists()
    for _ in range(2):
        call("compare", "results.jsonl", "--out", "t.jsonl")


def test_sorting_by_the_fifth_column_is_sorting_by_robust_accuracy(bsk: Make, file: Path) -> None:
    command = f"{sys.executable} -m bsk compare {file} | sort -t$'\\t' -k5 -nr | head -1"
    out = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert out.stdout.split("\t")[0] == "bs" and out.stderr == ""
    assert COLUMNS[4] == "robust"


def test_a_terminal_gets_a_table(file: Path) -> None:
    mine, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "bsk", "compare", str(file)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = os.read(mine, 65536).decode().replace("\r\n", "\n")
    os.close(mine)
    assert done.returncode == 0 and text.startswith("digits, test split, n 10, cnn,") and "\x1b" not in text


def test_no_records_on_a_terminal_name_the_next_step() -> None:
    mine, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "bsk", "compare"], stdin=theirs, capture_output=True, text=True, timeout=60
    )
    os.close(theirs)
    os.close(mine)
    assert done.returncode == 2
    assert done.stderr == "bsk: compare: no records; name JSONL files, or pipe in the output of bsk evaluate\n"


def test_notices_go_to_stderr_and_the_picture_to_its_file(here: Make, file: Path, make: Make) -> None:
    with file.open("a") as out:
        out.write(json.dumps(make("bs", 1, eps=0.3, checkpoint_sha256="x")) + "\n" + '{"kind": "evaluation", "torn')
    done = here("compare results.jsonl --plot figure.png --format markdown")
    said = done.stderr.splitlines()
    assert said[0] == f"bsk: results.jsonl:{len(file.read_text().splitlines())}: cut off, so this record is left out"
    assert said[1:] == ["bsk: rows of different eps (0.2, 0.3) are not compared with one another"]
    assert "eps 0.3, not 0.2" in done.stdout and file.with_name("figure.png").stat().st_size > 10_000
    assert here("compare results.jsonl --quiet").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "input", "code", "message"),
    [
        ({}, "", 3, "stdin: no evaluation or log records among 0; run bsk evaluate"),
        ({}, '{"kind": "data"}\n', 3, "stdin: no evaluation or log records among 1; run bsk evaluate"),
        (
            {},
            "not json\n",
            3,
            "stdin:1: not a JSON record (Expecting value); give JSONL of bsk train or evaluate, or remove the line",
        ),
        ({"files": [Path("no.jsonl")]}, "", 3, "no.jsonl: cannot read: No such file or directory; give a JSONL file"),
        ({"format": "tvs"}, "", 2, "--format tvs: no such format; did you mean tsv?"),
        ({"plot": Path("a.pdf")}, "", 2, "--plot a.pdf: must end in .png or .svg; other formats are not drawn"),
    ],
)
def test_errors_are_one_line_with_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: dict[str, Any],
    input: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
    with pytest.raises(BskError) as error:
        command(**arguments)
    assert error.value.exit_code == code and str(error.value).startswith(message) and "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_an_error_of_the_command_line(bsk: Make) -> None:
    done = bsk("compare no.jsonl", check=3)
    assert done.stdout == "" and done.stderr.startswith("bsk: no.jsonl: cannot read") and done.stderr.count("\n") == 1
