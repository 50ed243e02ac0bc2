"""`bsk evaluate` and `bsk attack`: how many examples survive which attacks, and the images that fool."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from bsk.attacks.flags import AttackFlags
from bsk.cli import options as o
from bsk.cli.console import GOES_ON, emit_record
from bsk.cli.groups import grouped
from bsk.devices import chosen_device, load_torch
from bsk.errors import InputError, UsageError
from bsk.evaluation.flags import EvaluationFlags, ModelFlags
from bsk.progress import EvaluationProgress
from bsk.terminal import CHOICES, note

USUAL = "natural,pgd-100"
LAST = ".last.safetensors"  # how bsk train names the network of its last epoch


@grouped
def evaluate(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="CKPT...", help="Files that bsk train wrote.")
    ] = None,
    attack: o.Attacks = USUAL,
    out: Annotated[
        Path | None, o.option("--out", help="F.jsonl to append to: what is there already is not computed again.")
    ] = None,
    images: Annotated[
        Path | None,
        o.option("--images", metavar="F", help="Show these images of bsk attack, F.safetensors or F.npz, instead."),
    ] = None,
    last: Annotated[bool, o.option("--last", help="F.last.safetensors too, where F.safetensors is named.")] = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    *,
    network: ModelFlags,
    examples: EvaluationFlags,
    flags: AttackFlags,
) -> None:
    """Measure how many examples survive.

    Prints one JSON record per checkpoint and attack, in fp32 with the model in eval mode. A record has the
    accuracy, its 95 % interval, all parameters, the cost, doubts where there are signs that the number cannot be
    believed, and one bit an example, so that bsk compare can pair any two of them. On a terminal a record is a
    line with accuracy, interval and doubts counted, unless --json. An example is lost at the first iterate that is
    misclassified.

    With --out F.jsonl an evaluation is a file that grows: stopped at any moment, the same command goes on where it
    was, and answers at once when it is complete; autoattack after screen starts from what that found. F.examples/ has
    the verdict on each example. --data FOLDER evaluates on each data file in it. Several processes share the work:
    torchrun --nproc-per-node=N -m bsk evaluate ...

        bsk evaluate runs/*.safetensors --attack natural,pgd-100 --out results.jsonl | bsk compare
        bsk evaluate runs/bs.safetensors --attack autoattack --out results.jsonl
        bsk evaluate runs/bs.safetensors --attack autoattack --within 0.25 --out results.jsonl
        bsk evaluate runs/bs.safetensors --eps 2/255,4/255,8/255 --out results.jsonl
        bsk evaluate --model resnet18 --weights theirs.pt --dataset cifar10 --eps 8/255 --attack screen
        bsk evaluate runs/bs.safetensors --data data/cifar10-c --attack natural | bsk compare --by corruption
        bsk evaluate runs/bs.safetensors --attack mycode:my_attack --set steps=40
        bsk evaluate runs/*.safetensors --images adversarial.safetensors --out transfer.jsonl
    """
    load_torch()
    from bsk.data.processes import local_device, process_group
    from bsk.evaluation.run import check_no_log, sweep
    from bsk.evaluation.settings import Request, each_data, subject_and_data

    network.check(checkpoints or [])
    CHOICES.kept = GOES_ON if out else "nothing was kept; with --out F.jsonl the same command goes on"
    if out is not None:
        check_no_log(out)
    where = local_device(chosen_device(device, threads))
    with process_group(where) as share:
        if images is None:
            request = Request(attack.split(","), flags, examples, where, share)
        else:
            _check_shown(attack, flags)
            request = Request.shown(images, examples, where, share)
        request.check()
        paths: list[Path | None] = [*_without_last(checkpoints, last)] if checkpoints else [None]
        for path, one in product(paths, each_data(network)):
            works = request.of(*subject_and_data(path, one, where))
            with EvaluationProgress(works[0].subject.path.name, share.rank == 0) as progress:
                progress.notices(works[0].notices)
                seconds = 0.0
                for record in sweep(works, out, progress.show):
                    seconds += record["seconds"]
                    if share.rank == 0:
                        with progress.aside():
                            emit_record(record)
                        progress.done(record)
                if len(works) > 1:
                    progress.notices([f"{len(works)} radii: {seconds:.1f} s in all"])


def _check_shown(attack: str, flags: AttackFlags) -> None:
    """Raise a UsageError if an attack is asked for beside images that were made by one."""
    if attack != USUAL:
        raise UsageError(f"--attack {attack}: --images were made by theirs; leave one of the two out")
    if flags != AttackFlags():
        raise UsageError("--images: are shown as they are; leave the flags of attacks out")


def _without_last(checkpoints: list[Path], last: bool) -> list[Path]:
    """Return the checkpoints without the last epochs of those that are named themselves, as `runs/*` names them."""
    left_out = [path for path in checkpoints if path.name.endswith(LAST) and not last and _best(path) in checkpoints]
    if left_out:
        also = f"{len(left_out)} files of a last epoch" if len(left_out) > 1 else left_out[0].name
        note(f"{also}: left out beside the best epoch; --last takes both")
    return [path for path in checkpoints if path not in left_out]


def _best(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(LAST) + ".safetensors")


@grouped
def attack(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CKPT", help="A file that bsk train wrote.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, o.option("--out", help="F.safetensors for the images; in 8 bits F.npz, or a folder of PNGs.")
    ] = None,
    images: Annotated[
        Path | None, o.option("--images", help="Draw some of them before and after into F.png or F.svg.")
    ] = None,
    attack: o.Attacks = "pgd-100",
    target: Annotated[
        str | None,
        o.option(
            "--target",
            metavar="CLASS|random|least-likely",
            help="Of fgsm, pgd and cw: the class to be taken for, by name or number, or one of the others an image.",
        ),
    ] = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    *,
    network: ModelFlags,
    examples: EvaluationFlags,
    flags: AttackFlags,
) -> None:
    """Write the adversarial images of an attack.

    F.safetensors has `images` (N, C, H, W) fp32 in [0, 1], `labels`, `index` (in the data's source order) and
    `predictions`, with --target `target` too; its header has the record that is printed, which then tells how often the
    target is reached. F.npz has `images` as uint8; a folder has CLASS/INDEX.png, and images.jsonl. There the images are
    rounded to 8 bits within the ball, and judged again: the predictions are of these, and `rounded` tells what changed.

        bsk attack runs/bs.safetensors --attack pgd-100 --out adversarial.safetensors --images sheet.png
        bsk attack runs/bs.safetensors --target least-likely --out adversarial.safetensors
        bsk attack runs/bs.safetensors --out pictures/
    """
    load_torch()
    from bsk.evaluation.run import attacked
    from bsk.evaluation.settings import Request, subject_and_data
    from bsk.figures.canvas import checked_picture
    from bsk.figures.sheet import draw_sheet
    from bsk.records.headers import check_replaceable
    from bsk.records.locks import only_writer
    from bsk.records.pictures import TENSORS, checked_out
    from bsk.records.words import plain

    if out is None:
        raise UsageError("attack: no --out; name F.safetensors, F.npz or a folder for the images")
    flags = replace(flags, target=target)
    flags.check_whole()
    examples.check_one()
    if "," in attack:
        raise UsageError(f"--attack {attack}: one attack a file; run it once for each")
    if checked_out(out).suffix == TENSORS:
        check_replaceable(out, "attack", force)
    elif out.is_file() and not force:
        raise InputError(f"{out}: exists; choose another --out, or --force")
    if images is not None:
        checked_picture(images, "--images")
    network.check([checkpoint] if checkpoint else [])
    request = Request([attack], flags, examples, chosen_device(device, threads))
    request.check()
    (work,) = request.of(*subject_and_data(checkpoint, network, request.device))
    with only_writer(out), EvaluationProgress(work.subject.path.name, True) as progress:
        progress.notices(work.notices)
        record, shown = attacked(work.subject, work.attacks[0], work.settings, out, progress.show)
        with progress.aside():
            emit_record(record)
        progress.done(record)
    if images is not None:
        given = work.settings
        title = f"{work.subject.path.name} under {attack}, eps {plain(given.eps)}, {given.data.name} {given.split}"
        for said in draw_sheet(images, **shown, classes=given.data.classes, title=title):
            note(said)
