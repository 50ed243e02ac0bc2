"""Damaged inputs for every reader: each must give a result or one line and exit 2 or 3, never a traceback or a hang."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsk.records.headers import KEY
from torture.subjects import COMMANDS, undisturbed

SECONDS = 5  # CPU time that a command may need
PATIENCE = 120  # seconds of wall-clock time after which it counts as hanging
MEMORY = 128 << 20  # bytes that a command may need besides twice the size of its input
HOSTILE = (
    "NaN",
    "-1",
    "1e999",
    "99999999999999999999",
    "null",
    "true",
    '"x"',
    "[]",
    "{}",
    "[[[[]]]]",
    '"\\u0000"',
    '"\\ud800"',
    '"../../x"',
    "1" + "0" * 400,
    "0.5",
)
_MARK = "placeholder of a hostile value"


@dataclass(frozen=True)
class Reader:
    """A command, with the arguments `words`, that reads the file `target` (a name or pattern) and the files `needs`."""

    name: str
    target: str
    words: Sequence[str]
    needs: Sequence[str] = ()

    def file(self, place: Path) -> Path:
        """Return the path of `target` in a folder; it may be a pattern, since some names contain a hash."""
        return next(place.glob(self.target))


def readers() -> list[Reader]:
    """Return a reader for every kind of input."""
    data, model = ["--data", "data.safetensors"], "m.safetensors"
    natural = ["evaluate", model, *data, "--attack", "natural", "--no-checks", "--threads", "1", "--limit"]
    evaluate, blocks = [*natural, "8"], [*natural, "48", "--out", "r.jsonl"]  # 48 are in the blocks of `subjects`
    train, page = COMMANDS[1].words, ["report", ".", "--out", "p.html"]
    averages = ["m.ema.safetensors", "m.ema-last.safetensors"]
    training = ["data.safetensors", model, "m.last.safetensors", *averages, "m.jsonl"]
    archives = ("cifar10-python.tar.gz", "cifar10-binary.tar", "cifar100-python.zip", "tiny.zip")
    found = [
        Reader("prepared data", "data.safetensors", evaluate, [model]),
        Reader("prepared data, to train", "data.safetensors", [*train, "--epochs", "1"], []),
        Reader("a checkpoint", model, evaluate, ["data.safetensors"]),
        Reader("a training state", "m.last.safetensors", train, training),
        Reader("a training log, to go on", "m.jsonl", train, training),
        Reader("a selected model, to go on", model, train, training),
        Reader("an average, to go on", "m.ema.safetensors", train, training),
        Reader("a training log", "m.jsonl", ["plot", "curves", "m.jsonl", "--out", "p.svg"]),
        Reader("a training log, for a page", "m.jsonl", page, ["m.last.safetensors"]),
        Reader("evaluation records", "r.jsonl", ["compare", "r.jsonl", "--format", "table"]),
        Reader("evaluation records, to go on", "r.jsonl", [*evaluate, "--out", "r.jsonl"], ["data.safetensors", model]),
        Reader(
            "a complete evaluation, to go on", "r.jsonl", COMMANDS[3].words, ["data.safetensors", model, "r.examples"]
        ),
        Reader("evaluation records, for boxes", "r.jsonl", ["plot", "boxes", "r.jsonl", "--out", "p.svg"]),
        Reader("blocks of an evaluation", "r.examples/natural-*.jsonl", blocks, ["data.safetensors", model]),
        Reader("a table, for a page", "table.jsonl", page),
        Reader("starts", "s.jsonl", ["plot", "landings", "s.jsonl", "--out", "p.svg"]),
        Reader("jobs", "jobs.tsv", ["plan", "jobs.tsv"]),
        Reader("foreign weights", "w.pt", _foreign("w.pt"), ["data.safetensors"]),
        Reader("foreign weights, safetensors", "w.safetensors", _foreign("w.safetensors"), ["data.safetensors"]),
        Reader(
            "a picture in a folder",
            "folder/train/a/0.png",
            ["prepare-data", "folder", "--from", "folder", "--out", "o.safetensors"],
            ["folder"],
        ),
        Reader(
            "a zip of pictures",
            "pictures.zip",
            ["prepare-data", "folder", "--from", "pictures.zip", "--out", "o.safetensors"],
        ),
    ]
    kinds = {
        "cifar10-python.tar.gz": "cifar10",
        "cifar10-binary.tar": "cifar10",
        "cifar100-python.zip": "cifar100",
        "tiny.zip": "tiny-imagenet",
    }
    found += [
        Reader(name, name, ["prepare-data", kinds[name], "--from", name, "--out", "o.safetensors"]) for name in archives
    ]
    return found


def _foreign(name: str) -> list[str]:
    words = (
        "evaluate --model cnn-8 --weights X --data data.safetensors --attack natural --limit 8 --no-checks --threads 1"
    )
    return [name if word == "X" else word for word in words.split()]


def mutations(folder: Path, count: int, seed: int, say: Callable[[str], None]) -> list[str]:
    """Give `count` damaged inputs to the readers, then the hostile ones; return the failures."""
    from torture.hostile import hostile_inputs
    from torture.inputs import make_inputs

    whole = folder / "inputs"
    whole.mkdir()
    for _, made, _ in undisturbed(folder):
        for path in made.iterdir():
            if path.is_file():
                shutil.copy(path, whole / path.name)
            else:
                shutil.copytree(path, whole / path.name)
    make_inputs(whole)
    words = [sys.executable, "-m", "bsk", "compare", "r.jsonl", "--out", "table.jsonl"]
    subprocess.run(words, cwd=whole, capture_output=True, check=True)
    _warm_up()
    wrong: list[str] = []
    all_readers = readers()
    for number, reader in enumerate(all_readers):
        code, line = attempt(reader, _place(reader, whole, folder / "place"), 0)
        if code:
            said = (folder / "place" / "said.txt").read_text(errors="replace")
            wrong.append(f"{reader.name}: exit {code} for an undamaged input: {said}")
        dice = random.Random(f"{seed} {reader.name}")
        ends: Counter[int] = Counter()
        for turn in range(count // len(all_readers) + (number < count % len(all_readers))):
            place = _place(reader, whole, folder / "place")
            target = reader.file(place)
            how, damaged = mutate(target.read_bytes(), dice)
            target.write_bytes(damaged)
            code, line = attempt(reader, place, len(damaged))
            ends[code] += 1
            if line:
                wrong.append(f"{reader.name}, {how} ({turn}): {line}")
        say(f"{reader.name}: {', '.join(f'exit {code} {n} times' for code, n in sorted(ends.items()))}")
    by_name = {reader.name: reader for reader in all_readers}
    for name, what, content in hostile_inputs(whole):
        place = _place(by_name[name], whole, folder / "place")
        by_name[name].file(place).write_bytes(content)
        code, line = attempt(by_name[name], place, len(content))
        if line or code != 3:
            wrong.append(f"{name}, {what}: {line or f'exit {code}, expected 3'}")
        say(f"{name}, {what}: exit {code}")
    return wrong


def _warm_up() -> None:
    """Import what the children need, so that the growth of their memory is due to their input."""
    import torch

    import bsk.cli.app
    import bsk.cli.prices
    import bsk.evaluation.run
    import bsk.figures.boxes
    import bsk.figures.curves
    import bsk.figures.landings
    import bsk.figures.page
    import bsk.training.run  # noqa: F401

    bsk.cli.prices._startup = lambda device: 0.0  # would start a process for any list of jobs
    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def _place(reader: Reader, whole: Path, place: Path) -> Path:
    """Return a folder with the files that the reader needs."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in {reader.target.split("/")[0], *reader.needs}:
        source = whole / name
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            shutil.copy(source, place / name)
    return place


def attempt(reader: Reader, place: Path, size: int) -> tuple[int, str]:
    """Run the reader in a child process; return its exit code, and the failure or ""."""
    said = place / "said.txt"
    child = os.fork()
    if child == 0:
        _child(reader, place, said)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code in (-signal.SIGXCPU, -signal.SIGALRM):
        return code, "hangs"
    text = said.read_text(errors="replace")
    grown = int((place / "grown.txt").read_text()) if (place / "grown.txt").exists() else 0
    if code not in (0, 2, 3):
        return code, f"exit {code}: {text[-300:]!r}"
    lines = text.splitlines()
    if "Traceback" in text or (code and not (lines and all(line.startswith("bsk: ") for line in lines))):
        return code, f"said {text[-300:]!r}"
    if grown > 2 * size + MEMORY:
        return code, f"took {grown >> 20} MB for {size >> 20} MB of input"
    return code, ""


def _child(reader: Reader, place: Path, said: Path) -> None:
    os.chdir(place)
    with said.open("wb") as file, open(os.devnull, "wb") as nothing:
        os.dup2(file.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # the parent's may be captured
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    signal.alarm(PATIENCE)
    before = _memory("VmRSS")
    sys.argv = ["bsk", *reader.words]
    code = 1
    try:
        from bsk.cli.app import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        Path("grown.txt").write_text(str(_memory("VmHWM") - before))
        sys.stderr.flush()
        os._exit(code)


def _memory(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def mutate(content: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Return the name of a random kind of damage, and the damaged content."""
    damages: list[Callable[[bytes, random.Random], bytes]] = [
        flip_bits,
        truncate,
        overwrite,
        splice,
        hostile_json,
        hostile_header,
        absurd_length,
        repeat_line,
    ]
    damage = dice.choice(damages)
    return damage.__name__, damage(content, dice)


def flip_bits(content: bytes, dice: random.Random) -> bytes:
    """Flip a few bits, mostly near the beginning, where headers are."""
    found = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        end = len(found) if dice.random() < 0.3 else min(len(found), 4096)
        place = dice.randrange(end)
        found[place] ^= 1 << dice.randrange(8)
    return bytes(found)


def truncate(content: bytes, dice: random.Random) -> bytes:
    """Keep only the beginning."""
    return content[: dice.randrange(len(content))]


def overwrite(content: bytes, dice: random.Random) -> bytes:
    """Overwrite a range with random bytes or zeros."""
    place, length = dice.randrange(len(content)), dice.randint(1, 64)
    new = bytes(length) if dice.random() < 0.5 else dice.randbytes(length)
    return content[:place] + new + content[place + length :]


def splice(content: bytes, dice: random.Random) -> bytes:
    """Insert a copy of one range of the file at another place."""
    source, place = dice.randrange(len(content)), dice.randrange(min(len(content), 4096))
    return content[:place] + content[source : source + dice.randint(1, 2000)] + content[place:]


def hostile_json(content: bytes, dice: random.Random) -> bytes:
    """Replace a JSON value with a hostile one, or duplicate a key."""
    places = list(re.finditer(rb'("[\w]+"): ?("[^"]*"|-?[\d.e-]+|true|false|null)', content[:200_000]))
    if not places:
        return overwrite(content, dice)
    match = dice.choice(places)
    if dice.random() < 0.15:
        return content[: match.start()] + match[0] + b", " + content[match.start() :]
    return content[: match.start(2)] + dice.choice(HOSTILE).encode() + content[match.end(2) :]


def hostile_header(content: bytes, dice: random.Random) -> bytes:
    """Replace a value in bsk's own header, a text within the safetensors header, with a hostile one, or remove it."""
    try:
        end = 8 + int.from_bytes(content[:8], "little")
        head = json.loads(content[8:end])
        header = json.loads(head["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError):
        return hostile_json(content, dice)
    parent, name = dice.choice(list(_fields(header)))
    if dice.random() < 0.15:
        del parent[name]
    else:
        parent[name] = _MARK
    head["__metadata__"][KEY] = json.dumps(header).replace(json.dumps(_MARK), dice.choice(HOSTILE))
    changed = json.dumps(head).encode()
    return len(changed).to_bytes(8, "little") + changed + content[end:]


def _fields(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place within an object or list, as its container and its key or index."""
    for name in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, name
        yield from _fields(value[name])


def absurd_length(content: bytes, dice: random.Random) -> bytes:
    """Change the length in the first eight bytes, with which a safetensors file begins."""
    length = dice.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1, len(content), dice.randrange(1 << 20)])
    return length.to_bytes(8, "little") + content[8:]


def repeat_line(content: bytes, dice: random.Random) -> bytes:
    """Repeat or remove a line."""
    lines = content.splitlines(keepends=True)
    place = dice.randrange(len(lines))
    return b"".join([*lines[:place], *([lines[place]] * dice.choice([0, 2, 3])), *lines[place + 1 :]])
