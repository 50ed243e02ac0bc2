"""Run attacks on a model and yield one record each, as soon as it is known; nothing is computed twice."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bsk.attacks.flags import AUDIT
from bsk.attacks.outcome import Outcome
from bsk.attacks.registry import Attack
from bsk.data.batches import to_unit
from bsk.data.processes import sum_over_processes
from bsk.errors import InputError
from bsk.evaluation.cache import Cache
from bsk.evaluation.calls import exact, steady
from bsk.evaluation.diagnostics import ALONE, PARTS, Diagnostics, N, look_at
from bsk.evaluation.guessing import GuessCheck
from bsk.evaluation.ledger import Ledger
from bsk.evaluation.radii import Before, Radii
from bsk.evaluation.reports import evaluation_record, keys_of, of_targets
from bsk.evaluation.rounding import write_rounded
from bsk.evaluation.settings import EvaluationSettings, Work
from bsk.evaluation.subjects import Subject, check_fit
from bsk.evaluation.verdicts import CHECKS, Keep, Progress, judge
from bsk.models.compiled import Compiled, compiles
from bsk.plugins import is_plugin
from bsk.records import jsonl as records
from bsk.records.checkpoints import Bulk
from bsk.records.pictures import TENSORS, check_channels

Watch = Callable[[Attack, Progress], None]
T = TypeVar("T")
NOT_EXAMINED = Diagnostics({}, ())
_OF_AUTOATTACK = ("outputs", "gradients")  # its stages are stronger than the attacks of the checks
BESIDE = {"natural": ("outputs",), "autoattack": _OF_AUTOATTACK, AUDIT: _OF_AUTOATTACK}
SHORT = {"outputs": 0.2, "gradients": 0.1, "attacks": 2.0}  # seconds up to a part that are always allowed
SHARE, SHARE_OF_LONG = 0.17, 0.02  # of the attack's passes; measured as less than a quarter of its time
STANDING = 0.5  # assumed share of examples that an attack meets, which is not known beforehand
TRIES = 10  # to read a file while other processes write it


def sweep(works: Sequence[Work], out: Path | None, watch: Watch) -> Iterator[dict[str, Any]]:
    """Yield the records of a model at several radii, in ascending or descending order; see `evaluate`.

    Where the attack `nests`, an example that the verdict before decides (`Before`) is not attacked again. The model is
    examined once, at the largest radius.
    """
    radii = Radii(max(work.settings.eps for work in works)) if len(works) > 1 else None
    for work in works:
        yield from evaluate(work.subject, work.attacks, work.settings, out, watch, radii)


def evaluate(
    subject: Subject,
    attacks: Sequence[Attack],
    settings: EvaluationSettings,
    out: Path | None,
    watch: Watch,
    radii: Radii | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the record of each attack, and append it to `out`, F.jsonl, unless it is there already.

    Results of earlier evaluations with the same stages are reused, whether they finished or not: blocks are in
    `F.examples/`, and finally the verdict on each example. All processes yield the same records; the first writes them.

    Args:
        subject: the model.
        attacks: the attacks, one record each.
        settings: the examples, the radius, and how to run.
        out: F.jsonl, or None to write nothing.
        watch: called with the attack and its progress.
        radii: what evaluations at several radii share; the verdicts at this radius are added to it.

    Raises:
        InputError: the model does not fit the data, or a file cannot be read or written.
    """
    work = _Evaluation(subject, settings, watch, radii)
    for attack in attacks:
        before = radii.before.get(attack.name) if radii else None
        others = before.radii if before else ()
        key, stage_keys = keys_of(subject, attack, settings, len(work.examples.labels), others)
        cache = Cache(out, key, stage_keys) if out is not None else None
        find = partial(work.judge, attack, cache, before=before)
        record = _agreed(cache.finished, settings) if cache else None
        one = cache is not None and record is None and settings.share.world == 1
        with cache.alone() if cache and one else contextlib.nullcontext():
            record = cache.finished() if cache and one else record  # another process may have finished first
            if record is None:
                ledger = find()
                find = partial(lambda found: found, ledger)
                record = work.record(attack, ledger, key, others)
                work.save(attack, ledger, cache, record)
            elif cache and settings.share.rank == 0:
                cache.clean()
        if radii is not None and attack.nests:
            radii.before[attack.name] = Before((*others, settings.eps), find)
        yield record


def check_no_log(out: Path) -> None:
    """Raise an InputError for a training log: it is locked during training and truncated on resume."""
    if out.exists() and any(record.get("kind") == "start" for record in records.read(out, most=1)):
        raise InputError(f"{out}: is a training log; choose another --out")


class _Evaluation:
    """A model and its examples, for one attack after another.

    Raises:
        InputError: the model does not fit the data.
    """

    def __init__(
        self, subject: Subject, settings: EvaluationSettings, watch: Watch, radii: Radii | None = None
    ) -> None:
        self.subject, self.settings, self.watch = subject, settings, watch
        self.radii = radii or Radii(settings.eps)
        self.examined_before = bool(self.radii.examined)  # in the evaluation at another radius
        self.examples = settings.data.stream(settings.split, settings.limit)
        self.guess_check = GuessCheck(subject, settings)
        self.compiled: Compiled | None = None
        check_fit(subject, settings.data, self.examples.shape)

    def judge(
        self, attack: Attack, cache: Cache | None = None, keep: Keep | None = None, before: Before | None = None
    ) -> Ledger:
        """Return the verdicts under an attack; results in the cache or from other radii are reused."""
        at, n = self.settings, len(self.examples.labels)
        return judge(
            self.subject.model,
            self.examples,
            attack,
            eps=at.eps,
            seed=at.seed,
            batch_size=at.batch_size,
            device=at.device,
            known=[] if cache is None else _agreed(lambda: cache.blocks(n), at),
            share=at.share,
            compiled=self._compiled(attack),
            grow=None if cache is None else cache.grow,
            keep=keep,
            before=before,
            watch=lambda progress: self.watch(attack, progress),
        )

    def record(self, attack: Attack, ledger: Ledger, key: str, radii: Sequence[float] = ()) -> dict[str, Any]:
        """Return the record of an attack, after examining the model."""
        diagnostics = self.examine(attack, ledger)
        return evaluation_record(self.subject, attack, ledger, self.examples, self.settings, diagnostics, key, radii)

    def save(self, attack: Attack, ledger: Ledger, cache: Cache | None, record: dict[str, Any]) -> None:
        """Write the verdicts and the record of an attack, in the first process."""
        if cache is None or self.settings.share.rank != 0:
            return
        tensors = {"labels": self.examples.labels, "index": self.examples.index, **ledger.columns()}
        cache.finish(record, tensors, {"attack": attack.name, "stages": [stage.name for stage in attack.stages]})

    def _compiled(self, attack: Attack) -> Compiled | None:
        """Return the compiled passes of the network if the settings ask for them, or with auto if they save time.

        With auto only bsk's own networks are compiled: others may use what torch.compile does not support. On a CPU
        nothing is compiled: calls would need full batches, and were 1.4 to 5 times slower (docs/speed.md).
        """
        at, header, stages = self.settings, self.subject.header, [each for each in attack.stages if each.searches]
        outside = header.get("kind") == "live" or is_plugin(str(header.get("model")))
        unfit = outside or at.share.world > 1 or at.device.type == "cpu"
        if not stages or (at.compile == "auto" and unfit):
            return None
        passes = STANDING * len(self.examples.labels) * sum(stage.passes for stage in stages)
        if not compiles(at.compile, self.subject.model, self.examples.shape, passes, at.device):
            return None
        if self.compiled is None:
            n = len(self.examples.labels)

            def tell(text: str) -> None:
                self.watch(attack, Progress("", n, n, 0, 1, notice=text))

            self.compiled = Compiled(self.subject.model, None, at.device, tell, searches=True)
        return self.compiled

    def examine(self, attack: Attack, ledger: Ledger) -> Diagnostics:
        """Examine the model within a budget that depends on the attack; a complete earlier result is reused."""
        return self.guess_check.added_to(self._examined(attack, ledger), attack, ledger)

    def _examined(self, attack: Attack, ledger: Ledger) -> Diagnostics:
        if not self.settings.checks:
            return NOT_EXAMINED
        shown = any(stage.by_index for stage in attack.stages)  # saved images: masked gradients cannot hamper these
        parts = ("outputs",) if shown else BESIDE.get(attack.name, tuple(PARTS))
        search = next((each.search for each in attack.stages if each.search != "fp32"), "fp32")
        seen, what = self.radii.examined, (*parts, search)
        if what in seen and (self.examined_before or "left_out" not in seen[what].facts):
            return self.radii.told(what, self.settings.eps)
        at, standing, n = self.settings, int(ledger.standing.sum()), len(ledger.done)
        other = any(stage.parameters.get("norm", "linf") != "linf" for stage in attack.stages)
        seen[what] = look_at(
            self.subject.model,
            self.examples,
            eps=at.data.eps if other else self.radii.largest,  # the checks use a Linf ball
            seed=at.seed,
            device=at.device,
            batch_size=at.batch_size,
            parts=parts,
            passes=_allowed(attack, ledger, parts),
            search=search,
            share=at.share,
            watch=lambda done, total: self.watch(attack, Progress(CHECKS, standing, n, done, total)),
        )
        return self.radii.told(what, at.eps)


def _allowed(attack: Attack, ledger: Ledger, parts: Sequence[str]) -> int:
    """Return the budget of passes of the examination: a share of the attack's, or the parts that stay within SHORT.

    With autoattack it is the share alone.
    """
    work = int(ledger.forward.sum() + ledger.backward.sum())
    if attack.name.startswith("autoattack"):
        return int(SHARE_OF_LONG * work)
    costs = zip(parts, (ALONE + N * each for each in accumulate(PARTS[part] for part in parts)), strict=True)
    return max([int(SHARE * work), *(cost for part, cost in costs if cost * ledger.pace <= SHORT[part])])


def _agreed(read: Callable[[], T], settings: EvaluationSettings) -> T:
    """Return what `read` returns once all processes have read the same; no process writes before that.

    Raises:
        InputError: the results still differ after TRIES: another evaluation writes there, or the disk is not shared.
    """
    for _ in range(TRIES):
        found = read()
        if settings.share.world == 1:
            return found
        digest = int.from_bytes(hashlib.sha256(repr(found).encode()).digest()[:6], "little")
        mine = torch.zeros(settings.share.world, dtype=torch.float64)
        mine[settings.share.rank] = digest
        if bool((sum_over_processes(mine, settings.share) == digest).all()):
            return found
    raise InputError(
        "the processes read different --out files; use a shared disk, and run no other evaluation on that file"
    )


def perturbed(subject: Subject, attack: Attack, settings: EvaluationSettings, watch: Watch) -> Tensor:
    """Return the adversarial images of one attack, (N, C, H, W) fp32 in [0, 1], on the CPU.

    An example that several stages attacked has the image of the last stage.

    Raises:
        InputError: the model does not fit the data.
    """
    work = _Evaluation(subject, settings, watch)
    examples = work.examples
    images = torch.empty(len(examples.labels), *examples.shape)

    def keep(rows: Tensor, outcome: Outcome, predicted: Tensor) -> None:
        images[rows] = outcome.x_adv.cpu()

    work.judge(attack, keep=keep)
    return images


def attacked(
    subject: Subject, attack: Attack, settings: EvaluationSettings, out: Path, watch: Watch, show: int = 8
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the adversarial images of one attack to `out`; return its record and up to `show` examples to draw.

    F.safetensors has `images` (N, C, H, W) fp32 in [0, 1], `labels`, `index`, `predictions`, and `target` if there is
    one. An example that several stages attacked has the image of the last stage. Images are written to disk as they
    are computed. F.npz, or a folder of PNGs, has 8-bit images with the predictions on these; the record has both
    accuracies. The examples to draw are the arrays that `bsk.figures.sheet.draw_sheet` takes, with those first that
    were fooled, or reached their target.

    Raises:
        InputError: the model does not fit the data, or the file cannot be written.
    """
    work = _Evaluation(subject, settings, watch)
    examples = work.examples
    check_channels(out, examples.shape[0])
    predictions, targets = torch.zeros_like(examples.labels), torch.zeros_like(examples.labels)
    key, _ = keys_of(subject, attack, settings, len(examples.labels))
    with Bulk(out) as bulk:

        def keep(rows: Tensor, outcome: Outcome, predicted: Tensor) -> None:
            bulk.put(rows, outcome.x_adv)
            predictions[rows] = predicted
            if outcome.target is not None:
                targets[rows] = outcome.target.cpu()

        ledger = work.judge(attack, keep=keep)
        record = work.record(attack, ledger, key)
        targeted = "target" in attack.parameters
        more = of_targets(attack, examples.labels, predictions, targets, settings.data.classes) if targeted else {}
        record = {**record, **more, "kind": "attack", "out": str(out)}
        fooled = ledger.broken_by >= int(attack.stages[0].name == "natural")
        rows = torch.argsort((~fooled).int(), stable=True)[:show]
        clean = to_unit(examples.take(rows))
        with exact(subject.model), torch.no_grad():
            before = steady(subject.model, settings.batch_size)(clean.to(settings.device)).argmax(dim=1).cpu()
        adversarial = bulk.take(rows, examples.shape)
        tensors = {"labels": examples.labels, "index": examples.index, "predictions": predictions}
        tensors |= {"target": targets} if targeted else {}
        if out.suffix == TENSORS:
            bulk.save("images", [len(predictions), *examples.shape], tensors, record)
        else:
            record = write_rounded(subject, attack, settings, examples, bulk, tensors, record)
    shown = {"clean": clean, "adversarial": adversarial, "labels": examples.labels[rows], "before": before}
    return record, {name: tensor.numpy() for name, tensor in {**shown, "after": predictions[rows]}.items()}
