"""Malicious inputs that exhaust memory, hang or mislead bsk, which random damage would hardly produce."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from bsk.records.bits import encode_correct

Hostile = tuple[str, str, bytes]  # the name of a reader, what is wrong, and the content of its target file


def hostile_inputs(whole: Path) -> list[Hostile]:
    """Return inputs that must all be refused; the folder `whole` has undamaged inputs for all readers."""
    checkpoint = (whole / "m.safetensors").read_bytes()
    record = json.loads((whole / "r.jsonl").read_bytes().splitlines()[0])
    twice = '"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, '
    vast = '"w": {"dtype": "F32", "shape": [0, 4611686018427387904, 4], "data_offsets": [0, 0]}, '
    heads = {
        "a tensor twice": lambda head: "{" + 2 * twice + head[1:],
        "a shape beyond reason": lambda head: "{" + vast + head[1:],
        "a header of bsk twice": lambda head: head.replace('"__metadata__":{', '"__metadata__":{"bsk": "{}", ', 1),
        "a header of empty lists": lambda head: '{"x": [' + "[]," * 1_000_000 + "[]], " + head[1:],
        "a long header of empty lists": lambda head: '{"x": [' + "[]," * 5_000_000 + "[]], " + head[1:],
    }
    log = (whole / "m.jsonl").read_bytes()
    values: dict[str, object] = {"accuracy": None, "eps": "x", "doubts": 3, "seconds": []}
    alarm = b'{"kind": "alarm", "epoch": 1, "step": []}\n'
    return [
        *(("a checkpoint", what, _headed(checkpoint, change)) for what, change in heads.items()),
        *(("foreign weights", what, content) for what, content in _weights().items()),
        *(("a zip of pictures", what, content) for what, content in _pictures().items()),
        ("evaluation records", "infinity", json.dumps(record).replace("{", '{"x": 1e999, ', 1).encode() + b"\n"),
        ("evaluation records", "many examples", _many_examples(record, 20_000_000)),
        ("a training log, to go on", "no epoch", log.replace(b'"epoch": 2', b'"epoch": null')),
        ("a training log, to go on", "an epoch that is text", log.replace(b'"epoch": 2', b'"epoch": "x"')),
        ("a training log, to go on", "an alarm of no update", log.replace(b"\n", b"\n" + alarm, 1)),
        *(
            (
                "a complete evaluation, to go on",
                f"{name} that is none",
                json.dumps({**record, name: value}).encode() + b"\n",
            )
            for name, value in values.items()
        ),
    ]


def _headed(content: bytes, change: Callable[[str], str]) -> bytes:
    """Return a safetensors file with a changed header."""
    end = 8 + int.from_bytes(content[:8], "little")
    head = change(content[8:end].decode().strip()).encode()
    return len(head).to_bytes(8, "little") + head + content[end:]


def _weights() -> dict[str, bytes]:
    zeros = _saved({"w": torch.zeros(50_000_000)})
    itself: dict[str, object] = {}
    itself["x"] = itself
    doubled: dict[str, object] = {}
    for _ in range(40):
        doubled = {"a": doubled, "b": doubled}
    with zipfile.ZipFile(io.BytesIO(zeros)) as archive:
        deflated = _deflated({member.filename: archive.read(member) for member in archive.infolist()})
    return {"deflated": deflated, "a dict in itself": _saved(itself), "dicts without end": _saved(doubled)}


def _pictures() -> dict[str, bytes]:
    """Return archives of pictures of one colour, which are small files whatever their resolution."""
    flat = {"many pixels": ("1", 8000, 0), "many pixels, padded": ("1", 2800, 4 << 20), "one large": ("P", 8000, 0)}
    found = {}
    for what, (mode, width, padding) in flat.items():
        buffer = io.BytesIO()
        Image.new(mode, (width, width)).save(buffer, "PNG")
        picture = buffer.getvalue() + bytes(padding)
        found[what] = _deflated({f"{label}/{number}.png": picture for label in "ab" for number in range(5)})
    return found


def _many_examples(record: dict[str, object], n: int) -> bytes:
    correct = torch.zeros(n, dtype=torch.bool).numpy()
    lines = [{**record, "n": n, "accuracy": 0.0, "correct": encode_correct(correct), "seed": seed} for seed in (1, 2)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _deflated(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
