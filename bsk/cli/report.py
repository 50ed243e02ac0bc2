"""`bsk report`: one HTML page of all that lies in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.errors import UsageError
from bsk.terminal import note


def report(
    folder: Annotated[Path, typer.Argument(help="Of tables, pictures and trainings, as make leaves it: out/smoke.")],
    out: Annotated[Path | None, o.option("--out", help="F.html [default: FOLDER/report.html].")] = None,
    quiet: o.Quiet = False,
) -> None:
    """Put all that a folder has into one page.

    The page has every table and picture below the folder, the numbers against the paper's, and the trainings with
    their flags and versions. It needs no other file, no script and no network, and prints well.

        make -j2 paper report
        bsk report out/small --out small.html
    """
    from bsk.figures.page import page
    from bsk.records.atomic import replacing

    target = out or folder / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {target}: must end in .html; other formats are not written")
    text = page(folder)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    note(f"{target}: {len(text) / 1e6:.1f} MB; open it in a browser")
