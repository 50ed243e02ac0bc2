"""`bsk export`: networks, logs and evaluations in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record
from bsk.devices import chosen_device, load_torch
from bsk.errors import UsageError, nearest
from bsk.terminal import note

NETWORKS = ["torch", "torchscript", "onnx"]
TO = [*NETWORKS, "tensorboard", "robustbench", "card"]


def export(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A checkpoint, logs or records, depending on --to.")
    ],
    to: Annotated[
        str, typer.Option(metavar="FORMAT", help=f"{', '.join(TO)}.", autocompletion=o.completing(lambda: TO))
    ],
    out: Annotated[
        Path | None, o.option("--out", metavar="F", help="The file to write; a folder for tensorboard.")
    ] = None,
    model: Annotated[
        str | None, o.option("--model", metavar="module:function", help="The code of a user's own network.")
    ] = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a network, logs or evaluations for other tools.

    torch: a state dict with the parameter names of the published network; mean and std are in the record. torchscript
    and onnx: the network with its normalisation, from images (N, C, H, W) in [0, 1] to logits, for any N. onnx needs
    the packages onnx, onnxscript and onnxruntime. Each file is read back; unless its logits agree with bsk's to 1e-4,
    nothing is written. TorchScript is traced; torch has deprecated it.

    tensorboard: one scalar per number and epoch of the logs, in the last folder named or --out; needs the package
    tensorboard. robustbench: its model-info JSON, from the records of one network; unknown fields are null. card: a
    Markdown model card of a checkpoint and its records, with intervals.

        bsk export runs/bs.safetensors --to onnx --out bs.onnx
        bsk export runs/*.jsonl --to tensorboard board
        bsk export runs/bs.safetensors results.jsonl --to card --out README.md
    """
    if to not in TO:
        raise UsageError(f"--to {to}: no such format; {nearest(to, TO)}")
    if out is None and to == "tensorboard" and len(files) > 1:
        *files, out = files
    if out is None:
        raise UsageError("export: no --out; name the file to write, or the folder for tensorboard")
    if to in NETWORKS and len(files) > 1:
        raise UsageError(f"export: {len(files)} files given; --to {to} takes one checkpoint")
    if model is not None and to not in NETWORKS:
        raise UsageError(f"--model {model}: --to {to} needs no network; leave --model out")
    emit_record(_export(files, to, out, model, force))


def _export(files: list[Path], to: str, out: Path, model: str | None, force: bool) -> dict[str, Any]:
    if to == "tensorboard":
        from bsk.export.board import export_logs

        return export_logs(files, out, force)
    from bsk.export.conditions import check_free

    check_free(out, force)
    if to in NETWORKS:
        return _network(files[0], to, out, model)
    from bsk.export.texts import export_card, export_info

    record = export_card(files[0], files[1:], out) if to == "card" else export_info(files, out)
    if record.get("unknown"):
        note(f"{out}: null because the records do not have them: {', '.join(record['unknown'])}")
    return record


def _network(checkpoint: Path, to: str, out: Path, model: str | None) -> dict[str, Any]:
    load_torch()
    from bsk.evaluation.subjects import load_subject
    from bsk.export.network import export_network

    subject = load_subject(checkpoint, chosen_device("cpu"), model)
    for notice in subject.notices:
        note(notice)
    record = export_network(subject, to, out)
    if not record["normalised"]:
        flags = " ".join(f"--{name} {','.join(f'{each:g}' for each in record[name])}" for name in ("mean", "std"))
        note(f"{out}: expects normalised images; in bsk pass {flags}")
    return record
