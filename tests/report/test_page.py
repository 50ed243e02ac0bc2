"""The page: all that is there, self-contained, and safe to open."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bsk.errors import InputError
from bsk.files import records
from bsk.report.comparison import compare
from bsk.report.page import page
from bsk.report.published import published
from bsk.report.tables import render

ROOT = Path(__file__).parent.parent.parent
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.fixture
def folder(tmp_path: Path, results, place, make_log) -> Path:
    """A table with a picture, and two trainings, one of them not ended."""
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
    """Checks that every tag that is opened is closed, and gathers what the page refers to."""

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


def test_the_page_is_whole_and_needs_nothing_else(folder: Path) -> None:
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


def test_tables_the_paper_beside_and_the_trainings(folder: Path) -> None:
    text = page(folder)
    against = text[text.index('<section id="against">') : text.index('<section id="trainings">')]
    cells = re.findall(r"<td>(.*?)</td>", against)
    assert len(cells) == 11 and cells[1] == "fast-at" and cells[7] == "best 46.3"  # bs is in no row of table 10
    trainings = text[text.index('<section id="trainings">') :]
    assert "2 trainings" in trainings and ", not ended" in trainings


def test_only_what_all_trainings_have_is_the_same_in_all_and_other_versions_are_told(folder: Path, make_log) -> None:
    start, *others = make_log("bs", 3)
    start = {**start, "flags": {**start["flags"], "log_divergence": True, "eps": 0.5}, "torch": "9.9.9", "device": "x"}
    for record in (start, *others):
        records.append(folder / "runs" / "bs-3.jsonl", record)
    (folder / "runs" / "bs-3.last.safetensors").touch()
    trainings = page(folder).partition('<section id="trainings">')[2]
    same = re.search(r"The same in all: (.*?)\.</p>", trainings)
    assert same and "log_divergence" not in same[1] and "torch" not in same[1] and "epochs" in same[1]
    assert "<th>torch</th>" in trainings and "<td>9.9.9</td>" in trainings and "<th>version</th>" not in trainings


def test_the_differences_are_those_of_the_readme(folder: Path) -> None:
    told = (ROOT / "bsk/report/paper/differences.md").read_text()
    assert told in (ROOT / "README.md").read_text()
    shown = page(folder).partition('<section id="differences">')[2]
    assert shown.count("<li>") == told.count("\n- ") + 1
    assert "<b>Selection.</b>" in shown and "<code>val</code>" in shown


def test_sections_stand_as_in_the_paper_and_what_it_has_not_comes_last(folder: Path) -> None:
    for name in ("table2/cifar10", "budget/cifar10", "figure3", "section54", "table11"):
        place = folder / name
        place.mkdir(parents=True)
        (place / "picture.svg").write_text(SVG)
    found = re.findall(r'<section id="([a-z]+[0-9]*)', page(folder))
    assert found[:6] == ["table2", "table10", "table11", "figure3", "section54", "budget"]


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table.jsonl, picture or log below it; make table2"):
        page(tmp_path)


def test_tables_of_one_title_are_told_apart_in_the_contents(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "small" / "table10" / "cifar100"
    other.mkdir()
    (other / "table.jsonl").write_bytes((folder / "table10" / "cifar10" / "table.jsonl").read_bytes())
    text = page(folder)
    for name in ("table10-cifar10", "table10-cifar100"):
        assert re.search(rf'<a href="#{name}">Table 10, SCALE=small &lt;b&gt;: {name}</a>', text)
