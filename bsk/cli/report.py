"""`bsk report`: one HTML page with the results of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.errors import UsageError
from bsk.terminal import note


def report(
    folder: Annotated[Path, typer.Argument(help="Tables, figures and runs, as make writes them: out/smoke.")],
    out: Annotated[Path | None, o.option("--out", help="F.html [default: FOLDER/report.html].")] = None,
    quiet: o.Quiet = False,
) -> None:
    """Write one HTML page with the results of a folder.

    The page has every table and figure below the folder, a comparison with the paper's numbers, and the runs with
    their flags and versions. It is self-contained: no other file, no script, no network access. It prints well.

        make -j2 paper report
        bsk report out/small --out small.html
    """
    from bsk.figures.page import page
    from bsk.records.atomic import replacing

    target = out or folder / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {target}: must end in .html, the only format written")
    text = page(folder)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    note(f"{target}: {len(text) / 1e6:.1f} MB; open it in a browser")
