"""Tables with other rows than one per method and attack: by class, by corruption, and transfer matrices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bsk.comparison import classes, corruptions, matrix
from bsk.comparison.compare import Value
from bsk.comparison.tables import footnotes, printed
from bsk.records.located import Located


@dataclass(frozen=True)
class View:
    """A table: `rows` for programs, `cells` under a caption for people, and notices.

    Attributes:
        left: the titles of the columns that are aligned left.
        under: notes below the cells.
    """

    rows: Sequence[Mapping[str, Value]]
    cells: Sequence[Sequence[str]]
    left: Collection[str]
    caption: str
    notices: Sequence[str] = field(default_factory=list)
    under: Sequence[str] = ()

    def printed(self, format: str) -> str:
        """Return the table as text in one of the formats of `bsk.comparison.tables`."""
        return printed(self.rows, format, self.cells, self.left, self.caption, self.under)


def _of_classes(items: Iterable[Located]) -> View | None:
    rows, notices = classes.by_class(items)
    if not rows:
        return None
    return View(rows, classes.cells(rows), classes.TEXT, classes.caption(rows), notices, footnotes(rows))


def _of_corruptions(items: Iterable[Located]) -> View | None:
    rows, notices = corruptions.by_corruption(items)
    if not rows:
        return None
    text = (corruptions.TEXT_COLUMNS, corruptions.caption(rows))
    return View(rows, corruptions.cells(rows), *text, notices, footnotes(rows))


def _of_images(items: Iterable[Located]) -> View | None:
    rows = matrix.transfers(items)
    return View(rows, matrix.grid(rows), matrix.TEXT_COLUMNS, matrix.CAPTION) if rows else None


# By the value of --by, or the name of a flag: the function that makes it, and the message if the records have no rows.
VIEWS: dict[str, tuple[Callable[[Iterable[Located]], View | None], str]] = {
    "class": (_of_classes, "no evaluations; run bsk evaluate"),
    "corruption": (_of_corruptions, "no evaluations on corrupted images; run bsk evaluate --data data/cifar10-c"),
    "matrix": (_of_images, "no record of saved images; make some by bsk evaluate CKPT --images F"),
}
