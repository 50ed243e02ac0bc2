"""How `--help` is written: options in sections, each under its own title."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

WIDEST = 110  # columns of a terminal that are used
COMMON = "Options"


class SectionedCommand(TyperCommand):
    """A command whose options stand under the titles of their sections, those of all commands last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for each in self.get_params(ctx):
            title = "Arguments" if each.param_type_name == "argument" else getattr(each, "rich_help_panel", None)
            if record := each.get_help_record(ctx):
                sections.setdefault(title or COMMON, []).append(record)
        common = sections.pop(COMMON, [])
        for title, rows in {**sections, COMMON: common}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
