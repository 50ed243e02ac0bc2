"""`bsk plot`: the paper's figures, drawn from records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bsk.cli import options as o
from bsk.cli.console import records_of
from bsk.errors import UsageError, nearest
from bsk.terminal import note

KINDS = ["boxes", "curves", "landings", "radius"]


def plot(
    kind: Annotated[
        str, typer.Argument(help="boxes, curves, landings or radius.", autocompletion=o.completing(lambda: KINDS))
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE|-", help="JSONL of bsk evaluate, logs of bsk train, or JSONL of bsk starts."),
    ] = None,
    out: Annotated[list[Path] | None, o.option("--out", help="F.png or F.svg; once for each.")] = None,
    by: Annotated[str, typer.Option(help="The flag that tells boxes or lines apart: step, gamma, ...")] = "method",
    y: Annotated[
        str | None,
        o.option("--y", metavar="Y[,Y...]", help="curves: fields of a log [default: val_natural,val_robust]."),
    ] = None,
    log: Annotated[bool, o.option("--log", help="curves: a logarithmic scale.")] = False,
    title: Annotated[str, o.option("--title", help="Above what the picture says of itself.")] = "",
    quiet: o.Quiet = False,
) -> None:
    """Draw records as pictures.

    boxes: robust accuracy over seeds, one box for each value of --by, every seed a dot. curves: what training logs say,
    against the epoch: the mean over seeds, and a band from the least seed to the greatest. landings: where starts land
    in output space, and how far, as bsk starts tells. radius: accuracy against eps, a line for each network and attack,
    with 95 % intervals. Records that stand together must be alike but for their seeds.

        bsk plot boxes results.jsonl --by step --out figure1.png --out figure1.svg
        bsk plot curves runs/*.jsonl --y kl_start,kl_ascent --log --out figure3.png
        bsk starts runs/bs.safetensors --limit 500 | bsk plot landings --out figure4.svg
        bsk evaluate runs/bs.safetensors --eps 2/255,4/255,8/255 | bsk plot radius --out radius.png
    """
    from bsk.figures.boxes import draw_boxes
    from bsk.figures.canvas import checked_picture
    from bsk.figures.curves import draw_curves
    from bsk.figures.landings import draw_landings
    from bsk.figures.radius import draw_radius

    if kind not in KINDS:
        raise UsageError(f"plot {kind}: no such picture; {nearest(kind, KINDS)}")
    if not out:
        raise UsageError("plot: no --out; name F.png or F.svg")
    paths = [checked_picture(path, "--out") for path in out]
    if kind != "curves" and (y or log):
        raise UsageError(f"plot {kind}: --y and --log are for curves; leave them out")
    items = records_of("plot", files)
    if kind == "boxes":
        notices = draw_boxes(items, by, paths, title)
    elif kind == "radius":
        notices = draw_radius(items, paths, title)
    elif kind == "landings":
        notices = draw_landings(items, paths, title)
    else:
        notices = draw_curves(items, by, (y or "val_natural,val_robust").split(","), paths, title, log=log)
    for notice in notices:
        note(notice)
