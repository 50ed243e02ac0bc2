"""From a model, data and attacks to records, one as soon as it is known, and nothing computed twice."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bsk.attacks.registry import Attack
from bsk.data.batches import to_unit
from bsk.data.processes import sum_over_processes
from bsk.errors import InputError
from bsk.evaluation.cache import Cache
from bsk.evaluation.calls import exact, steady
from bsk.evaluation.diagnostics import SHORT, WHOLE_COST, Diagnostics, N, look_at
from bsk.evaluation.guessing import Suspicion
from bsk.evaluation.ledger import Ledger
from bsk.evaluation.reports import evaluation_record, keys_of
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject, check_fit
from bsk.evaluation.verdicts import Examples, Keep, Progress, judge
from bsk.records import jsonl as records
from bsk.records.checkpoints import Bulk

Watch = Callable[[Attack, Progress], None]
T = TypeVar("T")
NOT_EXAMINED = Diagnostics({}, ())
TRIES = 10  # to read a file that others write


def evaluate(
    subject: Subject, attacks: Sequence[Attack], settings: EvaluationSettings, out: Path | None, watch: Watch
) -> Iterator[dict[str, Any]]:
    """Yield the record of each attack. With `out`, F.jsonl, it is appended there, unless it is there already.

    What an earlier evaluation found of the same stages is taken up, whether it came to its end or not: blocks are in
    `F.examples/`, and so is the verdict on each example in the end. Of several processes each yields the same records,
    and the first writes them.

    Raises:
        InputError: the model does not fit the data, or a file cannot be read or written.
    """
    examples = settings.data.stream(settings.split, settings.limit)
    check_fit(subject, settings.data, examples.shape)
    seen: dict[bool, Diagnostics] = {}
    guess = Suspicion(subject, settings)
    for attack in attacks:
        key, stage_keys = keys_of(subject, attack, settings, len(examples.labels))
        cache = Cache(out, key, stage_keys) if out is not None else None
        record = _agreed(cache.finished, settings) if cache else None
        one = cache is not None and record is None and settings.share.world == 1
        with cache.alone() if cache and one else contextlib.nullcontext():
            record = cache.finished() if cache and one else record  # another may have been faster
            if record is None:
                ledger = _judge(subject, attack, settings, examples, watch, cache)
                diagnostics = _examined(subject, settings, examples, attacks, attack, ledger, seen)
                diagnostics = guess.beside(diagnostics, attack, ledger)
                record = evaluation_record(subject, attack, ledger, examples, settings, diagnostics, key)
                if cache and settings.share.rank == 0:
                    stages = [stage.name for stage in attack.stages]
                    tensors = {"labels": examples.labels, "index": examples.index, **ledger.columns()}
                    cache.finish(record, tensors, {"attack": attack.name, "stages": stages})
            elif cache and settings.share.rank == 0:
                cache.clean()
        yield record


def check_no_log(out: Path) -> None:
    """Raise an InputError for the log of a training: it is locked while that runs, and cut when it goes on."""
    if out.exists() and any(record.get("kind") == "start" for record in records.read(out, most=1)):
        raise InputError(f"{out}: is the log of a training; choose another --out")


def _judge(
    subject: Subject,
    attack: Attack,
    settings: EvaluationSettings,
    examples: Examples,
    watch: Watch,
    cache: Cache | None = None,
    keep: Keep | None = None,
) -> Ledger:
    known = [] if cache is None else _agreed(lambda: cache.blocks(len(examples.labels)), settings)
    return judge(
        subject.model,
        examples,
        attack,
        eps=settings.eps,
        seed=settings.seed,
        batch_size=settings.batch_size,
        device=settings.device,
        known=known,
        share=settings.share,
        grow=None if cache is None else cache.grow,
        keep=keep,
        watch=lambda progress: watch(attack, progress),
    )


def _examined(
    subject: Subject,
    settings: EvaluationSettings,
    examples: Examples,
    attacks: Sequence[Attack],
    attack: Attack,
    ledger: Ledger,
    seen: dict[bool, Diagnostics],
) -> Diagnostics:
    """Examine the model as far as it pays beside an attack, or take what was `seen` if that left nothing out.

    It takes at most a quarter of the attack's passes, or 10 seconds. Beside the natural attack it looks at outputs.
    """
    if not settings.checks:
        return NOT_EXAMINED
    natural = attack.name == "natural"
    known = seen.get(natural)
    if known is not None and "left_out" not in known.facts:
        return known
    l2 = any(stage.parameters.get("norm") == "l2" for attack in attacks for stage in attack.stages)
    eps = settings.data.eps if l2 else settings.eps  # the signs are looked for within a Linf ball
    work = float(ledger.forward.sum() + 2 * ledger.backward.sum())
    whole = (2 if natural else WHOLE_COST) * N * ledger.seconds <= SHORT * work
    seen[natural] = look_at(
        subject.model,
        examples,
        eps=0 if natural else eps,
        seed=settings.seed,
        device=settings.device,
        batch_size=settings.batch_size,
        passes=math.inf if whole else work / 4,
        share=settings.share,
    )
    return seen[natural]


def _agreed(read: Callable[[], T], settings: EvaluationSettings) -> T:
    """Return what a file holds, when all processes have read the same; nobody writes before all have read.

    Raises:
        InputError: they do not, again and again: another evaluation writes there, or the disks are not shared.
    """
    for _ in range(TRIES):
        found = read()
        if settings.share.world == 1:
            return found
        digest = int.from_bytes(hashlib.sha256(repr(found).encode()).digest()[:6], "little")
        mine = torch.zeros(settings.share.world, dtype=torch.float64, device=settings.device)
        mine[settings.share.rank] = digest
        if bool((sum_over_processes(mine, settings.share) == digest).all()):
            return found
    raise InputError("the processes read different --out files; give them one disk, and no other evaluation in it")


def perturbed(subject: Subject, attack: Attack, settings: EvaluationSettings, watch: Watch) -> Tensor:
    """Return the adversarial images of one attack, (N, C, H, W) fp32 in [0, 1], on the CPU.

    An example that several stages met has the image of the last.

    Raises:
        InputError: the model does not fit the data.
    """
    examples = settings.data.stream(settings.split, settings.limit)
    check_fit(subject, settings.data, examples.shape)
    images = torch.empty(len(examples.labels), *examples.shape)

    def keep(rows: Tensor, x_adv: Tensor, predicted: Tensor) -> None:
        images[rows] = x_adv

    _judge(subject, attack, settings, examples, watch, keep=keep)
    return images


def attacked(
    subject: Subject, attack: Attack, settings: EvaluationSettings, out: Path, watch: Watch, show: int = 8
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the adversarial images of one attack to `out`; return its record, and up to `show` examples to look at.

    The file has `images` (N, C, H, W) fp32 in [0, 1], `labels`, `index` and `predictions`; an example that
    several stages met has the image of the last. Images go to the disk as they come. The examples are arrays by the
    names of `bsk.figures.sheet.draw_sheet`; those come first that were fooled and classified right before.

    Raises:
        InputError: the model does not fit the data, or the file cannot be written.
    """
    examples = settings.data.stream(settings.split, settings.limit)
    check_fit(subject, settings.data, examples.shape)
    predictions = torch.zeros_like(examples.labels)
    key, _ = keys_of(subject, attack, settings, len(examples.labels))
    with Bulk(out) as bulk:

        def keep(rows: Tensor, images: Tensor, predicted: Tensor) -> None:
            bulk.put(rows, images)
            predictions[rows] = predicted

        ledger = _judge(subject, attack, settings, examples, watch, keep=keep)
        diagnostics = _examined(subject, settings, examples, [attack], attack, ledger, {})
        diagnostics = Suspicion(subject, settings).beside(diagnostics, attack, ledger)
        record = evaluation_record(subject, attack, ledger, examples, settings, diagnostics, key)
        record = {**record, "kind": "attack", "out": str(out)}
        fooled = ledger.broken_by >= int(attack.stages[0].name == "natural")
        rows = torch.argsort((~fooled).int(), stable=True)[:show]
        clean = to_unit(examples.take(rows))
        with exact(subject.model), torch.no_grad():
            before = steady(subject.model, settings.batch_size)(clean.to(settings.device)).argmax(dim=1).cpu()
        adversarial = bulk.take(rows, examples.shape)
        tensors = {"labels": examples.labels, "index": examples.index, "predictions": predictions}
        bulk.save("images", [len(predictions), *examples.shape], tensors, record)
    shown = {"clean": clean, "adversarial": adversarial, "labels": examples.labels[rows], "before": before}
    return record, {name: tensor.numpy() for name, tensor in {**shown, "after": predictions[rows]}.items()}
