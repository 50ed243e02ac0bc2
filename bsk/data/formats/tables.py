"""Tables with the labels of images that are not in class folders."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bsk.data.fetch import local_path
from bsk.data.formats.layout import SPLIT, Splits, pictures_of, split_of
from bsk.data.pictures import is_picture
from bsk.data.splits import Request
from bsk.data.store import SPLITS
from bsk.data.tree import Tree, printable
from bsk.errors import InputError

IMAGE = re.compile(r"(image|img|file|picture|photo)s?(name|id|path|file|code)?s?|(id|name|path)s?(code)?|uuid")
LABEL = re.compile(r"(class|label|target|category)(es|s)?(name|label|id)?s?|y|level|diagnosis|breed|species|dx")


@dataclass(frozen=True)
class _Table:
    """A table: its place in messages, its folder in the tree, the split in its name, column names, numbered rows."""

    where: str
    folder: str
    split: str | None
    columns: list[str]
    rows: list[tuple[int, list[str]]]

    def column(self, j: int) -> list[str]:
        return [row[j] for _, row in self.rows]

    def called(self, pattern: re.Pattern[str], among: list[int]) -> list[int]:
        """Return the columns whose names match, ignoring case and punctuation."""
        return [j for j in among if pattern.fullmatch(re.sub(r"[^a-z]", "", self.columns[j].lower()))]

    def named(self, among: list[int]) -> str:
        return ", ".join(printable(self.columns[j])[:40] for j in among)


class _Images:
    """The images of a tree, found by the names in a table, with or without folders and ending."""

    def __init__(self, names: list[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in names:
            last = name.rpartition("/")[2]
            for key in {last, last.rpartition(".")[0]}:
                self._by_name[key].append(name)

    def called(self, value: str) -> list[str]:
        path = value.strip().replace("\\", "/").removeprefix("./")
        found = self._by_name.get(path.rpartition("/")[2], [])
        return [name for name in found if any(_ends(path, each) for each in (name, name.rpartition(".")[0]))]


def _ends(one: str, other: str) -> bool:
    """Return whether one path is a suffix of the other."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def from_tables(request: Request, tree: Tree) -> Splits:
    """Return (class, file name) of the images in the tables `request.labels`, by split.

    The split of an image comes from a column, else from its folder, else from the name of the table, else it is train.

    Raises:
        InputError: a table cannot be read, or is ambiguous about the label of an image.
    """
    names = pictures_of(tree)
    images, found = _Images(names), dict[str, tuple[str, str]]()
    for given in request.labels:
        table = _read(tree, given, images)
        image, label, split = _columns(request, table, images)
        for line, row in table.rows:
            asked = split_of(row[split]) if split is not None else None
            name = _image(table, line, row[image], asked or table.split, images)
            value = row[label].strip(), asked or _folder_split(name) or table.split or "train"
            if not value[0]:
                raise InputError(f"{table.where}:{line}: no label for {name}; fill it in, or remove the row")
            if found.setdefault(name, value) != value:
                both = f"{printable(found[name][0])} and {printable(value[0])}"
                raise InputError(f"{table.where}:{line}: {name} has two labels, {both}; keep one")
    if len(found) < len(names):
        request.say(f"{tree.place}: {len(names) - len(found)} of {len(names)} images have no label in the table")
    splits: Splits = {}
    for which in SPLITS:
        if chosen := sorted((each, name) for name, (each, its) in found.items() if its == which):
            splits[which] = chosen
    return splits


def _read(tree: Tree, given: str, images: _Images) -> _Table:
    path, folder = local_path(given), ""
    if path.is_file():
        name, where = path.name, str(path)
        with contextlib.suppress(ValueError):  # it lies elsewhere
            folder = f"{path.resolve().parent.relative_to(Path(tree.place).resolve()).as_posix()}/".removeprefix("./")
        tree = Tree(str(path.parent), {name: path.stat().st_size}, lambda _: path.open("rb"))
    else:
        inside = [name for name in tree.sizes if _ends(name, given.removeprefix("./"))]
        if len(inside) != 1:
            raise InputError(
                f"--labels {given}: {len(inside)} such files here and in {tree.place}, expected one; give its path"
            )
        name, where = inside[0], tree.where(inside[0])
        folder = name[: name.rfind("/") + 1]
    content = tree.read(name)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: is not text in UTF-8; save the table as CSV in UTF-8") from error
    mark = next((each for each in ",;\t| " if each in text.partition("\n")[0]), ",")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{where}:{lines.line_num}: cannot be read ({error}); fix the table") from error
    for line, row in rows:
        if len(row) != len(rows[0][1]):
            raise InputError(f"{where}:{line}: {len(row)} columns, expected {len(rows[0][1])}; fix the table")
    head = [cell.strip() for cell in rows[0][1]] if rows else []
    split = split_of(PurePosixPath(given).stem)
    if any(map(images.called, head)):  # the table has no header
        return _Table(where, folder, split, [f"column {j + 1}" for j in range(len(head))], rows)
    return _Table(where, folder, split, head, rows[1:])


def _columns(request: Request, table: _Table, images: _Images) -> tuple[int, int, int | None]:
    """Return the columns of file names, of labels, and of splits if there is one."""
    every = list(range(len(table.columns)))
    splits = [j for j in table.called(SPLIT, every) if any(map(split_of, table.column(j)))]
    for j in splits[:1]:
        for line, row in table.rows:
            if not split_of(row[j]):
                said = f"{table.where}:{line}: {printable(row[j])[:40]!r} in column {table.named([j])} is no split"
                raise InputError(f"{said}; write train, val or test, or rename the column")
    rest = [j for j in every if j not in splits[:1]]
    image = _image_column(table, rest, images)
    rest = [j for j in rest if j != image]
    labels = table.called(LABEL, rest) or rest
    if len(labels) != 1:
        names = (
            f"columns {table.named(labels)} may each be" if labels else f"no column besides {table.named([image])} for"
        )
        raise InputError(f"{table.where}: {names} the labels; keep one, named label, next to {table.named([image])}")
    chosen = [image, labels[0], *splits[:1]]
    if ignored := [j for j in every if j not in chosen]:
        request.say(f"{table.where}: columns not used: {table.named(ignored)}")
    return image, labels[0], splits[0] if splits else None


def _image_column(table: _Table, among: list[int], images: _Images) -> int:
    likely = [j for j in among if j not in table.called(LABEL, among)] or among
    found = {j: [images.called(value) for value in table.column(j)] for j in likely}
    whole = [j for j in likely if found[j] and all(found[j])]
    if any(found[j] != found[whole[0]] for j in whole):
        whole = table.called(IMAGE, whole) or [j for j in whole if all(map(is_picture, table.column(j)))] or whole
    if whole and all(found[j] == found[whole[0]] for j in whole):
        return whole[0]
    if whole:
        raise InputError(f"{table.where}: columns {table.named(whole)} may each name the images; keep one, named image")
    best = max(likely, key=lambda j: sum(map(bool, found[j])), default=None)
    if best is None or not any(found[best]):
        raise InputError(
            f"{table.where}: none of the columns {table.named(among)} names images of --from; check the table"
        )
    missing = next(i for i, each in enumerate(found[best]) if not each)
    line, row = table.rows[missing]
    lacking = sum(not each for each in found[best])
    where = f"{table.where}:{line}: no image {printable(row[best])[:60]} ({lacking} of {len(table.rows)} are missing)"
    raise InputError(f"{where}; add the images, or remove the rows")


def _image(table: _Table, line: int, value: str, split: str | None, images: _Images) -> str:
    found = images.called(value)
    if len(found) > 1:
        found = [name for name in found if _folder_split(name) == split] or found
    if len(found) > 1:
        near = table.folder + value.strip()
        found = [name for name in found if near in (name, name.rpartition(".")[0])] or found
    if len(found) > 1:
        both = " or ".join(found[:2])
        raise InputError(f"{table.where}:{line}: {printable(value)} may be {both}; add folder and ending in the table")
    return found[0]


def _folder_split(name: str) -> str | None:
    return next(filter(None, map(split_of, name.split("/")[:-1])), None)
