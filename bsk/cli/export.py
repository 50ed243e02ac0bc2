"""`bsk export`: networks, logs and evaluations in the forms of other tools."""

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
        list[Path], typer.Argument(metavar="FILE...", help="A checkpoint, logs or records, as --to needs them.")
    ],
    to: Annotated[str, typer.Option(help=f"{', '.join(TO)}.", autocompletion=o.completing(lambda: TO))],
    out: Annotated[Path | None, o.option("--out", help="What to write; of tensorboard a folder.")] = None,
    model: Annotated[
        str | None, o.option("--model", help="Of a network from outside its module:function, which is imported.")
    ] = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a network, logs or evaluations for other tools.

    torch: a state dict under the names of the published layout, of which the record has mean and std. torchscript and
    onnx: the network with its normalisation, from images (N, C, H, W) in [0, 1] to logits, for any N; onnx needs
    bsk[onnx]. Each is read back and must give bsk's own logits to 1e-4, else nothing is written. TorchScript is traced;
    torch says that it will leave it behind.

    tensorboard: a scalar for each number of each epoch of logs, in the folder that comes last or by --out; needs
    bsk[tensorboard]. robustbench: its model-info JSON from the records of one network; what they do not tell is null.
    card: a Markdown model card of a checkpoint and its records, with their intervals.

        bsk export runs/bs.safetensors --to onnx --out bs.onnx
        bsk export runs/*.jsonl --to tensorboard board
        bsk export runs/bs.safetensors results.jsonl --to card --out README.md
    """
    if to not in TO:
        raise UsageError(f"--to {to}: no such form; {nearest(to, TO)}")
    if out is None and to == "tensorboard" and len(files) > 1:
        *files, out = files
    if out is None:
        raise UsageError("export: no --out; name the file to write, of tensorboard the folder")
    if to in NETWORKS and len(files) > 1:
        raise UsageError(f"export: {len(files)} files; --to {to} takes one checkpoint at a time")
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
        note(f"{out}: null, for records do not tell it: {', '.join(record['unknown'])}")
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
        note(f"{out}: takes images that are normalised; in bsk by {flags}")
    return record
