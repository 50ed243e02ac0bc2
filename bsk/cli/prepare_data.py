"""`bsk prepare-data`: convert a dataset of any format to one safetensors file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from bsk.cli.console import emit_record
from bsk.cli.options import CORRUPTED, DATASETS, Force, Json, Quiet, completing, count
from bsk.errors import UsageError
from bsk.terminal import Bar, note
from bsk.values import SUFFIX, checked_suffix


def prepare_data(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=f"{', '.join(DATASETS)}, or module:function.",
            autocompletion=completing(lambda: DATASETS),
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SOURCE", help="Archive, folder, .parquet, .npz, .npy or URL [default: official archive]."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="F", help="F.safetensors [default: data/NAME.safetensors].", show_default=False),
    ] = None,
    val: Annotated[
        int | None, count(help="Training images held out to select models [default: 1000; digits: 200].")
    ] = None,
    train_limit: Annotated[int | None, count(help="Keep N training images, class-balanced.")] = None,
    test_limit: Annotated[int | None, count(help="Keep N test images, class-balanced.")] = None,
    size: Annotated[int | None, count(least=4, help="folder: resize images to N x N pixels.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME", help="A table of images and labels, or the name of the label column or array."
        ),
    ] = None,
    test_split: Annotated[
        str,
        typer.Option(metavar="NAME", help="Source split to test on: test, val, or none, which leaves only train."),
    ] = "test",
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Remove training images that are also in test or val.")
    ] = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a dataset to one file.

    Writes uint8 images, labels and a held-out val split to data/NAME.safetensors and prints one JSON record. For
    cifar10-c and cifar100-c, writes one file per corruption and severity to the folder data/NAME. The same source
    always gives the same bytes. A file of other data is replaced only with --force.

    A folder has one subfolder per class, below train/, val/ and test/ or directly; or it comes with a table of labels.
    A module:function takes no arguments and returns {"train": (images, labels), "test": (images, labels)}: arrays
    (N, C, H, W) or (N, H, W, C), uint8 or floats in [0, 1].

        bsk prepare-data digits
        bsk prepare-data cifar10 --from cifar-10-python.tar.gz
        bsk prepare-data folder --from images/ --size 32 --out mine.safetensors
        bsk prepare-data folder --from flat/ --labels trainLabels.csv
        bsk prepare-data folder --from arrays.npz --out data/mine.safetensors
        bsk prepare-data cifar100 --from parquet-folder/ --labels coarse_label
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
    """Write the files of corrupted images to a folder and print a record for each."""
    from bsk.data.sources import prepare_each
    from bsk.data.store import data_path
    from bsk.records.locks import only_writer

    limit = flags.pop("test_limit")
    for flag, value in flags.items():
        if value and value != "test":
            raise UsageError(f"--{flag.replace('_', '-')}: {name} has test images only; leave it out")
    folder = out or data_path(name).with_suffix("")
    if folder.suffix == SUFFIX:
        raise UsageError(f"--out {folder}: {name} is written as many files; name a folder")
    with closing(Bar("prepare")) as bar, only_writer(folder):
        for record in prepare_each(name, source, folder, test_limit=limit, force=force, progress=bar.show, notice=note):
            emit_record(record)
