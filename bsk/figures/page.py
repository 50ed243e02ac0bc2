"""The HTML report of a folder: tables, figures, the paper's numbers, and the trainings behind them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bsk.comparison.compare import COLUMNS, Row, as_float
from bsk.comparison.evidence import TrainingLog, collect
from bsk.comparison.groups import differing, short_name
from bsk.comparison.runs import Run, modern
from bsk.comparison.tables import caption, cells, estimates, footnotes
from bsk.contract.parameters import RESERVED
from bsk.errors import InputError
from bsk.records.fields import Amount, Count, Difference, Fraction, Signed, Text
from bsk.records.located import Located, read, stream, value_of, wrong
from bsk.records.words import duration, estimate, many, plain, printable

PICTURES = {  # file names in a folder of a table and their captions, in this order
    "picture.svg": "The figure.",
    "figure.png": "Accuracy against the cost of training: robust filled, natural hollow.",
    "curves.svg": "Training: loss, accuracy on validation images, passes and seconds per epoch.",
}
PAPER = ("table", "figure", "section")  # the parts of the paper, in the order of the page
OF_THE_SELECTED = ("ema", "select")  # flags that change only which checkpoint is used; no other column shows them
MADE_WITH = ("version", "torch", "device")  # columns of the trainings where these differ
LONGEST_TABLE = 1000  # rows, to bound memory: a short line becomes a row of all columns; the paper's longest has 14
TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


_CELLS: list[tuple[Any, str]] = [
    (Text | None, "name model attack dataset split selected note title corruption"),
    (Count | None, "seeds n pareto severity baseline"),
    (Fraction | None, "natural natural_low natural_high natural_sd robust robust_low robust_high robust_sd"),
    (Fraction | None, "robust_best adbd p p_holm paper_natural paper_robust paper_robust_best paper_robust_sd"),
    (Fraction | None, "paper_adbd audit_low audit_high"),
    (Difference | None, "difference difference_low difference_high difference_boot_low difference_boot_high"),
    (Difference | None, "natural_difference natural_difference_low natural_difference_high"),
    (Amount | None, "eps train_seconds train_forward_passes train_backward_passes train_time_ratio"),
    (Amount | None, "train_passes_ratio paper_minutes paper_time_ratio detectable robust_sd_low robust_sd_high"),
    (Signed | None, "difference_seeds_low difference_seeds_high"),
]
CELLS = {column: kind for kind, columns in _CELLS for column in columns.split()}  # the valid values of each column


@dataclass(frozen=True)
class Section:
    """A folder with the rows of its table and the captions of its pictures."""

    name: str
    rows: list[Row]
    pictures: dict[Path, str]

    @property
    def title(self) -> str:
        """Return the title of its rows, else the paper's name for it, else the folder's name."""
        paper = re.match(r"(table|figure)([0-9]+)\b", self.name)
        name = f"{paper[1].capitalize()} {paper[2]}" if paper else self.name
        return next((str(row["title"]) for row in self.rows if row.get("title")), name)


def page(folder: Path) -> str:
    """Return a self-contained HTML page: no other files, scripts or network.

    It shows every subfolder with a `table.jsonl` of bsk compare or a picture, then our numbers next to the paper's,
    then every training log in the folder. The same files give the same bytes.

    Raises:
        InputError: there is nothing to show, or a file is invalid.
    """
    sections = list(_sections(folder))
    logs = [each for path in _logs(folder) for each in collect(read(path)).trainings]
    if not sections and not logs:
        raise InputError(f"{folder}: no table.jsonl, picture or log in it; run make table2, or name another folder")
    loader = PackageLoader("bsk", "figures")
    html = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html.filters |= {
        "caption": caption,
        "footnotes": footnotes,
        "cells": cells,
        "embedded": _embedded,
        "marked": _marked,
    }
    return html.get_template("page.html.j2").render(
        name=printable(folder.resolve().name),
        sections=sections,
        against=_against_the_paper(sections),
        trainings=_trainings(logs),
        same_in_all=_shared_facts(logs),
        differences=_differences(),
    )


def _sections(folder: Path) -> Iterator[Section]:
    found = {path.parent for name in ("table.jsonl", *PICTURES) for path in folder.rglob(name)}
    for place in sorted(found, key=lambda path: _as_in_the_paper(str(path.relative_to(folder)))):
        table = place / "table.jsonl"
        rows = _rows(table) if table.exists() else []
        pictures = {place / name: words for name, words in PICTURES.items() if (place / name).exists()}
        yield Section(printable("-".join(place.relative_to(folder).parts) or folder.name), rows, pictures)


def _rows(path: Path) -> list[Row]:
    items = list(islice(stream(path), LONGEST_TABLE + 1))
    if len(items) > LONGEST_TABLE:
        raise InputError(f"{path}: has more than {LONGEST_TABLE} rows; give a table of bsk compare")
    return [_row(item) for item in items]


def _row(item: Located) -> Row:
    """Return a validated row of a table; columns that the writing version did not have yet are null."""
    row = {column: value_of(item, column, CELLS[column]) for column in COLUMNS}
    required = ("name", "detectable") if row["p_holm"] is not None else ("name",)  # the caption needs `detectable`
    for column in required:
        if row[column] is None:
            raise wrong(item, column, "a value")
    return row


def _as_in_the_paper(name: str) -> tuple[int, list[str | int]]:
    """Return a sort key: the paper's tables first, then its figures and sections, then everything else."""
    kind = next((k for k, each in enumerate(PAPER) if name.startswith(each)), len(PAPER))
    return kind, _natural(name)


def _natural(text: str) -> list[str | int]:
    """Return a sort key that puts table2 before table10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _logs(folder: Path) -> list[Path]:
    """Return the training logs: JSONL files with a .last.safetensors or .train.json file of the same name."""
    ends = (".last.safetensors", ".train.json")
    found = {path.with_name(path.name.removesuffix(end) + ".jsonl") for end in ends for path in folder.rglob("*" + end)}
    return sorted((path for path in found if path.exists()), key=lambda path: _natural(str(path)))


def _embedded(path: Path) -> str:
    """Return a picture as a data URL; as separate images, since ids within two SVGs may clash."""
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}; remove it or make it again") from error
    return f"data:{TYPES[path.suffix]};base64,{data}"


def _against_the_paper(sections: Sequence[Section]) -> list[list[str]]:
    """Return a header and one line for each row that the paper has too, or an empty list."""
    header = ["", "row", "attack", "seeds", "n", "natural", "paper natural", "robust", "paper robust", "time", "passes"]
    both = [
        [section.title, str(row["name"]), *_against(row)]
        for section in sections
        for row in section.rows
        if row["paper_robust"] is not None or row["paper_robust_best"] is not None
    ]
    return [[*header, "paper time", "remarks"], *both] if both else []


def _against(row: Row) -> list[str]:
    natural, robust = (estimates([row], column)[0] for column in ("natural", "robust"))
    paper_natural, paper, best = (estimates([row], f"paper_{name}")[0] for name in ("natural", "robust", "robust_best"))
    costs = (as_float(row[f"{name}_ratio"]) for name in ("train_time", "train_passes", "paper_time"))
    ratios = ["" if each is None else f"{each:.2f}" for each in costs]
    paper_robust = ", ".join(filter(None, [paper, best and f"best {best}"]))
    facts = [plain(row[fact]) for fact in ("attack", "seeds", "n")]
    return [*facts, natural, paper_natural, robust, paper_robust, *ratios, str(row["note"] or "")]


def _trainings(logs: Sequence[TrainingLog]) -> list[list[str]]:
    """Return a header and one line per training, or an empty list."""
    header = ["method", "flags", "data", "model", "seed", "epochs", "val natural", "val PGD-20", "passes", "seconds"]
    telling = _telling([each.run for each in logs])
    made = [key for key in MADE_WITH if len({each.made_with.get(key) for each in logs}) > 1]
    lines = [
        [*_training(each, telling[each.run.method]), *(plain(each.made_with.get(key)) for key in made)] for each in logs
    ]
    return [[*header, *made], *lines] if lines else []


def _telling(runs: Sequence[Run]) -> Mapping[str | None, Sequence[str]]:
    """Return for each method the flags that distinguish its trainings; its own parameters only among themselves."""
    of_all = [flag for flag in differing(runs) if flag in RESERVED]
    of_all += [f for f in OF_THE_SELECTED if len({plain(modern(run.method, run.flags).get(f)) for run in runs}) > 1]
    own = {method: differing([run for run in runs if run.method == method]) for method in {run.method for run in runs}}
    return {method: sorted({*of_all, *(set(flags) - RESERVED)}) for method, flags in own.items()}


def _training(each: TrainingLog, apart: Sequence[str]) -> list[str]:
    run = each.run
    flags = [f"{key}={plain(run.flags[key])}" for key in apart if run.flags.get(key) is not None]
    return [
        short_name(run),
        " ".join(flags),
        plain(run.dataset),
        plain(run.model),
        plain(run.seed),
        str(each.epoch) if each.finished else f"{each.epoch}, unfinished",
        estimate(each.val_natural),
        estimate(each.val_robust),
        "" if run.passes is None else many(run.passes),
        duration(run.seconds),
    ]


def _shared_facts(logs: Sequence[TrainingLog]) -> str:
    """Return the flags, versions and devices that all trainings share."""
    facts: list[dict[str, Any]] = [{**modern(each.run.method, each.run.flags), **each.made_with} for each in logs]
    first = [pair for each in facts[:1] for pair in each.items() if pair[0] not in ("method", "seed")]
    common = {k: value for k, value in first if value is not None and all(each.get(k) == value for each in facts)}
    return ", ".join(f"{printable(key)} {plain(value)}" for key, value in sorted(common.items()))


def _differences() -> list[str]:
    text = (files("bsk.comparison") / "paper" / "differences.md").read_text(encoding="utf-8")
    return [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def _marked(text: str) -> Markup:
    """Return text with Markdown's bold and code as HTML."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", bold))
