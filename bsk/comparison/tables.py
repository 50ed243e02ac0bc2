"""Rows as text: every column in full precision for programs, selected columns for people."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from bsk.comparison.compare import BETWEEN, COLUMNS, PUBLISHED, Row, Value, as_float, cost_in_passes
from bsk.comparison.groups import checkpoint_kind
from bsk.errors import UsageError, nearest
from bsk.records.jsonl import dumps
from bsk.records.words import duration, estimate, many, plain, probability

WIDTH = 100  # characters of a terminal table, if possible
WIDTH_BESIDE = 200  # the same with the paper's numbers
TEXT_COLUMNS = {"", "method", "model", "attack", "dataset", "split", "selected", "corruption"}  # aligned left


def render(rows: Sequence[Row], format: str) -> str:
    """Return the rows as text that ends with a newline.

    `tsv` and `jsonl` have every column in full precision, in the order of `COLUMNS`. `table`, `markdown` and `latex`
    have percent and intervals, and a caption with the facts that all rows share.

    Raises:
        UsageError: there is no such format.
    """
    return FORMATS[checked_format(format)](rows)


def printed(
    rows: Sequence[Mapping[str, Value]],
    format: str,
    cells: Sequence[Sequence[str]],
    left: Collection[str],
    caption: str,
    under: Sequence[str] = (),
) -> str:
    """Return rows with any columns as text: for programs all of `rows`, for people `cells` under the caption.

    `under` are notes below the cells.
    """
    if format == "jsonl":
        return "".join(dumps(dict(row)) + "\n" for row in rows)
    if format == "tsv":
        lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
        return "".join("\t".join(line) + "\n" for line in lines)
    if format == "table":
        notes = ["", *under] if under else []
        return "\n".join([caption, "", *(line.rstrip() for line in aligned(cells, left)), *notes]) + "\n"
    return (markdown_of if format == "markdown" else latex_of)(cells, left, caption, under)


def checked_format(format: str) -> str:
    """Return the name of a format, or raise a UsageError if there is no such format."""
    if format not in FORMATS:
        raise UsageError(f"--format {format}: no such format; {nearest(format, list(FORMATS))}")
    return format


def format_of(path: Path) -> str:
    """Return the format for a file by its suffix, or raise a UsageError if the suffix is unknown."""
    if path.suffix not in ENDINGS:
        raise UsageError(f"--out {path}: a table ends in {', '.join(ENDINGS)}")
    return ENDINGS[path.suffix]


def tsv(rows: Sequence[Row]) -> str:
    """Return a header and one line per row; numbers have no exponents such as 1e-05, which `sort -n` misreads."""
    return "".join("\t".join(line) + "\n" for line in [COLUMNS, *([cell(row[c]) for c in COLUMNS] for row in rows)])


def jsonl(rows: Sequence[Row]) -> str:
    """Return one JSON object per row, with null for unknown values."""
    return "".join(dumps({column: row[column] for column in COLUMNS}) + "\n" for row in rows)


def table(rows: Sequence[Row]) -> str:
    """Return an aligned table for a terminal; if it is too wide, parts are left out until it fits.

    First the intervals of `natural`, then the training time (passes show the cost on any machine), then the intervals
    of `difference` together with p, which says too little without them.
    """
    most = WIDTH_BESIDE if _is_beside(rows) else WIDTH
    for without in ((), ("natural",), ("natural", "training"), ("natural", "training", "difference")):
        lines = aligned(cells(rows, without), TEXT_COLUMNS)
        if len(lines[0]) <= most:
            break
    notes = footnotes(rows)
    above, below = textwrap.wrap(caption(rows, without), most), ["", *notes] if notes else []
    return "\n".join([*above, "", *(line.rstrip() for line in lines), *below]) + "\n"


def aligned(lines: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    """Return the lines as text of equal length, with the columns titled in `left` aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust if title in left else str.rjust for title in lines[0]]
    padded = ([side(cell, w) for side, cell, w in zip(sides, line, widths, strict=True)] for line in lines)
    return ["  ".join(line) for line in padded]


def markdown(rows: Sequence[Row]) -> str:
    """Return a GitHub table under its caption."""
    return markdown_of(cells(rows), TEXT_COLUMNS, caption(rows), footnotes(rows))


def markdown_of(table: Sequence[Sequence[str]], left: Collection[str], caption: str, under: Sequence[str] = ()) -> str:
    """Return cells, the first line the header, as a GitHub table under its caption and above its notes."""
    header, *lines = [[re.sub(r"([\\|<*`])", r"\\\1", cell) for cell in line] for line in table]
    rule = [":--" if title in left else "--:" for title in header]
    body = ["| " + " | ".join(line) + " |" for line in [header, rule, *lines]]
    notes = [re.sub(r"([\\<*`])", r"\\\1", note) + "\\" for note in under]
    return "\n".join([caption, "", *body, *(["", *notes] if notes else [])]).rstrip("\\") + "\n"


def latex(rows: Sequence[Row]) -> str:
    """Return a table in the style of booktabs, with its caption and notes."""
    return latex_of(cells(rows), TEXT_COLUMNS, caption(rows), footnotes(rows))


def latex_of(table: Sequence[Sequence[str]], left: Collection[str], caption: str, under: Sequence[str] = ()) -> str:
    """Return cells, the first line the header, as a table in the style of booktabs with caption and notes."""
    header, *lines = [[_latex_text(cell) for cell in line] for line in table]
    align = "".join("l" if title in left else "r" for title in header)
    body = [" & ".join(line) + r" \\" for line in lines]
    top = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{_latex_text(caption)}}}"]
    top += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule"]
    notes = [rf"\\{{\footnotesize {_latex_text(note)}}}" for note in under]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]) + "\n"


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "table": table,
    "tsv": tsv,
    "jsonl": jsonl,
    "markdown": markdown,
    "latex": latex,
}
ENDINGS = {".txt": "table", ".tsv": "tsv", ".jsonl": "jsonl", ".md": "markdown", ".tex": "latex"}

FACTS: dict[str, Callable[[Value], str]] = {  # in the caption if they are the same in all rows, else columns
    "dataset": plain,
    "split": lambda value: f"{value} split",
    "corruption": plain,
    "severity": lambda value: f"severity {value}",
    "n": lambda value: f"n {value}",
    "model": plain,
    "selected": lambda value: str(value) if str(value).startswith("update ") else f"{value} epoch",
    "eps": lambda value: f"eps {plain(value)}",
    "attack": plain,
    "seeds": lambda value: f"{value} seed{'s' if value != 1 else ''}",
}
ABSENT = ("corruption", "severity", "selected")  # clean images have no corruption, others' networks no chosen epoch
CLEAN = "clean"  # the corruption of images that have none


def fact_of(row: Row, fact: str) -> str:
    """Return a fact of a row as the text of a cell."""
    if row[fact] is None:
        return CLEAN if fact == "corruption" and row["split"] is not None else ""
    return plain(row[fact])


def caption(rows: Sequence[Row], without: Sequence[str] = ()) -> str:
    """Return the caption: the facts that all rows share, and what the numbers are, except for parts left out."""
    seeds = _values(rows, "seeds")
    only_one = " for new images, not for new seeds" if seeds == [1] else ", of one seed for new images only"
    shown = [column for column in ("natural", "robust", "difference") if column not in without]
    known = [column for column in shown if _values(rows, f"{column}_low")]
    some = f" of {' and '.join(known)}" if without else ""
    legend = [f"percent with 95 % intervals{some}{only_one if 1 in seeds else ''}" if known else "percent"]
    if _values(rows, "robust_sd"):
        legend.append("sd over seeds")
    if _values(rows, "difference"):
        tests = "" if "difference" in without else _tests(rows)
        legend.append(f"difference from {_first(rows)}{tests}")
    if without:
        legend.append("the format markdown has all")
    if _values(rows, "pareto"):
        models = " of its model" if "model" in varying(rows) else ""
        legend.append(f"* no other row{models} is better in robust accuracy or passes and as good in the other")
        if any(row["pareto"] is None for row in rows):
            legend.append("? not judged, without an attack or passes, or an estimate")
    if _is_beside(rows):
        notes = [str(row["note"]) for row in rows if row["paper_natural"] is not None]
        quoted = bool(notes) and all(PUBLISHED in note for note in notes)  # the notes name the source
        numbers = "published numbers" if quoted else "the paper's own numbers"
        legend.append(f"time and passes relative to the first row; columns titled paper have {numbers}")
    titles = [f"{title}: " for title in _values(rows, "title")]
    return "".join(titles) + "; ".join(filter(None, [shared(rows), *legend]))


def _first(rows: Sequence[Row]) -> str:
    kinds = {checkpoint_kind(str(selected)) for selected in _values(rows, "selected")} if rows[0]["selected"] else ()
    same = {"attack": "attack" in varying(rows), "kind of checkpoint": len(kinds) > 1}
    shared_facts = " and ".join(fact for fact, needed in same.items() if needed)
    return f"the first row of the same {shared_facts}" if shared_facts else "the first row"


def _tests(rows: Sequence[Row]) -> str:
    tested = sum(row["p_holm"] is not None for row in rows)
    if not tested:
        return ""
    several = f", adjusted by Holm for {tested} comparisons, which the intervals are not" if tested > 1 else ""
    known = [each for row in rows if (each := as_float(row["detectable"])) is not None]
    possible = [each for each in known if each < 1]
    size = f"the interval of a true difference of {estimate(max(possible))}" if possible else ""
    said = f"{size or 'no true difference has an interval that'} excludes 0 in 4 of 5 cases"
    some = ", except where seeds vary so much that none does" if len(possible) < len(known) and possible else ""
    return f", p from an exact paired test{several}; {said}{some}"


def shared(rows: Sequence[Row]) -> str:
    """Return the facts that all rows share: "digits, test split, n 397, cnn, best epoch, eps 0.2, pgd-20, 3 seeds"."""
    facts = {fact: _distinct(rows, fact) for fact in FACTS}
    common = {fact: values[0] for fact, values in facts.items() if len(values) == 1 and values[0] is not None}
    return ", ".join(FACTS[fact](value) for fact, value in common.items())


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Return the remarks of several rows, each once: those of all rows, then the others as "[1] trained at eps 0.1"."""
    numbers = _numbers(rows)
    common = [each for each in _remarks(rows[0]) if each not in numbers] if rows else []
    return common + [f"[{number}] {remark}" for remark, number in numbers.items()]


def marks(rows: Sequence[Row]) -> list[str]:
    """Return for each row the numbers of its remarks among `footnotes`: "[1, 3]", or an empty text."""
    numbers = _numbers(rows)
    found = [[str(numbers[remark]) for remark in _remarks(row) if remark in numbers] for row in rows]
    return [f"[{', '.join(each)}]" if each else "" for each in found]


def remarks_of(rows: Sequence[Row]) -> list[str]:
    """Return the remarks of several rows, each once, for pictures, which cannot say whose they are."""
    return list(dict.fromkeys(remark for row in rows for remark in _remarks(row)))


def _numbers(rows: Sequence[Row]) -> dict[str, int]:
    """Return a number for each remark, but none for those that several rows have in common."""
    found = [_remarks(row) for row in rows]
    common = set.intersection(*map(set, found)) if len(found) > 1 else set()
    some = dict.fromkeys(remark for each in found for remark in each if remark not in common)
    return {remark: number for number, remark in enumerate(some, 1)}


def _remarks(row: Row) -> list[str]:
    return str(row["note"]).split(BETWEEN) if row["note"] else []


def varying(rows: Sequence[Row]) -> list[str]:
    """Return the facts in which the rows differ, which therefore get columns."""
    return [fact for fact in FACTS if len(_distinct(rows, fact)) > 1]


def telling(row: Row, rows: Sequence[Row], among: Collection[str]) -> str:
    """Return those of a row's facts in which the rows differ."""
    facts = [fact for fact in varying(rows) if fact in among]
    words = (fact_of(row, fact) if row[fact] is None else FACTS[fact](row[fact]) for fact in facts)
    return ", ".join(filter(None, words))


def _is_beside(rows: Sequence[Row]) -> bool:
    return bool(_values(rows, "paper_robust") or _values(rows, "paper_robust_best"))


def _distinct(rows: Sequence[Row], fact: str) -> list[Value]:
    """Return the values of a fact, None among them where it says something: of a row with an evaluation."""
    absent = [None] if fact in ABSENT and any(row.get(fact) is None and row.get("split") for row in rows) else []
    return [*_values(rows, fact), *absent]


def _values(rows: Sequence[Row], column: str) -> list[Value]:
    return [value for value in dict.fromkeys(row.get(column) for row in rows) if value is not None]


def cells(rows: Sequence[Row], without: Sequence[str] = ()) -> list[list[str]]:
    """Return a header and one line per row, without empty columns.

    Of the columns in `without`, accuracies and differences lose their intervals and "training" is left out.
    """
    columns: dict[str, list[str]] = {"method": [str(row["name"]) for row in rows]}
    columns |= {fact: [fact_of(row, fact) for row in rows] for fact in varying(rows)}
    columns["natural"] = estimates(rows, "natural", without)
    columns["robust"] = estimates(rows, "robust", without)
    columns["audited"] = [_audited(row) for row in rows]
    columns["sd"] = [estimate(as_float(row["robust_sd"])) for row in rows]
    columns["difference"] = estimates(rows, "difference", without, sign="+")
    columns["p"] = ["" if "difference" in without else probability(as_float(row["p_holm"])) for row in rows]
    columns["passes"] = ["" if _is_beside(rows) else _passes(row) for row in rows]
    if _values(rows, "pareto"):
        columns["pareto"] = ["?" if row["pareto"] is None else "*" if row["pareto"] else "" for row in rows]
    if _is_beside(rows) or "training" not in without:
        columns["training"] = [duration(as_float(row["train_seconds"])) for row in rows]
    columns["adbd"] = [_short(row["adbd"]) for row in rows]
    if _is_beside(rows):
        columns |= _paper_columns(rows)
    columns[""] = marks(rows)
    kept = {title: column for title, column in columns.items() if any(column) or title == "method"}
    return [list(kept), *(list(line) for line in zip(*kept.values(), strict=True))]


def _paper_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the extra columns of a table with the paper's numbers: cost ratios, the best seed, and those numbers."""
    best = estimates(rows, "robust_best") if _values(rows, "paper_robust_best") else []
    return {
        "time": [_ratio(row["train_time_ratio"]) for row in rows],
        "passes": [_ratio(row["train_passes_ratio"]) for row in rows],
        "best": best or [""] * len(rows),
        "paper natural": estimates(rows, "paper_natural"),
        "paper robust": estimates(rows, "paper_robust"),
        "paper sd": estimates(rows, "paper_robust_sd"),
        "paper best": estimates(rows, "paper_robust_best"),
        "paper min": [_short(row["paper_minutes"]) for row in rows],
        "paper time": [_ratio(row["paper_time_ratio"]) for row in rows],
        "paper adbd": [_short(row["paper_adbd"]) for row in rows],
    }


def _ratio(value: Value) -> str:
    return f"x {value:.2f}" if isinstance(value, (int, float)) else ""


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else ""


def estimates(rows: Sequence[Row], column: str, without: Sequence[str] = (), sign: str = "") -> list[str]:
    """Return a column in percent, with intervals if it has them and is not in `without`."""
    ends = () if column in without else ("_low", "_high")
    return [estimate(*(as_float(row.get(column + end)) for end in ("", *ends)), sign=sign) for row in rows]


def _audited(row: Row) -> str:
    low, high = as_float(row["audit_low"]), as_float(row["audit_high"])
    return "" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}"


def _passes(row: Row) -> str:
    passes = cost_in_passes(row)
    return "" if passes is None else many(passes)


def cell(value: Value) -> str:
    """Return a value for programs: numbers in full precision, an empty text for None."""
    if isinstance(value, float) and math.isfinite(value):
        return np.format_float_positional(value, trim="0")
    return "" if value is None else str(value)


def _latex_text(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    escaped = "".join(words.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
    return re.sub(r"(?<![\w.$])-(?=\d)", "$-$", escaped)
