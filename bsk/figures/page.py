"""One HTML page of all that lies in a folder: tables, pictures, the paper's numbers, and the trainings behind them."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from bsk.comparison.compare import COLUMNS, Row
from bsk.comparison.evidence import TrainingLog, collect
from bsk.comparison.groups import differing, short_name
from bsk.comparison.runs import Run
from bsk.comparison.tables import caption, footnotes, grid
from bsk.errors import InputError
from bsk.records.fields import Amount, Count, Difference, Fraction, Signed, Text
from bsk.records.jsonl import LATER_FLAGS
from bsk.records.located import Located, read, value_of, wrong
from bsk.records.words import duration, estimate, many, percent, plain, printable

PICTURES = ("picture.svg", "figure.png", "curves.svg")  # of a folder of a table, in this order
PAPER = ("table", "figure", "section")  # what the paper has, and in which order a page shows it
WORDS = {
    "picture.svg": "The figure.",
    "figure.png": "Accuracy against the cost of training: robust filled, natural hollow.",
    "curves.svg": "Training: loss, accuracy on validation images, passes and seconds an epoch.",
}
OF_THE_METHOD = ("start", "inner", "outer", "rescue", "eps")  # told where trainings of one method differ in them
OF_THE_SELECTED = ("ema", "select")  # other checkpoints of the same method, which no column of the page tells
MADE_WITH = ("version", "torch", "device")  # told of each training where they differ
LONGEST_TABLE = 1000  # rows; the paper's longest has 14, and a short line becomes a row of all columns
TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


_KINDS: list[tuple[Any, str]] = [
    (Text | None, "name model attack dataset split selected note title"),
    (Count | None, "seeds n pareto"),
    (Fraction | None, "natural natural_low natural_high natural_sd robust robust_low robust_high robust_sd"),
    (Fraction | None, "robust_best adbd p p_holm paper_natural paper_robust paper_robust_best paper_robust_sd"),
    (Fraction | None, "paper_adbd"),
    (Difference | None, "difference difference_low difference_high difference_boot_low difference_boot_high"),
    (Difference | None, "natural_difference natural_difference_low natural_difference_high"),
    (Amount | None, "eps train_seconds train_forward_passes train_backward_passes train_time_ratio"),
    (Amount | None, "train_passes_ratio paper_minutes paper_time_ratio detectable robust_sd_low robust_sd_high"),
    (Signed | None, "difference_seeds_low difference_seeds_high"),
]
KINDS = {column: kind for kind, columns in _KINDS for column in columns.split()}  # of COLUMNS, where not null


@dataclass(frozen=True)
class Section:
    """A folder with a table or a picture of the paper."""

    name: str
    rows: list[Row]
    pictures: list[Path]

    @property
    def title(self) -> str:
        """Return the title that its rows carry, else what the paper calls it, else the folder's name."""
        paper = re.match(r"(table|figure)([0-9]+)\b", self.name)
        name = f"{paper[1].capitalize()} {paper[2]}" if paper else self.name
        return next((str(row["title"]) for row in self.rows if row.get("title")), name)


def page(folder: Path) -> str:
    """Return a whole HTML page that needs no other file, no script and no network.

    It shows every folder below with a `table.jsonl` of bsk compare or a picture, then the numbers against the
    paper's, then every training log below. The same files give the same page, byte by byte.

    Raises:
        InputError: there is nothing to show, or a file is not what it should be.
    """
    sections = list(_sections(folder))
    logs = [each for path in _logs(folder) for each in collect(read(path)).trainings]
    if not sections and not logs:
        raise InputError(f"{folder}: no table.jsonl, picture or log below it; make table2, or name another folder")
    body = [*(_section(each) for each in sections), _against_the_paper(sections), _trainings(logs), _differences()]
    alike = Counter(each.title for each in sections)  # a table of two data sets has a section for each
    links = [(s.name, f"{s.title}: {s.name}" if alike[s.title] > 1 else s.title) for s in sections]
    more = {"against": "Against the paper", "trainings": "Trainings", "differences": "Where bsk differs"}
    links += [(name, words) for name, words in more.items() if any(f'id="{name}"' in part for part in body)]
    nav = "".join(f'<li><a href="#{escape(name)}">{escape(title)}</a></li>' for name, title in links)
    title = f"bsk: {escape(printable(folder.resolve().name))}"
    style = (files("bsk.figures") / "page.css").read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    before = (
        f"<!doctype html>\n<html lang=en><head>{head}<style>{style}</style></head>\n"
        f"<body><h1>{title}</h1>\n<nav><ul>{nav}</ul></nav>\n"
    )
    return "".join([before, *body, "</body></html>\n"])  # at once: pictures may be large


def _sections(folder: Path) -> Iterator[Section]:
    found = {path.parent for name in ("table.jsonl", *PICTURES) for path in folder.rglob(name)}
    for place in sorted(found, key=lambda path: _as_in_the_paper(str(path.relative_to(folder)))):
        table = place / "table.jsonl"
        rows = _rows(table) if table.exists() else []
        pictures = [place / name for name in PICTURES if (place / name).exists()]
        yield Section(printable("-".join(place.relative_to(folder).parts) or folder.name), rows, pictures)


def _rows(path: Path) -> list[Row]:
    items = read(path, LONGEST_TABLE + 1)
    if len(items) > LONGEST_TABLE:
        raise InputError(f"{path}: has more than {LONGEST_TABLE} rows; give a table of bsk compare")
    return [_row(item) for item in items]


def _row(item: Located) -> Row:
    """Return a row of a table, checked; a column that was not there when it was written is null."""
    row = {column: value_of(item, column, KINDS[column]) for column in COLUMNS}
    told = ("name", "detectable") if row["p_holm"] is not None else ("name",)  # a caption tells what tests would see
    for column in told:
        if row[column] is None:
            raise wrong(item, column, "a value")
    return row


def _as_in_the_paper(name: str) -> tuple[int, list[str | int]]:
    """Return a key by which the paper's tables come first, then its figures and sections, then what it has not."""
    kind = next((k for k, each in enumerate(PAPER) if name.startswith(each)), len(PAPER))
    return kind, _natural(name)


def _natural(text: str) -> list[str | int]:
    """Return a key by which table2 comes before table10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _logs(folder: Path) -> list[Path]:
    """Return the training logs: the JSONL beside a .last.safetensors or .train.json of the same name."""
    ends = (".last.safetensors", ".train.json")
    found = {path.with_name(path.name.removesuffix(end) + ".jsonl") for end in ends for path in folder.rglob("*" + end)}
    return sorted((path for path in found if path.exists()), key=lambda path: _natural(str(path)))


def _section(section: Section) -> str:
    parts = [
        f'<section id="{escape(section.name)}"><h2>{escape(section.title)} <small>{escape(section.name)}</small></h2>'
    ]
    if section.rows:
        parts += [f"<p>{escape(caption(section.rows))}</p>", table(grid(section.rows))]
        parts += [f"<p class=note>{escape(note)}</p>" for note in footnotes(section.rows)]
    parts += [_picture(path) for path in section.pictures]
    return "\n".join([*parts, "</section>\n"])


def table(cells: Sequence[Sequence[str]]) -> str:
    """Return a header and rows as an HTML table."""
    header, *rows = cells
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"


def _picture(path: Path) -> str:
    """Return a picture as part of the page; each on its own, since the names within two SVGs may be the same."""
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}; remove it or make it again") from error
    words = escape(WORDS[path.name])
    start = f'<figure><img alt="{words}" src="data:{TYPES[path.suffix]};base64,'
    return f'{start}{data}"><figcaption>{words}</figcaption></figure>'


def _against_the_paper(sections: Sequence[Section]) -> str:
    cells = [
        ["", "row", "seeds", "n", "natural", "paper natural", "robust", "paper robust", "time", "passes", "paper time"]
    ]
    for section in sections:
        for row in section.rows:
            if row.get("paper_robust") is not None or row.get("paper_robust_best") is not None:
                cells.append([section.title, str(row["name"]), *_against(row)])
    if len(cells) == 1:
        return ""
    words = (
        "Percent with 95 % intervals; time and passes by those of the table's first row. Where data, network and "
        "radius are not the paper's, levels cannot be compared, only the order of rows and the ratios; and times only "
        "where nothing else ran on the machine, which passes do not depend on."
    )
    return f'<section id="against"><h2>Against the paper</h2><p>{words}</p>{table(cells)}</section>\n'


def _against(row: Row) -> list[str]:
    paper_natural, paper, best = (_percent(row.get(f"paper_{name}")) for name in ("natural", "robust", "robust_best"))
    natural, robust = (
        estimate(*(_fraction(row.get(name + end)) for end in ("", "_low", "_high"))) for name in ("natural", "robust")
    )
    costs = (row.get(f"{name}_ratio") for name in ("train_time", "train_passes", "paper_time"))
    ratios = [f"{each:.2f}" if isinstance(each, (int, float)) else "" for each in costs]
    told = ", ".join(filter(None, [paper, f"best {best}" if best else ""]))
    return [plain(row.get("seeds")), plain(row.get("n")), natural, paper_natural, robust, told, *ratios]


def _fraction(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _percent(value: object) -> str:
    return percent(value) if isinstance(value, float) else ""


def _trainings(logs: Sequence[TrainingLog]) -> str:
    if not logs:
        return ""
    header = ["method", "flags", "data", "model", "seed", "epochs", "val natural", "val PGD-20", "passes", "seconds"]
    telling = _telling([each.run for each in logs])
    made = [key for key in MADE_WITH if len({each.made_with.get(key) for each in logs}) > 1]
    header = [*header, *made]
    cells = [header]
    for each in logs:
        cells.append([*_training(each, telling[each.run.method]), *(plain(each.made_with.get(key)) for key in made)])
    same = _shared_facts(logs)
    return (
        f'<section id="trainings"><h2>Trainings</h2><p>{len(logs)} trainings. The same in all: {escape(same)}.</p>'
        f"{table(cells)}</section>\n"
    )


def _telling(runs: Sequence[Run]) -> Mapping[str | None, Sequence[str]]:
    """Return the flags that tell the trainings of each method from others; an overridden one only among its own."""
    of_all = [flag for flag in differing(runs) if flag not in OF_THE_METHOD]
    of_all += [f for f in OF_THE_SELECTED if len({plain({**LATER_FLAGS, **run.flags}.get(f)) for run in runs}) > 1]
    own = {method: differing([run for run in runs if run.method == method]) for method in {run.method for run in runs}}
    return {method: sorted({*of_all, *(set(flags) & set(OF_THE_METHOD))}) for method, flags in own.items()}


def _training(each: TrainingLog, apart: Sequence[str]) -> list[str]:
    run = each.run
    both = (
        None if run.forward_passes is None or run.backward_passes is None else run.forward_passes + run.backward_passes
    )
    flags = [f"{key}={plain(run.flags[key])}" for key in apart if run.flags.get(key) is not None]
    return [
        short_name(run),
        " ".join(flags),
        plain(run.dataset),
        plain(run.model),
        plain(run.seed),
        str(each.epoch) if each.finished else f"{each.epoch}, not ended",
        estimate(each.val_natural),
        estimate(each.val_robust),
        "" if both is None else many(both),
        duration(run.seconds),
    ]


def _shared_facts(logs: Sequence[TrainingLog]) -> str:
    """Return the flags, versions and devices that all trainings share."""
    each_ones: list[dict[str, Any]] = [{**LATER_FLAGS, **each.run.flags, **each.made_with} for each in logs]
    first = {key: value for key, value in each_ones[0].items() if value is not None and key not in ("method", "seed")}
    common = {key: value for key, value in first.items() if all(known.get(key) == value for known in each_ones)}
    return ", ".join(f"{printable(key)} {plain(value)}" for key, value in sorted(common.items()))


def _differences() -> str:
    text = (files("bsk.comparison") / "paper" / "differences.md").read_text(encoding="utf-8")
    items = [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]
    shown = "".join(f"<li>{_marked(item)}</li>" for item in items)
    return (
        f'<section id="differences"><h2>Where paper and code differ, and what bsk does</h2><ul>{shown}</ul></section>\n'
    )


def _marked(text: str) -> str:
    """Return a little Markdown as HTML: bold and code."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)
