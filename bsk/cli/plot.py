"""`bsk plot`: the paper's figures, drawn from records."""

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
        str,
        typer.Argument(
            metavar="KIND", help="boxes, curves, landings or radius.", autocompletion=o.completing(lambda: KINDS)
        ),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE|-", help="Records of bsk evaluate or bsk starts, or logs of bsk train."),
    ] = None,
    out: Annotated[list[Path] | None, o.option("--out", metavar="F", help="F.png or F.svg; may be repeated.")] = None,
    by: Annotated[
        str | None,
        o.option(
            "--by", metavar="FLAG", help="boxes, curves: the flag that groups runs, e.g. gamma [default: method]."
        ),
    ] = None,
    y: Annotated[
        str | None,
        o.option("--y", metavar="Y[,Y...]", help="curves: log fields [default: val_natural,val_robust]."),
    ] = None,
    log: Annotated[bool, o.option("--log", help="curves: a logarithmic scale.")] = False,
    title: Annotated[str, o.option("--title", metavar="TEXT", help="Title of the figure.")] = "",
    quiet: o.Quiet = False,
) -> None:
    """Draw figures from records.

    boxes: robust accuracy over seeds, one box per value of --by, one dot per seed. curves: fields of training logs
    over epochs, the mean over seeds with a band from the lowest to the highest seed. landings: where starts land in
    output space, from bsk starts. radius: accuracy against eps with 95 % intervals, one line per network and attack.
    Records that are pooled must differ in their seeds alone.

        bsk plot boxes results.jsonl --by step --out figure1.png
        bsk plot curves runs/*.jsonl --y kl_start,kl_ascent --log --out f3.png
        bsk starts runs/bs.safetensors | bsk plot landings --out figure4.svg
        bsk plot radius results.jsonl --out radius.png
    """
    from bsk.figures.boxes import draw_boxes
    from bsk.figures.canvas import checked_picture
    from bsk.figures.curves import draw_curves
    from bsk.figures.landings import draw_landings
    from bsk.figures.radius import draw_radius

    if kind not in KINDS:
        raise UsageError(f"plot {kind}: no such figure; {nearest(kind, KINDS)}")
    if not out:
        raise UsageError("plot: no --out; name F.png or F.svg")
    paths = [checked_picture(path, "--out") for path in out]
    if kind != "curves" and (y or log):
        raise UsageError(f"plot {kind}: --y and --log are for curves; leave them out")
    if kind not in ("boxes", "curves") and by:
        raise UsageError(f"plot {kind}: --by is for boxes and curves; leave it out")
    items = records_of("plot", files)
    if kind == "boxes":
        notices = draw_boxes(items, by or "method", paths, title)
    elif kind == "radius":
        notices = draw_radius(items, paths, title)
    elif kind == "landings":
        notices = draw_landings(items, paths, title)
    else:
        notices = draw_curves(items, by or "method", (y or "val_natural,val_robust").split(","), paths, title, log=log)
    for notice in dict.fromkeys(notices):
        note(notice)
