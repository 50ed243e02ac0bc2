"""The layout of `--help`: options in titled sections."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

WIDEST = 110  # columns, at most
FLAG_COLUMN = 24  # columns; the help of a longer flag begins on the next line
COMMON = "Options"
_RANGE = r"(?:[\d.]+<=)?x[<>]=[\d.]+"  # as typer adds it to the help of a number


class SectionedCommand(TyperCommand):
    """A command whose options are listed by section; those without a section come last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for each in self.get_params(ctx):
            if record := each.get_help_record(ctx):
                flag, text = record
                title = getattr(each, "rich_help_panel", None) or COMMON
                if each.param_type_name == "argument":
                    title, flag = "Arguments", re.sub(r" <\S+>$", "", flag)  # the name says more than the type
                sections.setdefault(title, []).append((flag, _without_range(text)))
        common = sections.pop(COMMON, [])
        for title, rows in {**sections, COMMON: common}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=FLAG_COLUMN)


def _without_range(text: str) -> str:
    """Return the help of an option without the range of its values, which its error message names."""
    return re.sub(rf"; {_RANGE}(?=[;\]])", "", re.sub(rf"\s*\[{_RANGE}\]", "", text))
