"""`bsk evaluate` and `bsk attack`: how many examples survive which attacks, and the images that fool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bsk.cli import options as o
from bsk.cli.console import emit_record
from bsk.cli.progress import EvaluationProgress

if TYPE_CHECKING:
    from bsk.attacks.registry import Attack
    from bsk.evaluation.run import Bench
    from bsk.evaluation.subjects import Subject

DatasetOfModel = Annotated[str | None, o.option("--dataset", help="Prepared data [default: what it was trained on].")]
SplitName = Annotated[str, typer.Option("--split", help="test, val or train.")]
AttackSeed = Annotated[int, typer.Option("--seed", help="Of the attack's random numbers.")]


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Files that bsk train wrote.")],
    attack: o.Attacks = "natural,pgd-100",
    out: Annotated[Path | None, o.option("--out", help="Append the records to this JSONL file too.")] = None,
    dataset: DatasetOfModel = None,
    data: o.DataPath = None,
    split: SplitName = "test",
    eps: o.Eps = None,
    step: o.Step = None,
    start: o.Start = "zero",
    last_iterate: o.LastIterate = False,
    limit: o.Limit = None,
    batch_size: o.BatchSize = 256,
    seed: AttackSeed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
) -> None:
    """Measure how many examples survive.

    Prints one JSON record per checkpoint and attack, in fp32 with the model in eval mode. A record has the
    accuracy, its 95 % interval, all parameters, the cost, and one bit an example, so that bsk compare can pair any
    two of them. An example is lost at the first iterate that is misclassified.

        bsk evaluate runs/*.safetensors --attack natural,pgd-100 --out results.jsonl | bsk compare
        bsk evaluate runs/bs.safetensors --attack pgd-50x10,cw-100 --eps 8/255 --limit 1000
    """
    flags = locals()
    from bsk.evaluation.run import evaluate as run
    from bsk.files import records

    for path in checkpoints:
        subject, attacks, bench = lay_out(path, flags)
        with EvaluationProgress(path.name) as progress:
            for record in run(subject, attacks, bench, progress.show):
                if out is not None:
                    records.append(out, record)
                emit_record(record)
                progress.done(record)


def attack(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A file that bsk train wrote.")],
    out: Annotated[Path, o.option("--out", help="F.safetensors for the images.")],
    attack: o.Attacks = "pgd-100",
    dataset: DatasetOfModel = None,
    data: o.DataPath = None,
    split: SplitName = "test",
    eps: o.Eps = None,
    step: o.Step = None,
    start: o.Start = "zero",
    last_iterate: o.LastIterate = False,
    limit: o.Limit = None,
    batch_size: o.BatchSize = 256,
    seed: AttackSeed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
) -> None:
    """Write the adversarial images of an attack.

    F.safetensors has `images` (N, C, H, W) fp32 in [0, 1], `labels`, `index` (in the data's source order) and
    `predictions`; its header has the record that is printed too.

        bsk attack runs/bs.safetensors --attack pgd-100 --out adversarial.safetensors
    """
    flags = locals()
    from bsk.evaluation.run import attacked
    from bsk.files import checkpoints
    from bsk.files.headers import check_replaceable

    check_replaceable(o.checked_suffix(out), "attack", force)
    subject, (named,), bench = lay_out(checkpoint, flags)
    with EvaluationProgress(checkpoint.name) as progress:
        record, verdicts = attacked(subject, named, bench, progress.show, keep_images=True)
        images = bench.data.split(split, limit)
        assert verdicts.x_adv is not None and verdicts.predictions is not None
        tensors = {
            "images": verdicts.x_adv,
            "labels": images.labels,
            "index": images.index,
            "predictions": verdicts.predictions,
        }
        record = {**record, "kind": "attack", "out": str(out)}
        checkpoints.save(out, tensors, record)
        emit_record(record)
        progress.done(record)


def lay_out(path: Path, flags: dict[str, Any]) -> tuple[Subject, list[Attack], Bench]:
    """Return the model, the attacks and the circumstances that the flags name; the radius is the model's own.

    Raises:
        UsageError: an unknown name, or a number out of range.
        InputError: a file is missing or does not fit.
    """
    from bsk.attacks.registry import attack_named
    from bsk.evaluation.run import Bench
    from bsk.evaluation.subjects import load_subject

    o.one_of("split", flags["split"], ["test", "val", "train"])
    o.one_of("start", flags["start"], ["zero", "uniform"])
    names = flags["attack"].split(",")
    if flags["step"] is not None:
        o.above_zero(step=flags["step"])
    how = {name: flags[name] for name in ("step", "start", "last_iterate")}
    for name in names:
        attack_named(name, 1.0)  # a wrong name is said before a model is loaded
    if flags["eps"] is not None:
        o.checked_eps(flags["eps"], zero=True)
    device = o.chosen_device(flags["device"], flags["threads"])
    subject = load_subject(path, device)
    data = o.open_dataset(flags["dataset"] or subject.header["dataset"], flags["data"])
    eps = subject.header["eps"] if flags["eps"] is None else flags["eps"]
    bench = Bench(data, flags["split"], flags["limit"], eps, flags["seed"], flags["batch_size"], device)
    return subject, [attack_named(name, eps, **how) for name in names], bench
