"""`bsk evaluate` and `bsk attack`: robust accuracy under attacks, and the adversarial images themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bsk.attacks.flags import AttackFlags
from bsk.cli import options as o
from bsk.cli.console import RESUME_HINT, emit_record
from bsk.cli.groups import grouped
from bsk.devices import chosen_device, load_torch
from bsk.errors import InputError, UsageError
from bsk.evaluation.flags import EvaluationFlags, ModelFlags
from bsk.progress import EvaluationProgress
from bsk.terminal import CHOICES, note

if TYPE_CHECKING:
    from bsk.evaluation.settings import Work

USUAL = "natural,pgd-100"
LAST = ".last.safetensors"  # ending of the checkpoint of the last epoch


@grouped
def evaluate(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="CKPT...", help="Checkpoints of bsk train.")
    ] = None,
    attack: o.Attacks = USUAL,
    out: Annotated[
        Path | None, o.option("--out", metavar="F", help="Append to F.jsonl; what it already holds is not recomputed.")
    ] = None,
    images: Annotated[
        Path | None,
        o.option("--images", metavar="F", help="Evaluate on saved images of bsk attack, a file or folder."),
    ] = None,
    last: Annotated[bool, o.option("--last", help="Include F.last.safetensors where F.safetensors is named.")] = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    *,
    network: ModelFlags,
    examples: EvaluationFlags,
    flags: AttackFlags,
) -> None:
    """Measure accuracy under attacks.

    Prints one JSON record per checkpoint and attack: accuracy with its 95 % interval, all settings, the cost, doubts
    (signs that the accuracy cannot be trusted), and one bit per example for the paired tests of bsk compare. The
    model runs in fp32 and eval mode. An example is lost at the first iterate that is misclassified.

    With --out F.jsonl the same command resumes after an interruption, returns at once when nothing is left to do, and
    autoattack reuses the results of screen; F.examples/ has the result of each example. --data FOLDER evaluates on
    every data file in it. Several GPUs: torchrun --nproc-per-node=N -m bsk evaluate ...

        bsk evaluate runs/*.safetensors --attack natural,pgd-100 | bsk compare
        bsk evaluate bs.safetensors --attack autoattack --out results.jsonl
        bsk evaluate bs.safetensors --eps 2/255,4/255,8/255 --out results.jsonl
        bsk evaluate --model resnet18 --weights theirs.pt --dataset cifar10
        bsk evaluate bs.safetensors --data data/cifar10-c --attack natural
        bsk evaluate runs/*.safetensors --images adversarial.safetensors
    """
    load_torch(adapts_threads=True)
    from bsk.data.processes import local_device, process_group
    from bsk.evaluation.run import check_no_log, sweep
    from bsk.evaluation.settings import Request, code_of_each, each_data, subject_and_data

    network.check(checkpoints or [])
    CHOICES.kept = RESUME_HINT if out else "nothing was saved; with --out F.jsonl the same command would resume"
    if out is not None:
        check_no_log(out)
    where = local_device(device, threads)
    with process_group(where) as share:
        if images is None:
            request = Request(attack.split(","), flags, examples, where, share)
        else:
            _check_no_attack(attack, flags)
            request = Request.shown(images, examples, where, share)
        request.check()
        paths: list[Path | None] = [*_without_last(checkpoints, last)] if checkpoints else [None]
        codes = code_of_each([path for path in paths if path is not None], network) or [network]
        for (path, code), one in product(zip(paths, codes, strict=True), each_data(network)):
            works = request.of(*subject_and_data(path, replace(one, model=code.model), where))
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
                    progress.notices([f"{len(works)} radii: {seconds:.1f} s in total"])


def _check_no_attack(attack: str, flags: AttackFlags) -> None:
    """Raise a UsageError if an attack is requested together with saved adversarial images."""
    if attack != USUAL:
        raise UsageError(f"--attack {attack}: --images are adversarial already; leave one of the two out")
    if flags != AttackFlags():
        raise UsageError("--images: no attack is run; leave the flags of attacks out")


def _without_last(checkpoints: list[Path], last: bool) -> list[Path]:
    """Return the checkpoints without F.last.safetensors where F.safetensors is listed too, as by `runs/*`."""
    left_out = [path for path in checkpoints if path.name.endswith(LAST) and not last and _best(path) in checkpoints]
    if left_out:
        which = f"{len(left_out)} last-epoch checkpoints" if len(left_out) > 1 else left_out[0].name
        note(f"{which}: skipped in favour of the best epoch; pass --last to evaluate both")
    return [path for path in checkpoints if path not in left_out]


def _best(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(LAST) + ".safetensors")


@grouped
def attack(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CKPT", help="A checkpoint of bsk train.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, o.option("--out", metavar="F", help="F.safetensors; in 8 bits F.npz or a folder of PNGs.")
    ] = None,
    images: Annotated[
        Path | None, o.option("--images", metavar="F", help="Draw examples before and after, as F.png or F.svg.")
    ] = None,
    attack: o.Attacks = "pgd-100",
    target: Annotated[
        str | None,
        o.option(
            "--target",
            metavar="CLASS",
            help="fgsm, pgd, cw: target class by name or number, or random or least-likely.",
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

    F.safetensors has `images` (N, C, H, W), fp32 in [0, 1], with `labels`, `index` (position in the source) and
    `predictions`; its header has the printed record. With --target it has `target` too, and the record has the success
    rate. F.npz has uint8 images; a folder has CLASS/INDEX.png and images.jsonl. These 8-bit images are rounded
    within the ball and classified again; `rounded` in the record has the difference.

        bsk attack bs.safetensors --out adversarial.safetensors --images sheet.png
        bsk attack bs.safetensors --target least-likely --out targeted.safetensors
        bsk attack bs.safetensors --out pictures/
    """
    load_torch(adapts_threads=True)
    from bsk.evaluation.settings import Request, subject_and_data

    flags = replace(flags, target=target)
    out = _check_attack(attack, out, images, force, examples, flags)
    network.check([checkpoint] if checkpoint else [])
    request = Request([attack], flags, examples, chosen_device(device, threads))
    request.check()
    (work,) = request.of(*subject_and_data(checkpoint, network, request.device))
    shown = _write_images(work, out)
    if images is not None:
        _draw(images, work, attack, shown)


def _check_attack(
    attack: str, out: Path | None, images: Path | None, force: bool, examples: EvaluationFlags, flags: AttackFlags
) -> Path:
    """Return where the images go; raise an error for flags that `bsk attack` cannot take, or a file in the way."""
    from bsk.figures.canvas import checked_picture
    from bsk.records.headers import check_replaceable
    from bsk.records.pictures import TENSORS, checked_out

    if out is None:
        raise UsageError("attack: no --out; name F.safetensors, F.npz or a folder for the images")
    flags.check_whole()
    examples.check_one()
    if "," in attack:
        raise UsageError(f"--attack {attack}: expected one attack; run the command once for each")
    if checked_out(out).suffix == TENSORS:
        check_replaceable(out, "attack", force)
    elif out.is_file() and not force:
        raise InputError(f"{out}: exists; choose another --out, or pass --force")
    if images is not None:
        checked_picture(images, "--images")
    return out


def _write_images(work: Work, out: Path) -> dict[str, Any]:
    """Run the attack, write its images and print its record; return a few examples to draw."""
    from bsk.evaluation.run import attacked
    from bsk.records.locks import only_writer

    with only_writer(out), EvaluationProgress(work.subject.path.name, True) as progress:
        progress.notices(work.notices)
        record, shown = attacked(work.subject, work.attacks[0], work.settings, out, progress.show)
        with progress.aside():
            emit_record(record)
        progress.done(record)
    return shown


def _draw(path: Path, work: Work, attack: str, shown: dict[str, Any]) -> None:
    """Draw examples before and after the attack."""
    from bsk.figures.sheet import draw_sheet
    from bsk.records.words import plain

    given = work.settings
    title = f"{work.subject.path.name} under {attack}, eps {plain(given.eps)}, {given.data.name} {given.split}"
    for notice in draw_sheet(path, **shown, classes=given.data.classes, title=title):
        note(notice)
