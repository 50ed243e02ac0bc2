"""`bsk prepare-data`: data in any form to one safetensors file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk.cli.console import emit_record
from bsk.cli.options import CORRUPTED, DATASETS, SUFFIX, Force, Json, Quiet, checked_suffix, completing
from bsk.errors import UsageError
from bsk.terminal import Bar, note


def prepare_data(
    name: Annotated[
        str,
        typer.Argument(help=f"{', '.join(DATASETS)}, or module:function.", autocompletion=completing(lambda: DATASETS)),
    ],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Archive, folder, .parquet, .npz, .npy or URL [default: the official archive]."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="[default: data/NAME.safetensors]", show_default=False)] = None,
    val: Annotated[
        int | None, typer.Option(min=1, help="Images held out of train to select models [default: 1000, digits 200].")
    ] = None,
    train_limit: Annotated[int | None, typer.Option(min=1, help="Training images left, class-balanced.")] = None,
    test_limit: Annotated[int | None, typer.Option(min=1, help="Test images left, class-balanced.")] = None,
    size: Annotated[int | None, typer.Option(min=4, help="For folder: resize images to this side.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.csv|NAME", help="For folder: a table of images and labels; else the column or array of them."
        ),
    ] = None,
    test_split: Annotated[
        str,
        typer.Option(
            metavar="test|val|none", help="The split of the source to test on; none: all of train is for --extra."
        ),
    ] = "test",
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave out the training images that are test or val images too.")
    ] = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a data set once, to one file.

    Writes images as bytes, labels and a held-out val split to data/NAME.safetensors, and prints one JSON
    record; of cifar10-c and cifar100-c a file and a record for each corruption and severity, in the folder data/NAME.
    The same source always gives the same bytes; a file of other data is not replaced without --force.
    A folder has a folder for each class, below train/, val/ and test/ or without them; or a table of labels.
    A function of one's own takes nothing and returns
    {"train": (images, labels), "test": (images, labels)}: arrays (N, C, H, W) or (N, H, W, C), uint8 or in [0, 1].

        bsk prepare-data digits
        bsk prepare-data cifar10 --from cifar-10-python.tar.gz
        bsk prepare-data folder --from my-images/ --size 32 --out data/mine.safetensors
        bsk prepare-data folder --from flat/ --labels trainLabels.csv
        bsk prepare-data folder --from arrays.npz --out data/mine.safetensors
        bsk prepare-data cifar100 --from parquet-of-hugging-face/ --labels coarse_label
        bsk prepare-data cifar10-c --from CIFAR-10-C/
        bsk prepare-data mycode:faces
    """
    from bsk.data.sources import prepare
    from bsk.data.store import data_path
    from bsk.records.locks import only_writer

    limits: dict[str, Any] = {"val": val, "train_limit": train_limit, "test_limit": test_limit}
    layout: dict[str, Any] = {"size": size, "labels": labels or (), "test_split": test_split, "drop_leaks": drop_leaks}
    if name in CORRUPTED:
        _each(name, source, out, {**limits, **layout}, force)
        return
    path = checked_suffix(out or data_path(name.rpartition(":")[2]))
    with closing(Bar("prepare")) as bar, only_writer(path):
        record = prepare(name, source, path, **limits, **layout, force=force, progress=bar.show, notice=note)
    emit_record(record)


def _each(name: str, source: str | None, out: Path | None, flags: dict[str, Any], force: bool) -> None:
    """Write the files of corrupted images into a folder, and print a record for each."""
    from bsk.data.sources import prepare_each
    from bsk.data.store import data_path
    from bsk.records.locks import only_writer

    limit = flags.pop("test_limit")
    for flag, value in flags.items():
        if value and value != "test":
            raise UsageError(f"--{flag.replace('_', '-')}: {name} has test images alone; leave it out")
    folder = out or data_path(name).with_suffix("")
    if folder.suffix == SUFFIX:
        raise UsageError(f"--out {folder}: {name} becomes many files; name a folder")
    with closing(Bar("prepare")) as bar, only_writer(folder):
        for record in prepare_each(name, source, folder, test_limit=limit, force=force, progress=bar.show, notice=note):
            emit_record(record)
