"""From a model, data and attacks to records, one as soon as it is known, and nothing computed twice."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bsk.attacks.registry import Attack
from bsk.data.batches import to_unit
from bsk.data.processes import sum_over_processes
from bsk.data.store import Split, Stream
from bsk.errors import InputError
from bsk.evaluation.cache import Cache
from bsk.evaluation.diagnostics import Look, look_at
from bsk.evaluation.ledger import Block, Ledger
from bsk.evaluation.reports import evaluation_record, keys_of, verdict_tensors
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject, check_fit
from bsk.evaluation.verdicts import Examples, Hooks, Keep, Progress, exact, judge, steady
from bsk.records import jsonl as records
from bsk.records.checkpoints import Bulk

Watch = Callable[[Attack, Progress], None]
Found = TypeVar("Found")
NOT_LOOKED = Look({}, ())
TRIES = 10  # to read a file that others write


def evaluate(
    subject: Subject, attacks: Sequence[Attack], bench: EvaluationSettings, out: Path | None, watch: Watch
) -> Iterator[dict[str, Any]]:
    """Yield the record of each attack. With `out`, F.jsonl, it is appended there, unless it is there already.

    What an earlier evaluation found of the same stages is taken up, whether it came to its end or not: blocks are in
    `F.examples/`, and so is the verdict on each example in the end. Of several processes each yields the same records,
    and the first writes them.

    Raises:
        InputError: the model does not fit the data, or a file cannot be read or written.
    """
    examples = bench.data.stream(bench.split, bench.limit)
    check_fit(subject, bench.data, examples.shape)
    look: Look | None = None
    for attack in attacks:
        key, stage_keys = keys_of(subject, attack, bench, len(examples.labels))
        growing = Cache(out, key, stage_keys) if out is not None else None
        record = _agreed(growing.finished, bench) if growing else None
        one = growing is not None and record is None and bench.share.world == 1
        with growing.alone() if growing and one else contextlib.nullcontext():
            record = growing.finished() if growing and one else record  # another may have been faster
            if record is None:
                ledger = _judge(subject, attack, bench, examples, watch, growing)
                if attack.name != "natural" and look is None:
                    look = _look(subject, bench, examples, attacks)
                seen = look if look is not None and attack.name != "natural" else NOT_LOOKED
                record = evaluation_record(subject, attack, ledger, examples, bench, seen, key)
                if growing and bench.share.rank == 0:
                    stages = [stage.name for stage in attack.stages]
                    growing.finish(record, verdict_tensors(ledger, examples), {"attack": attack.name, "stages": stages})
            elif growing and bench.share.rank == 0:
                growing.clean()
        yield record


def check_no_log(out: Path) -> None:
    """Refuse the log of a training: it is locked while that runs, and cut when it goes on.

    Raises:
        InputError: it is one, or it cannot be read.
    """
    if out.exists() and any(record.get("kind") == "start" for record in records.read(out, most=1)):
        raise InputError(f"{out}: is the log of a training; choose another --out")


def _judge(
    subject: Subject,
    attack: Attack,
    bench: EvaluationSettings,
    examples: Examples,
    watch: Watch,
    growing: Cache | None = None,
    keep: Keep | None = None,
) -> Ledger:
    known: list[Block] = []
    hooks = Hooks(watch=lambda progress: watch(attack, progress), keep=keep)
    if growing:
        known = _agreed(lambda: growing.blocks(len(examples.labels)), bench)
        hooks = replace(hooks, grow=growing.grow)
    return judge(
        subject.model,
        examples,
        attack,
        eps=bench.eps,
        seed=bench.seed,
        batch_size=bench.batch_size,
        device=bench.device,
        known=known,
        share=bench.share,
        hooks=hooks,
    )


def _look(subject: Subject, bench: EvaluationSettings, examples: Examples, attacks: Sequence[Attack]) -> Look:
    if not bench.checks or all(attack.name == "natural" for attack in attacks):
        return NOT_LOOKED
    l2 = any(stage.parameters.get("norm") == "l2" for attack in attacks for stage in attack.stages)
    eps = bench.data.eps if l2 else bench.eps  # the signs are looked for within a Linf ball
    return look_at(subject.model, examples, eps=eps, seed=bench.seed, device=bench.device, share=bench.share)


def _agreed(read: Callable[[], Found], bench: EvaluationSettings) -> Found:
    """Return what a file holds, when all processes have read the same; nobody writes before all have read.

    Raises:
        InputError: they do not, again and again: another evaluation writes there, or the disks are not shared.
    """
    for _ in range(TRIES):
        found = read()
        if bench.share.world == 1:
            return found
        digest = int.from_bytes(hashlib.sha256(repr(found).encode()).digest()[:6], "little")
        mine = torch.zeros(bench.share.world, dtype=torch.float64, device=bench.device)
        mine[bench.share.rank] = digest
        if bool((sum_over_processes(mine, bench.share) == digest).all()):
            return found
    raise InputError("the processes read different --out files; give them one disk, and no other evaluation in it")


def perturbed(subject: Subject, attack: Attack, bench: EvaluationSettings, watch: Watch) -> Tensor:
    """Return the adversarial images of one attack, (N, C, H, W) fp32 in [0, 1], on the CPU.

    An example that several stages met has the image of the last.

    Raises:
        InputError: the model does not fit the data.
    """
    examples = bench.data.stream(bench.split, bench.limit)
    check_fit(subject, bench.data, examples.shape)
    images = torch.empty(len(examples.labels), *examples.shape)

    def keep(rows: Tensor, x_adv: Tensor, predicted: Tensor) -> None:
        images[rows] = x_adv

    _judge(subject, attack, bench, examples, watch, keep=keep)
    return images


@dataclass(frozen=True)
class Shown:
    """A few examples of an attack, those first that it fooled and that were classified right before: (K, ...)."""

    clean: Tensor
    adversarial: Tensor
    labels: Tensor
    before: Tensor
    after: Tensor


def attacked(
    subject: Subject, attack: Attack, bench: EvaluationSettings, out: Path, watch: Watch, show: int = 8
) -> tuple[dict[str, Any], Shown]:
    """Write the adversarial images of one attack to `out`; return its record, and up to `show` examples to look at.

    The file has `images` (N, C, H, W) fp32 in [0, 1], `labels`, `index` and `predictions`; an example that
    several stages met has the image of the last. Images go to the disk as they come.

    Raises:
        InputError: the model does not fit the data, or the file cannot be written.
    """
    examples = bench.data.stream(bench.split, bench.limit)
    check_fit(subject, bench.data, examples.shape)
    predictions = torch.zeros_like(examples.labels)
    key, _ = keys_of(subject, attack, bench, len(examples.labels))
    with Bulk(out) as bulk:

        def keep(rows: Tensor, images: Tensor, predicted: Tensor) -> None:
            bulk.put(rows, images)
            predictions[rows] = predicted

        ledger = _judge(subject, attack, bench, examples, watch, keep=keep)
        look = _look(subject, bench, examples, [attack])
        record = evaluation_record(subject, attack, ledger, examples, bench, look, key)
        record = {**record, "kind": "attack", "out": str(out)}
        fooled = ledger.broken_by >= int(attack.stages[0].name == "natural")
        shown = _shown(subject, examples, predictions, fooled, bulk, show, bench.device)
        tensors = {"labels": examples.labels, "index": examples.index, "predictions": predictions}
        bulk.save("images", [len(predictions), *examples.shape], tensors, record)
    return record, shown


def _shown(
    subject: Subject,
    examples: Stream | Split,
    predictions: Tensor,
    fooled: Tensor,
    bulk: Bulk,
    most: int,
    device: torch.device,
) -> Shown:
    rows = torch.argsort((~fooled).int(), stable=True)[:most]
    clean = to_unit(examples.take(rows))
    with exact(subject.model), torch.no_grad():
        before = steady(subject.model)(clean.to(device)).argmax(dim=1).cpu()
    return Shown(clean, bulk.take(rows, examples.shape), examples.labels[rows], before, predictions[rows])
