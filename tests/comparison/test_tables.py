from __future__ import annotations

import json
from typing import Any

import pytest

from bsk.comparison.compare import COLUMNS, compare
from bsk.comparison.tables import FORMATS, caption, cells, footnotes, render
from bsk.errors import UsageError

Row = dict[str, Any]


def row(**cells: Any) -> Row:
    common = {"model": "cnn", "eps": 0.2, "seeds": 3, "n": 397, "attack": "pgd-20"}
    return {**dict.fromkeys(COLUMNS), **common, "dataset": "digits", "split": "test", "selected": "best", **cells}


FAST_AT = row(
    name="fast-at",
    natural=0.98,
    natural_low=0.9612,
    natural_high=0.99,
    natural_sd=0.004,
    robust=0.625,
    robust_low=0.58,
    robust_high=0.67,
    robust_sd=0.01,
    train_seconds=3.04,
    train_forward_passes=84000,
    train_backward_passes=84000,
)
BS = row(
    name="bs gamma=2",
    natural=0.95,
    natural_low=0.92,
    natural_high=0.97,
    robust=0.00001,
    robust_low=0.0,
    robust_high=1.0,
    train_seconds=564.0,
    difference=-0.0625,
    difference_low=-0.1,
    difference_high=0.025,
    p=0.00004,
    p_holm=0.00008,
    detectable=0.05,
    note="trained at eps 0.1",
)

TSV = (
    "name\tmodel\teps\tnatural\trobust\trobust_low\trobust_high\trobust_sd\tnatural_low\tnatural_high\tnatural_sd\tseeds\tn\t"
    "attack\ttrain_seconds\ttrain_forward_passes\ttrain_backward_passes\tdifference\tp\tdataset\tsplit\tselected\tnote\t"
    "difference_low\tdifference_high\ttrain_time_ratio\trobust_best\tadbd\t"
    "paper_natural\tpaper_robust\tpaper_minutes\tpaper_time_ratio\tpaper_robust_best\tpaper_adbd\ttitle\tpaper_robust_sd\t"
    "p_holm\tdetectable\tdifference_boot_low\tdifference_boot_high\tdifference_seeds_low\tdifference_seeds_high\tpareto\t"
    "train_passes_ratio\trobust_sd_low\trobust_sd_high\tnatural_difference\tnatural_difference_low\t"
    "natural_difference_high\taudit_low\taudit_high\tcorruption\tseverity\tbaseline\n"
    "fast-at\tcnn\t0.2\t0.98\t0.625\t0.58\t0.67\t0.01\t0.9612\t0.99\t0.004\t3\t397\t"
    "pgd-20\t3.04\t84000\t84000\t\t\tdigits\ttest\tbest\t\t\t" + "\t" * 29 + "\n"
    "bs gamma=2\tcnn\t0.2\t0.95\t0.00001\t0.0\t1.0\t\t0.92\t0.97\t\t3\t397\t"
    "pgd-20\t564.0\t\t\t-0.0625\t0.00004\tdigits\ttest\tbest\ttrained at eps 0.1\t-0.1\t0.025"
    + "\t" * 12
    + "0.00008\t0.05"
    + "\t" * 16
    + "\n"
)

CAPTION = (
    "digits, test split, n 397, cnn, best epoch, eps 0.2, pgd-20, 3 seeds; percent with 95 % intervals; "
    "sd over seeds; difference from the first row, p from an exact paired test; "
    "the interval of a true difference of 5.0 excludes 0 in 4 of 5 cases"
)

TABLE = """\
digits, test split, n 397, cnn, best epoch, eps 0.2, pgd-20, 3 seeds; percent with 95 % intervals of
robust and difference; sd over seeds; difference from the first row, p from an exact paired test;
the interval of a true difference of 5.0 excludes 0 in 4 of 5 cases; the format markdown has all

method      natural             robust   sd          difference        p  passes  training
fast-at        98.0  62.5 [58.0, 67.0]  1.0                                 168k     3.0 s
bs gamma=2     95.0   0.0 [0.0, 100.0]       -6.2 [-10.0, +2.5]  <0.0001           9.4 min  [1]

[1] trained at eps 0.1
"""

MARKDOWN = (
    CAPTION
    + r"""

| method | natural | robust | sd | difference | p | passes | training |  |
| :-- | --: | --: | --: | --: | --: | --: | --: | :-- |
| fast-at | 98.0 [96.1, 99.0] | 62.5 [58.0, 67.0] | 1.0 |  |  | 168k | 3.0 s |  |
| bs gamma=2 | 95.0 [92.0, 97.0] | 0.0 [0.0, 100.0] |  | -6.2 [-10.0, +2.5] | \<0.0001 |  | 9.4 min | [1] |

[1] trained at eps 0.1
"""
)

LATEX = (
    r"""% needs \usepackage{booktabs}
\begin{table}
\centering
\caption{"""
    + CAPTION.replace("%", r"\%")
    + r"""}
\begin{tabular}{lrrrrrrrl}
\toprule
method & natural & robust & sd & difference & p & passes & training &  \\
\midrule
fast-at & 98.0 [96.1, 99.0] & 62.5 [58.0, 67.0] & 1.0 &  &  & 168k & 3.0 s &  \\
bs gamma=2 & 95.0 [92.0, 97.0] & 0.0 [0.0, 100.0] &  & $-$6.2 [$-$10.0, +2.5] & $<$0.0001 &  & 9.4 min & [1] \\
\bottomrule
\end{tabular}
\\{\footnotesize [1] trained at eps 0.1}
\end{table}
"""
)


@pytest.mark.parametrize(("format", "text"), [("tsv", TSV), ("table", TABLE), ("markdown", MARKDOWN), ("latex", LATEX)])
def test_exact_bytes(format: str, text: str) -> None:
    assert render([FAST_AT, BS], format) == text


@pytest.mark.parametrize(
    ("notes", "marks", "under"),
    [
        (("a; b", "a; c", "a; b; c"), ["[1]", "[2]", "[1, 2]"], ["a", "[1] b", "[2] c"]),
        (("a", None, "b; a"), ["[1]", "", "[2, 1]"], ["[1] a", "[2] b"]),
        (("a", "a"), [], ["a"]),  # no column for what all rows have in common
        (("a; b",), ["[1, 2]"], ["[1] a", "[2] b"]),
        ((None, None), [], []),
    ],
)
def test_each_remark_stands_once_below_and_without_number_if_all_rows_share_it(
    notes: tuple[str | None, ...], marks: list[str], under: list[str]
) -> None:
    rows = [row(name=str(i), robust=0.5, note=note) for i, note in enumerate(notes)]
    assert footnotes(rows) == under
    table = cells(rows)
    assert [line[-1] for line in table[1:]] == (marks or ["50.0"] * len(rows))
    assert (table[0][-1] == "") == bool(marks)


def test_jsonl_has_the_columns_in_order_and_gives_the_rows_back() -> None:
    lines = render([FAST_AT, BS], "jsonl").splitlines()
    assert [json.loads(line) for line in lines] == [FAST_AT, BS]
    assert all(tuple(json.loads(line)) == COLUMNS for line in lines)
    assert lines[0].startswith('{"name": "fast-at", "model": "cnn", "eps": 0.2, "natural": 0.98, "robust": 0.625, ')


def test_tsv_loses_no_digit() -> None:
    cells = render([row(name="x", robust=1 / 3, p=5.7e-101, eps=8 / 255)], "tsv").splitlines()[1].split("\t")
    assert float(cells[4]) == 1 / 3 and float(cells[18]) == 5.7e-101 and float(cells[2]) == 8 / 255


def test_facts_that_differ_are_columns_and_the_others_in_the_caption() -> None:
    rows = [row(name="bs", robust=0.5, eps=8 / 255), row(name="bs", robust=0.4, eps=0.031, model="resnet18", n=None)]
    text = render(rows, "table")
    assert text == (
        "digits, test split, n 397, best epoch, pgd-20, 3 seeds; percent\n"
        "\n"
        "method  model       eps  robust\n"
        "bs      cnn       8/255    50.0\n"
        "bs      resnet18  0.031    40.0\n"
    )
    one = row(name="bs", robust=0.5, seeds=1, n=None, model=None, selected=None, difference=0.1)
    assert caption([one, {**one, "attack": "fgsm"}]) == (
        "digits, test split, eps 0.2, 1 seed; percent; difference from the first row of the same attack"
    )


def test_intervals_are_dropped_if_a_terminal_is_too_narrow() -> None:
    wide = {**BS, "name": "a-method-of-thirty-characters!"}
    text = render([FAST_AT, wide], "table")
    lines = text.splitlines()
    first, second = (line for line in lines if line.startswith(("fast-at", "a-method")))
    assert max(map(len, lines)) <= 100
    assert "[58.0, 67.0]" in first and "[96.1, 99.0]" not in first
    assert "-6.2" in second and "[-10.0, +2.5]" not in second and "<0.0001" not in second  # no p on its own
    told = " ".join(lines)
    assert "95 % intervals of robust;" in told and "the format markdown has all" in told
    assert "exact paired test" not in told, "nothing is said of what is left out"


def test_training_time_is_dropped_before_passes() -> None:
    wide = {**BS, "name": "a-method-of-24-characters"}
    lines = render([FAST_AT, wide], "table").splitlines()
    (head,) = (line for line in lines if line.startswith("method"))
    first, second = (line for line in lines if line.startswith(("fast-at", "a-method")))
    assert max(map(len, lines)) <= 100 and "passes" in head and "training" not in head
    assert "168k" in first and "[-10.0, +2.5]" in second
    beside = render([{**FAST_AT, "paper_robust": 45.1}, {**wide, "name": "long" * 30}], "table").splitlines()
    assert any("training" in line and "paper robust" in line for line in beside), "minutes are what it is beside"


def test_several_comparisons_are_adjusted_and_the_best_for_their_cost_have_a_star() -> None:
    rows = [{**FAST_AT, "pareto": 1}, {**BS, "pareto": 0}, {**BS, "name": "trades", "p_holm": 0.5, "detectable": 0.081}]
    text = " ".join(render(rows, "table").split("\n"))
    assert "* no other row is better in robust accuracy or passes and as good in the other" in text
    adjusted = (
        "adjusted by Holm for 2 comparisons, which the intervals are not; the interval of a true difference of 8.1"
    )
    assert adjusted in render(rows, "markdown")
    words = [line.split() or [""] for line in render(rows, "table").splitlines()]
    stars = [line[0] for line in words if line[0] in ("fast-at", "bs", "trades") and "*" in line]
    assert stars == ["fast-at"]


def test_latex_and_markdown_escape_special_characters() -> None:
    odd = row(name=r"a_b&50%{x}~^\|*<`", robust=0.5)
    assert r"a\_b\&50\%\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}|*$<$`" in render([odd], "latex")
    assert r"| a_b&50%{x}~^\\\|\*\<\` |" in render([odd], "markdown")


def test_a_table_without_rows_is_a_header() -> None:
    assert render([], "tsv") == TSV.splitlines(keepends=True)[0] and render([], "jsonl") == ""


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"--format markdwn: no such format; did you mean markdown\?"):
        render([], "markdwn")


def test_rows_of_records_render_in_every_format(results: Any, place: Any) -> None:
    rows, _ = compare(place(results))
    for format in FORMATS:
        assert "fast-at" in render(rows, format)
    assert "50.0 [" in render(rows, "table") and "+16.7 [" in render(rows, "table")
