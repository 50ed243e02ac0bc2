"""`bsk evaluate` and `bsk attack`: how many examples survive which attacks, and the images that fool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record, note
from bsk.cli.progress import EvaluationProgress
from bsk.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

    from bsk.attacks.registry import Attack
    from bsk.data.batches import Share
    from bsk.evaluation.settings import EvaluationSettings
    from bsk.evaluation.subjects import Subject

DatasetOfModel = Annotated[str | None, o.option("--dataset", help="Prepared data [default: what it was trained on].")]
SplitName = Annotated[str, typer.Option("--split", help="test, val or train.")]
AttackSeed = Annotated[int, typer.Option("--seed", callback=o.checked_seed, help="Of the attack's random numbers.")]


def evaluate(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="CKPT...", help="Files that bsk train wrote.")
    ] = None,
    attack: o.Attacks = "natural,pgd-100",
    out: Annotated[
        Path | None, o.option("--out", help="F.jsonl to append to: what is there already is not computed again.")
    ] = None,
    dataset: DatasetOfModel = None,
    data: o.DataPath = None,
    split: SplitName = "test",
    eps: o.Eps = None,
    norm: o.Norm = "linf",
    step: o.Step = None,
    start: o.Start = "zero",
    last_iterate: o.LastIterate = False,
    queries: o.Queries = None,
    stop_at_eps: o.StopAtEps = False,
    limit: o.Limit = None,
    model: o.Model = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    batch_size: o.Rows = None,
    engine: o.Engine = "bsk",
    checks: o.Checks = True,
    seed: AttackSeed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
) -> None:
    """Measure how many examples survive.

    Prints one JSON record per checkpoint and attack, in fp32 with the model in eval mode. A record has the
    accuracy, its 95 % interval, all parameters, the cost, doubts where there are signs that the number cannot be
    believed, and one bit an example, so that bsk compare can pair any two of them. An example is lost at the first
    iterate that is misclassified.

    With --out F.jsonl an evaluation is a file that grows: stopped at any moment, the same command goes on where it
    was, and answers at once when it is complete; autoattack after screen starts from what that found. F.examples/ has
    the verdict on each example. Several processes share the work: torchrun --nproc-per-node=N -m bsk evaluate ...

        bsk evaluate runs/*.safetensors --attack natural,pgd-100 --out results.jsonl | bsk compare
        bsk evaluate runs/bs.safetensors --attack autoattack --out results.jsonl
        bsk evaluate --model resnet18 --weights theirs.pt --dataset cifar10 --eps 8/255 --attack screen
    """
    flags = locals()
    o.load_torch()
    from bsk.data.processes import local_device, process_group
    from bsk.evaluation.run import evaluate as run

    if out is not None:
        check_no_log(out)
    where = local_device(o.chosen_device(device, threads))
    with process_group(where) as share:
        for path in subjects(flags):
            subject, attacks, bench = lay_out(path, flags, where, share)
            with EvaluationProgress(subject.path.name, share.rank == 0) as progress:
                for record in run(subject, attacks, bench, out, progress.show):
                    if share.rank == 0:
                        emit_record(record)
                        progress.done(record)


def attack(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CKPT", help="A file that bsk train wrote.", show_default=False)
    ] = None,
    out: Annotated[Path | None, o.option("--out", help="F.safetensors for the images.")] = None,
    images: Annotated[
        Path | None, o.option("--images", help="Draw some of them before and after into F.png or F.svg.")
    ] = None,
    attack: o.Attacks = "pgd-100",
    dataset: DatasetOfModel = None,
    data: o.DataPath = None,
    split: SplitName = "test",
    eps: o.Eps = None,
    norm: o.Norm = "linf",
    step: o.Step = None,
    start: o.Start = "zero",
    last_iterate: o.LastIterate = False,
    queries: o.Queries = None,
    stop_at_eps: o.StopAtEps = False,
    limit: o.Limit = None,
    model: o.Model = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    batch_size: o.Rows = None,
    engine: o.Engine = "bsk",
    checks: o.Checks = True,
    seed: AttackSeed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
) -> None:
    """Write the adversarial images of an attack.

    F.safetensors has `images` (N, C, H, W) fp32 in [0, 1], `labels`, `index` (in the data's source order) and
    `predictions`; its header has the record that is printed too.

        bsk attack runs/bs.safetensors --attack pgd-100 --out adversarial.safetensors --images sheet.png
    """
    flags = locals()
    o.load_torch()
    from bsk.data.batches import WHOLE
    from bsk.evaluation.run import attacked
    from bsk.figures.canvas import checked_picture
    from bsk.records.atomic import only_writer
    from bsk.records.headers import check_replaceable

    if out is None:
        raise UsageError("attack: no --out; name F.safetensors for the images")
    if "," in attack:
        raise UsageError(f"--attack {attack}: one attack a file; run it once for each")
    check_replaceable(o.checked_suffix(out), "attack", force)
    if images is not None:
        checked_picture(images, "--images")
    (path,) = subjects({**flags, "checkpoints": [checkpoint] if checkpoint else None})
    subject, (named,), bench = lay_out(path, flags, o.chosen_device(device, threads), WHOLE)
    with only_writer(out), EvaluationProgress(subject.path.name, True) as progress:
        record, shown = attacked(subject, named, bench, out, progress.show)
        emit_record(record)
        progress.done(record)
    if images is not None:
        from bsk.figures.sheet import draw_sheet
        from bsk.records.words import plain

        title = f"{subject.path.name} under {named.name}, eps {plain(bench.eps)}, {bench.data.name} {split}"
        arrays = {name: tensor.numpy() for name, tensor in vars(shown).items()}
        for said in draw_sheet(images, **arrays, classes=bench.data.classes, title=title):
            note(said)


def check_no_log(out: Path) -> None:
    """Refuse the log of a training: it is locked while that runs, and cut when it goes on.

    Raises:
        InputError: it is one, or it cannot be read.
    """
    from bsk.records import jsonl as records

    if out.exists() and any(record.get("kind") == "start" for record in records.read(out, most=1)):
        raise InputError(f"{out}: is the log of a training; choose another --out")


def subjects(flags: dict[str, Any]) -> list[Path | None]:
    """Return the checkpoints named, or [None] for --weights.

    Raises:
        UsageError: neither or both are named, or half of what foreign weights need.
    """
    checkpoints: list[Path] = flags["checkpoints"] or []
    if (flags["model"] is None) != (flags["weights"] is None):
        raise UsageError("--model and --weights: give both for a model trained elsewhere, or neither")
    if flags["weights"] is None and (flags["mean"] or flags["std"]):
        raise UsageError("--mean and --std: a checkpoint of bsk has its own; they go with --weights")
    if bool(checkpoints) == (flags["weights"] is not None):
        raise UsageError("name checkpoints of bsk train, or --model and --weights; not both, not neither")
    return list(checkpoints) or [None]


def lay_out(
    path: Path | None, flags: dict[str, Any], device: torch.device, share: Share
) -> tuple[Subject, list[Attack], EvaluationSettings]:
    """Return the model, the attacks and the circumstances that the flags name; the radius is the model's own.

    Raises:
        UsageError: an unknown name, or a number out of range.
        InputError: a file is missing or does not fit.
    """
    from bsk.attacks.registry import Flags, attack_named
    from bsk.evaluation.settings import EvaluationSettings

    named = _flags(flags)
    names = flags["attack"].split(",")
    for name in names:
        attack_named(name, 1.0, Flags(**named))  # a wrong name is said before a model is loaded
    _check_used(flags, names)
    subject, data = _subject_and_data(path, flags, device)
    if flags["norm"] != "linf" and flags["eps"] is None:
        raise UsageError(f"--norm {flags['norm']}: no customary radius; pass --eps, as 0.5 for CIFAR-10")
    eps = subject.header["eps"] if flags["eps"] is None else flags["eps"]
    size = flags["batch_size"] or o.rows_of_a_call(device)
    bench = EvaluationSettings(
        data, flags["split"], flags["limit"], eps, flags["seed"], size, device, share, flags["checks"]
    )
    attacks = [attack_named(name, eps, Flags(**named, classes=len(data.classes))) for name in names]
    if share.rank == 0:
        for said in dict.fromkeys([*subject.notices, *(line for each in attacks for line in each.notices)]):
            note(said)
    return subject, attacks, bench


TAKERS = {  # flags that only some attacks have, by the first word of their names
    "queries": ("square", "rays"),
    "stop_at_eps": ("rays",),
    "step": ("fgsm", "pgd", "cw"),
    "last_iterate": ("fgsm", "pgd", "cw"),
}


def _check_used(flags: dict[str, Any], names: list[str]) -> None:
    """Refuse a flag that none of the attacks has: nobody should report what never ran."""
    for flag, takers in TAKERS.items():
        if flags[flag] and not any(name.split("-")[0] in takers for name in names):
            raise UsageError(f"--{flag.replace('_', '-')}: no attack here has it; it is for {', '.join(takers)}")


def _flags(flags: dict[str, Any]) -> dict[str, Any]:
    from bsk.perturb.ball import NORMS

    o.one_of("split", flags["split"], ["test", "val", "train"])
    o.one_of("start", flags["start"], ["zero", "uniform"])
    o.one_of("norm", flags["norm"], NORMS)
    o.one_of("engine", flags["engine"], o.ENGINES)
    if flags["step"] is not None:
        o.above_zero(step=flags["step"])
    if flags["eps"] is not None:
        o.checked_eps(flags["eps"], zero=True, norm=flags["norm"])
    names = ("step", "start", "last_iterate", "norm", "queries", "stop_at_eps", "engine")
    return {name: flags[name] for name in names}


def _subject_and_data(path: Path | None, flags: dict[str, Any], device: torch.device) -> tuple[Subject, Any]:
    from bsk.evaluation.subjects import foreign_subject, load_subject

    if path is not None:
        subject = load_subject(path, device)
        return subject, o.open_dataset(flags["dataset"] or subject.header["dataset"], flags["data"])
    data = o.open_dataset(flags["dataset"] or "cifar10", flags["data"])
    mean, std = (o.numbers(name, flags[name]) for name in ("mean", "std"))
    return foreign_subject(flags["model"], flags["weights"], data, mean, std, device), data
