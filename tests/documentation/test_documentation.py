"""README and docs: generated pages are up to date, links resolve, commands exist, pages are short, code runs."""

import contextlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bsk.cli.app import COMMANDS as NAMES
from bsk.cli.app import built
from bsk.methods import registry
from documentation import results
from documentation.__main__ import stale
from documentation.words import GENERATED, length_of, sentences

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS: dict[str, Any] = {name: built(name) for name in NAMES}
named = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def blocks(path: Path) -> list[list[str]]:
    """Return the blocks of code of a page, without their indentation."""
    return blocks_of(path.read_text(encoding="utf-8"))


def blocks_of(text: str) -> list[list[str]]:
    """Return the blocks of code of a text, without their indentation."""
    lines = text.split("\n")
    found: list[list[str]] = [[]]
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("    ") and (found[-1] or not before.strip()):
            found[-1].append(line[4:])
        elif line.strip() and found[-1]:
            found.append([])
        elif found[-1]:
            found[-1].append("")
    return [block for block in found if block]


def slugs(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", each.lower())).strip("-") for each in headings}


def test_generated_pages_are_up_to_date() -> None:
    assert stale() == {}, "run: python -m documentation"


@named
def test_links_and_anchors_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"(?:\]\(|href=\")([^)\"\s]+)[)\"]", path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not anchor or anchor in slugs(file), target


@named
def test_every_command_has_the_flags_it_is_shown_with(path: Path) -> None:
    for block in blocks(path):
        for line in re.sub(r"\\\n", " ", "\n".join(block)).split("\n"):
            for part in re.split(r"\||;|&&|\$\(", line):
                check_command(part.strip().removeprefix("do ").strip())


@named
def test_every_command_within_a_sentence_has_its_flags(path: Path) -> None:
    if path.name not in GENERATED:
        for text in re.findall(r"(?<!`)`(bsk [^`]+)`", path.read_text(encoding="utf-8")):
            check_command(text.partition("|")[0])


def check_command(text: str) -> None:
    if not text.startswith("bsk ") or text.startswith("bsk COMMAND"):
        return
    words = shlex.split(text.replace("...", ""), comments=True)
    if words[1].startswith("--"):
        return
    assert words[1] in COMMANDS, text
    known = {flag for each in COMMANDS[words[1]].params for flag in (*each.opts, *each.secondary_opts)} | {"--help"}
    method = words[words.index("--method") + 1] if "--method" in words[:-1] else "bs"
    if words[1] == "train" and method in registry.METHODS:
        known |= {each.flag for each in registry.parameters(method).values()}
    flags = {word.partition("=")[0] for word in words[2:] if re.match(r"--[a-z]", word)}
    outside = words[1] == "train" and ":" in method  # flags of its own
    assert outside or flags <= known, f"{text}: {flags - known}"


@named
def test_every_target_of_make_exists(path: Path) -> None:
    makefiles = "\n".join(each.read_text() for each in (ROOT / "Makefile", *(ROOT / "pipelines").glob("*.mk")))
    targets = set(re.findall(r"^([a-z0-9-]+):", makefiles, re.MULTILINE)) | {f"table{n}" for n in range(1, 12)}
    said = " ; ".join(re.findall(r"`make ([^`]+)`", path.read_text(encoding="utf-8")))
    said += " ; " + " ; ".join(line[5:] for block in blocks(path) for line in block if line.startswith("make "))
    for command in re.split(r" ; |;| #.*|\|.*", said):
        for word in shlex.split(command.removeprefix("make ").strip() or "help"):
            if re.fullmatch(r"[a-z][a-z0-9-]+", word):
                assert word in targets or re.match(r"(plan|jobs)-", word) or (ROOT / word).exists(), command


def test_the_readme_and_its_sentences_are_short() -> None:
    found = length_of(ROOT / "README.md")
    assert 110 <= found.lines <= 150 and found.words <= 1800 and found.median <= 18


@named
def test_no_page_is_long(path: Path) -> None:
    found = length_of(path)
    assert found.words <= 2500 or path.name in GENERATED
    assert found.median <= 18


def test_sentences_are_counted_by_hand() -> None:
    text = "# No\n\nOne two three. Four five:\n\n    code here\n\n- Six [seven](x.md) eight\n  nine.\n- Ten eleven.\n"
    text += "\n| a | b |\n"
    assert sentences(text) == ["One two three.", "Four five:", "- Six [seven] eight nine.", "- Ten eleven."]


def test_every_method_and_its_paper_are_in_the_tables() -> None:
    readme, methods = (path.read_text() for path in (ROOT / "README.md", ROOT / "docs/methods.md"))
    rows = [line for line in methods.split("\n") if line.startswith("|")]
    assert f"with {len(registry.METHODS)} training" in readme
    for name in registry.METHODS:
        assert f"`{name}`" in readme, name
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), name
        if name not in ("natural", "fast-trades", "fast-trades-2", "bs-alone", "bs-at", "fgsm-mep"):
            assert any(f"`{name}`" in row.split("|")[1] and "](http" in row for row in rows), name


def test_every_claim_has_a_verdict_and_links_to_its_records() -> None:
    tables = results.page().split("| the paper says |")[1:]
    claims = [row for table in tables for row in table.partition("\n\n")[0].split("\n")[2:]]
    assert len(claims) >= 35
    for claim in claims:
        _, _, _, verdict, records = (cell.strip() for cell in claim.split("|")[1:-1])
        assert verdict and verdict.startswith("not measured") != ("href" in records), claim
    said = "\n".join(tables)
    for kind, last in (("Table", 11), ("Figure", 5)):
        named = re.findall(rf"{kind}s? ([\d, and]+)", said)
        assert {int(each) for part in named for each in re.findall(r"\d+", part)} >= set(range(1, last + 1))
    assert "{{" not in results.page()
    for wrong in ("16/255 | no-such", "no source | bs", "16/255 | bs - no-such"):
        with pytest.raises(KeyError):
            results.filled(*wrong.split(" | "))


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits, two networks and their records, as the README's commands make them."""
    where = tmp_path_factory.mktemp("reader")
    bsk = [sys.executable, "-m", "bsk"]
    commands = [
        line for block in blocks(ROOT / "README.md") for line in block if re.match(r"bsk (prep|train|eval)", line)
    ]
    shown = [line for line in commands if "cifar10" not in line and "mycode" not in line and "--step 8/255" not in line]
    assert len(shown) == 4
    for line in shown:
        words = shlex.split(line.replace("--epochs 30", "--epochs 3").replace(",autoattack", "").replace("*", "bs"))
        run([*bsk, *words[1:]], where)
    return where


COMMAND = re.compile(r"bsk |for ")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
ELSEWHERE = 12.0  # points by which an accuracy may differ on a CPU that rounds in another way


def session(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a text, each with the lines that it shows below them as what they print."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks_of(text):
        for paragraph in "\n".join(block).strip("\n").split("\n\n"):
            if COMMAND.match(paragraph):
                found.append((paragraph, []))
            elif found:
                found[-1][1].extend(paragraph.split("\n"))
    return found


def printed_by(command: str, folder: Path) -> list[str]:
    """Return the lines that a command writes to stdout where that is a terminal of 100 columns."""
    (folder / "bin").mkdir(exist_ok=True)
    tool = folder / "bin/bsk"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bsk "$@"\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}
    environment["PATH"] = f"{tool.parent}{os.pathsep}{environment['PATH']}"
    ours, theirs = pty.openpty()
    written = bytearray()
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(["bash", "-ec", command], cwd=folder, env=environment, stdout=theirs, stderr=stderr)
    os.close(theirs)
    with contextlib.suppress(OSError):  # by which Linux tells that all writers have left
        while part := os.read(ours, 65536):
            written.extend(part)
    os.close(ours)
    assert process.wait() == 0, (folder / "stderr").read_text()
    return written.decode().splitlines()


def agree(shown: str, printed: str, tolerance: float) -> bool:
    """Say if two lines are the same but for times; with a tolerance their numbers may differ by that much."""
    plain = [" ".join(re.sub(r"\b[\d.]+ (s|min|h)\b", "TIME", line).split()) for line in (shown, printed)]
    if not tolerance:
        return plain[0] == plain[1]
    plain = [re.sub(r"epoch \d+", "epoch", line) for line in plain]  # another one may be the best
    numbers = [[float(each) for each in NUMBER.findall(line)] for line in plain]
    words = [" ".join(re.sub(r"\bp?<?\d[\d.]*|[-+<]", " ", line).split()) for line in plain]
    near = all(abs(a - b) <= tolerance for a, b in zip(*numbers, strict=False))
    return words[0] == words[1] and len(numbers[0]) == len(numbers[1]) and near


def tolerance_here() -> float:
    """Return 0 on a CPU like the one whose output the tutorial shows: Intel's Emerald Rapids, model 207, with AMX."""
    path = Path("/proc/cpuinfo")
    said = path.read_text() if path.exists() else ""
    there = all(re.search(each, said) for each in (r"GenuineIntel\n", r"model\s*: 207\n", r"\bamx_bf16\b"))
    return 0.0 if there else ELSEWHERE


@pytest.mark.slow(first=True)
def test_the_tutorial_shows_what_its_commands_print(tmp_path: Path) -> None:
    text = (ROOT / "docs/tutorial.md").read_text().partition("## The digits")[2].partition("## CIFAR-10")[0]
    steps, tolerance = session(text), tolerance_here()
    assert len(steps) == 6 and all(shown for _, shown in steps)
    for command, shown in steps:
        printed = iter(printed_by(command, tmp_path))
        for line in shown:  # in order; other lines may stand between
            assert line == "..." or any(agree(line, each, tolerance) for each in printed), f"{command}\n{line}"


def test_the_readme_shows_what_the_tutorial_shows() -> None:
    tutorial = {line for _, shown in session((ROOT / "docs/tutorial.md").read_text()) for line in shown}
    first = next(each for each in blocks(ROOT / "README.md") if each[0].startswith("bs.safetensors:"))
    assert set(filter(None, first)) <= tutorial


def test_lines_agree_but_for_times_and_elsewhere_for_points() -> None:
    line = "bs.safetensors: pgd-100 at eps 0.2: 72.54% [67.95%, 76.70%] of 397, 0.4 s, no doubts"
    assert agree(line, line.replace("0.4 s", "1.5 min").replace(": ", ":  "), 0)
    assert not agree(line, line.replace("72.54", "72.55"), 0)
    assert not agree(line, line.replace("no doubts", "1 doubt"), 0)
    assert agree(line, line.replace("72.54", "75.54"), 5) and not agree(line, line.replace("72.54", "78.54"), 5)
    assert not agree(line, line.replace("no doubts", "doubts"), 5)
    assert agree("epoch 9 of 30: 97.0%", "epoch 29 of 30: 96.0%", 5) and not agree("epoch 9 of 30", "epoch 29 of 30", 0)


@pytest.mark.slow
def test_the_readmes_python_runs(folder: Path) -> None:
    first = next(block for block in blocks(ROOT / "README.md") if block[0] == "import bsk")
    run([sys.executable, "-c", "\n".join(first).replace("epochs=30", "epochs=2")], folder)
    method = next(block for block in blocks(ROOT / "README.md") if block[0] == "# mycode.py")
    end = next(i for i, line in enumerate(method) if line.startswith("bsk train"))
    (folder / "mycode.py").write_text("\n".join(method[:end]))
    command = shlex.split(method[end])[1:]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "bsk", *command, "--epochs", "1", "--quiet", "--schedule", "cyclic"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["flags"]["alpha"] == 0.5, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "your_model", "my_method"])
def test_an_example_runs(name: str, folder: Path) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert text.count("\n") <= 40
    out = run([sys.executable, "-m", f"examples.{name}"], folder)
    assert "at eps" in out or "Run(" in out


@pytest.mark.slow(first=True)
def test_the_examples_of_make_and_the_notebook_run(folder: Path) -> None:
    python = f"{sys.executable} -m bsk"
    run(["make", "-f", str(ROOT / "examples/gamma.mk"), f"BSK={python}", "EPOCHS=1", "SEEDS=1"], folder)
    assert (folder / "out/gamma/gamma.png").read_bytes()[:4] == b"\x89PNG"
    notebook = json.loads((ROOT / "examples/digits.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    run([sys.executable, "-c", "\n".join(code).replace("epochs=10", "epochs=1")], folder)


@pytest.mark.slow
def test_the_example_of_pandas_runs(folder: Path) -> None:
    pytest.importorskip("pandas")
    assert "pgd-100" in run([sys.executable, str(ROOT / "examples/read_records.py"), "results.jsonl"], folder)


def test_the_readme_s_picture_is_drawn_from_the_records_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], results.accuracy_against_cost
    monkeypatch.setattr(results, "accuracy_against_cost", lambda rows, path: drawn.extend(rows) or draw(rows, path))
    results.picture(tmp_path / "cost.png")
    table = (ROOT / "README.md").read_text().partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    for row in drawn:
        cells = [f"`{str(row['name']).partition(' ')[0]}`", *(f"{100 * row[key]:.1f}" for key in ("natural", "robust"))]
        assert f"| {' | '.join(cells)} |" in table
    assert len(drawn) == table.count("| `")
    assert (tmp_path / "cost.png").read_bytes()[:4] == (ROOT / "docs/pictures/cost.png").read_bytes()[:4] == b"\x89PNG"
