"""The HTML report: complete, self-contained, and safe to open."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bsk.comparison.compare import COLUMNS, compare
from bsk.comparison.published import published
from bsk.comparison.tables import render
from bsk.errors import InputError
from bsk.figures.page import CELLS, page
from bsk.records import jsonl as records

ROOT = Path(__file__).parent.parent.parent
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.fixture
def folder(tmp_path: Path, results, place, make_log) -> Path:
    """A table with a picture, and two trainings, one of them unfinished."""
    table = tmp_path / "small" / "table10" / "cifar10"
    table.mkdir(parents=True)
    for record in results:
        if record["attack"] != "natural":
            record["attack"] = "pgd-100"
        record["flags"] |= {"step": 0.25}  # Fast AT's 10/8 of eps
    rows, _ = compare(place(results), published("10"), "Table 10, SCALE=small <b>")
    (table / "table.jsonl").write_text(render(rows, "jsonl"))
    (table / "picture.svg").write_text(SVG)
    runs = tmp_path / "small" / "runs"
    for seed, keep in ((1, None), (2, -1)):
        for record in make_log("bs", seed)[:keep]:
            records.append(runs / f"bs-{seed}.jsonl", record)
        (runs / f"bs-{seed}.last.safetensors").touch()
    return tmp_path / "small"


class Tags(HTMLParser):
    """Checks that all tags are closed, and collects the references of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        found = dict(attributes)
        self.references += [found[name] for name in ("src", "href") if name in found]
        self.ids += [found["id"]] if "id" in found else []

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_self_contained(folder: Path) -> None:
    text = page(folder)
    tags = Tags(text)
    assert tags.open == [] and text.startswith("<!doctype html>")
    assert all(each.startswith(("data:", "#")) for each in tags.references)
    assert {each[1:] for each in tags.references if each.startswith("#")} == set(tags.ids)
    assert "<script" not in text and "http" not in re.sub(r'base64,[^"]*', "", text)
    assert page(folder) == text


def test_titles_are_text_not_markup(folder: Path) -> None:
    assert "Table 10, SCALE=small &lt;b&gt;" in page(folder)
    assert "SCALE=small <b>" not in page(folder)


def test_tables_comparison_with_the_paper_and_trainings(folder: Path) -> None:
    text = page(folder)
    against = text[text.index('<section id="against">') : text.index('<section id="trainings">')]
    cells = re.findall(r"<td>(.*?)</td>", against)
    assert len(cells) == 13 and cells[1:3] == ["fast-at", "pgd-100"]  # bs is in no row of table 10
    assert cells[8] == "best 46.3"
    trainings = text[text.index('<section id="trainings">') :]
    assert "2 trainings" in trainings and ", unfinished" in trainings


def test_common_facts_are_shared_by_all_trainings_and_versions_are_columns(folder: Path, make_log) -> None:
    start, *others = make_log("bs", 3)
    start = {**start, "flags": {**start["flags"], "log_divergence": True, "eps": 0.5}, "torch": "9.9.9", "device": "x"}
    for record in (start, *others):
        records.append(folder / "runs" / "bs-3.jsonl", record)
    (folder / "runs" / "bs-3.last.safetensors").touch()
    trainings = page(folder).partition('<section id="trainings">')[2]
    same = re.search(r"Common to all: (.*?)\.</p>", trainings)
    assert same and "log_divergence" not in same[1] and "torch" not in same[1] and "epochs" in same[1]
    assert "<th>torch</th>" in trainings and "<td>9.9.9</td>" in trainings and "<th>version</th>" not in trainings


def test_the_differences_are_those_of_the_documentation(folder: Path) -> None:
    told = (ROOT / "bsk/comparison/paper/differences.md").read_text()
    assert told in (ROOT / "docs/methods.md").read_text()
    shown = page(folder).partition('<section id="differences">')[2]
    assert shown.count("<li>") == told.count("\n- ") + 1
    assert "<b>Selection.</b>" in shown and "<code>val</code>" in shown


def test_sections_are_in_the_order_of_the_paper_and_others_last(folder: Path) -> None:
    for name in ("table2/cifar10", "budget/cifar10", "figure3", "section54", "table11"):
        place = folder / name
        place.mkdir(parents=True)
        (place / "picture.svg").write_text(SVG)
    text = page(folder)
    found = re.findall(r'<section id="([a-z]+[0-9]*)', text)
    assert found[:6] == ["table2", "table10", "table11", "figure3", "section54", "budget"]
    titles = re.findall(r"<h2>([^<]*) <small>", text)
    assert (titles[0], *titles[2:]) == ("Table 2", "Table 11", "Figure 3", "section54", "budget-cifar10")


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table.jsonl, picture or log in it; run make table2"):
        page(tmp_path)


def test_a_picture_alone_makes_a_page_without_empty_parts(tmp_path: Path) -> None:
    (tmp_path / "picture.svg").write_text(SVG)
    assert Tags(page(tmp_path)).ids == [tmp_path.name, "differences"]


def test_tables_of_one_title_are_told_apart_in_the_contents(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "small" / "table10" / "cifar100"
    other.mkdir()
    (other / "table.jsonl").write_bytes((folder / "table10" / "cifar10" / "table.jsonl").read_bytes())
    text = page(folder)
    for name in ("table10-cifar10", "table10-cifar100"):
        assert re.search(rf'<a href="#{name}">Table 10, SCALE=small &lt;b&gt;: {name}</a>', text)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"name": None}, "name: expected a value, found None"),
        ({"name": 7}, "name: expected text, found 7"),
        ({"seeds": [1]}, "seeds: expected a whole number from 0, found list"),
        ({"pareto": True}, "pareto: expected a whole number from 0, found True"),
        ({"eps": {}}, "eps: expected a number from 0 to 1e+15, found dict"),
        ({"attack": []}, "attack: expected text, found list"),
        ({"train_forward_passes": 10**16}, "train_forward_passes: expected a number from 0 to 1e+15, found 1000"),
        ({"robust": 1.5}, "robust: expected a number from 0 to 1, found 1.5"),
        ({"difference": "+0.1"}, "difference: expected a number from -1 to 1, found '+0.1'"),
        ({"difference_seeds_low": -(10**16)}, "difference_seeds_low: expected a number from -1e+15 to 1e+15"),
        ({"p_holm": 0.5, "detectable": None}, "detectable: expected a value, found None"),
    ],
)
def test_an_invalid_column_is_one_line_with_file_and_line(folder: Path, changed, part: str) -> None:
    table = folder / "table10" / "cifar10" / "table.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    table.write_text("".join(json.dumps(row) + "\n" for row in (rows[0], {**rows[1], **changed})))
    with pytest.raises(InputError) as error:
        page(folder)
    message = str(error.value)
    assert message.startswith(f"{table}:2: {part}") and "\n" not in message


def test_a_row_without_a_name_is_refused_and_one_with_nothing_else_is_shown(folder: Path) -> None:
    table = folder / "table10" / "cifar10" / "table.jsonl"
    table.write_text("{}\n")
    with pytest.raises(InputError, match=r"table\.jsonl:1: name: expected a value, found none"):
        page(folder)
    table.write_text('{"name": "an older one"}\n')
    assert "<td>an older one</td>" in page(folder)


def test_a_huge_table_is_refused_before_it_fills_memory(folder: Path) -> None:
    table = folder / "table10" / "cifar10" / "table.jsonl"
    table.write_text('{"name": "a"}\n' * 1000)
    assert page(folder).count("<td>a</td>") == 1000
    table.write_text('{"name": "a"}\n' * 1001 + "no JSON\n")
    with pytest.raises(InputError, match=r"table\.jsonl: has more than 1000 rows; give a table of bsk compare"):
        page(folder)


def test_every_column_has_a_type() -> None:
    assert set(CELLS) == set(COLUMNS)


@pytest.mark.parametrize(
    "value", ['"name": "a\\ud800"', '"name": "a", "title": "\\udfff"', f'"name": "a", "n": {10**400}']
)
def test_invalid_text_is_a_one_line_error(folder: Path, value: str) -> None:
    table = folder / "table10" / "cifar10" / "table.jsonl"
    table.write_text(f"{{{value}}}\n")
    with pytest.raises(InputError) as error:
        page(folder)
    assert str(error.value).startswith(f"{table}:1: ") and "\n" not in str(error.value)


def test_a_name_of_a_folder_that_is_no_text_is_escaped(folder: Path) -> None:
    (folder / "\udcff<").mkdir()  # the byte 255, which is no UTF-8
    (folder / "\udcff<" / "picture.svg").write_text(SVG)
    assert 'id="\\udcff&lt;"' in page(folder) and page(folder).encode()


def test_a_picture_that_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "\N{SUPERSCRIPT TWO}" / "picture.svg").mkdir(parents=True)
    with pytest.raises(InputError, match=r"picture\.svg: cannot read: Is a directory"):
        page(folder)


def flags_of(text: str) -> list[str]:
    """The flags that distinguish the trainings of a page."""
    lines = text.partition('<section id="trainings">')[2].partition("</section>")[0].splitlines()
    return [re.findall("<td>(.*?)</td>", line)[1] for line in lines if "<td>" in line]


def test_overridden_flags_and_averages_are_shown(folder: Path, make_log) -> None:
    def add(name: str, method: str, **flags: object) -> None:
        start, *others = make_log(method, 1)
        for record in ({**start, "flags": {**start["flags"], **flags}}, *others):
            records.append(folder / "runs" / f"{name}.jsonl", record)
        (folder / "runs" / f"{name}.train.json").touch()

    assert flags_of(page(folder)) == ["", ""]  # two of bs
    add("fast-at-1", "fast-at", start="uniform")
    add("fast-at-2", "fast-at", start="uniform", ema=0)
    assert flags_of(page(folder)) == [""] * 4  # other methods have other starts, and no average is as before the flag
    add("fast-at-3", "fast-at", start="zero", ema=0.5)
    add("fast-at-4", "fast-at", start="zero", select="test")
    assert flags_of(page(folder))[2:] == [
        "start=uniform",
        "ema=0 start=uniform",
        "ema=0.5 start=zero",
        "select=test start=zero",
    ]
