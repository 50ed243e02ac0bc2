"""A model card: what a checkpoint is, how it was trained, how robust it is, and when to doubt that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bsk.comparison.tables import markdown_of
from bsk.export.robustbench import norm_of
from bsk.records.jsonl import BEST_ON_TEST
from bsk.records.schema import AuditFields, EvaluationRecord
from bsk.records.words import estimate, flat, many, plain, printable, searched

_TITLES = ["attack", "norm", "eps", "images", "accuracy, percent", "remarks"]
_USE = """\
    import bsk

    model = bsk.load("{name}"{code})  # images in [0, 1] in, logits out
"""


def card(path: Path, sha256: str, header: dict[str, Any], records: Sequence[EvaluationRecord]) -> str:
    """Return the model card of a checkpoint in Markdown, from its header and its evaluations, if any."""
    parts = [f"# {_text(path.stem)}", _summary(header), "## Use", _use(path, header), "## Training", _training(header)]
    parts += ["## Robustness", _robustness(records), *_limits(records)]
    return "\n\n".join([*parts, "## Identity", _identity(path, sha256, header)]) + "\n"


def _summary(header: dict[str, Any]) -> str:
    shape = "x".join(map(str, header["shape"]))
    classes = ", ".join(map(_text, header["classes"]))
    mean, std = (", ".join(f"{each:g}" for each in header[name]) for name in ("mean", "std"))
    return (
        f"`{_code(header['model'])}`, an image classifier for {shape} images in {len(header['classes'])} classes: "
        f"{classes}. It normalises images itself, with mean {mean} and standard deviation {std}."
    )


def _use(path: Path, header: dict[str, Any]) -> str:
    code = f', model="{_code(header["model"])}"' if ":" in header["model"] else ""
    return _USE.format(name=_code(path.name), code=code).rstrip()


def _training(header: dict[str, Any]) -> str:
    passes = [header.get(f"train_{way}_passes") for way in ("forward", "backward")]
    cost = "" if None in passes else f", {many(sum(filter(None, passes)))} passes of an image"
    data = f"{_text(header['dataset'])} (SHA-256 `{_code(str(header.get('data_sha256')))}`)"
    epoch = f"{header.get('epoch')} ({_text(str(header.get('selected')))})"
    text = f"By `{_code(str(header.get('method')))}` on {data}, epoch {epoch}{cost}, radius {plain(header['eps'])}, "
    text += f"seed {header.get('seed')}."
    if header.get("val_robust") is not None and header.get("val_robust", -1) >= 0:
        selected = str(header.get("selected"))
        on_test = selected.startswith(BEST_ON_TEST)
        chose = ", which selected the epoch" if selected.startswith("best") and not on_test else ""
        text += f" On {header.get('val_n')} held-out images{chose}: {estimate(header['val_natural'])} natural, "
        text += f"{estimate(header['val_robust'])} under PGD-20."
        text += " Test images selected the epoch." if on_test else ""
    return text + "\n\n" + _table(["flag", "value"], ([name, plain(value)] for name, value in _flags(header)), "flag")


def _flags(header: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(header["flags"].items())


def _robustness(records: Sequence[EvaluationRecord]) -> str:
    if not records:
        return "Not evaluated: no record of an attack came with this card."
    shown = [[*_attack(each), _images(each), estimate(each.accuracy, each.low, each.high)] for each in records]
    alike: dict[tuple[str, ...], list[EvaluationRecord]] = {}
    for line, record in zip(shown, records, strict=True):
        alike.setdefault(tuple(line[:-1]), []).append(record)
    remarks = (_remarks(record, alike[tuple(line[:-1])]) for line, record in zip(shown, records, strict=True))
    lines = [list(each) for each in dict.fromkeys((*line, said) for line, said in zip(shown, remarks, strict=True))]
    text = (
        "Accuracy with its 95 % interval over images. Every attack gives an upper bound, since a stronger one may find "
        "less; an audit gives an estimate of AutoAttack's accuracy."
    )
    return text + "\n\n" + _table(_TITLES, lines, "attack")


def _attack(record: EvaluationRecord) -> list[str]:
    natural = record.attack == "natural"
    return [record.attack, *(("", "") if natural else (norm_of(record), plain(record.eps)))]


def _remarks(record: EvaluationRecord, alike: Sequence[EvaluationRecord]) -> str:
    """Return how a result was made where that matters, and the parameters that differ from those of like results."""
    every, own = ([flat(each.attack_parameters or {}) for each in group] for group in (alike, [record]))
    keys = [key for key in dict.fromkeys(key for each in every for key in each) if key[-1] != "search"]
    telling = [key for key in keys if any(each.get(key) != every[0].get(key) for each in every)]
    found = dict.fromkeys(f"{key[-1]} {plain(own[0][key])}" for key in telling if key in own[0])
    carried = isinstance(record.carried, int) and record.carried > 0
    said = [
        "estimated from a sample" if isinstance(record.audit, AuditFields) else "",
        searched(record.attack_parameters or {}),
        f"{record.carried} images decided at other radii" if carried else "",
    ]
    return ", ".join([*found, *filter(None, said)])


def _images(record: EvaluationRecord) -> str:
    """Return the images that an accuracy is for, as "2000 cifar10 test, fog 3"."""
    corrupted = f", {record.corruption} {record.severity}" if isinstance(record.corruption, str) else ""
    return f"{record.n} {record.dataset or ''} {record.split}{corrupted}"


def _limits(records: Sequence[EvaluationRecord]) -> list[str]:
    doubts = dict.fromkeys(f"- {_text(each.attack)}: {_text(said)}" for each in records for said in each.doubts or [])
    return ["## When not to believe it", "\n".join(doubts)] if doubts else []


def _identity(path: Path, sha256: str, header: dict[str, Any]) -> str:
    made = ", ".join(f"{name} {_text(str(header[name]))}" for name in ("torch", "device") if header.get(name))
    version = _text(str(header.get("version")))
    return f"`{_code(path.name)}`, SHA-256 `{sha256}`, by bsk {version}{' with ' + made if made else ''}."


def _table(titles: list[str], lines: Iterable[list[str]], left: str) -> str:
    return markdown_of([titles, *lines], {left, "value"}, "").strip()


def _text(text: str) -> str:
    """Return text from a file as Markdown that shows it literally, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", printable(text))


def _code(text: str) -> str:
    """Return text from a file without the characters that would end a code span or a Python string."""
    return re.sub(r"[`\"\\]", "", printable(text))
