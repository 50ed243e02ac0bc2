"""The verdict of an attack on each example, stage by stage and block by block."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bsk.attacks.outcome import NotFiniteError, Outcome
from bsk.attacks.registry import Attack, Stage
from bsk.attacks.search import Search
from bsk.compat import compiling
from bsk.data.batches import WHOLE, Share, to_unit
from bsk.data.processes import sum_over_processes
from bsk.data.store import Split, Stream
from bsk.errors import InputError
from bsk.evaluation.calls import LEAST, SIZES, Checked, counted, exact, rough, rows_within, steady
from bsk.evaluation.ledger import NOWHERE, Block, Ledger, StageResult
from bsk.evaluation.radii import Before
from bsk.evaluation.rounds import begun, rounds
from bsk.evaluation.threads import shared_threads
from bsk.models.compiled import Compiled
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length
from bsk.perturb.draws import example_draws, own_randomness

Examples = Split | Stream
Keep = Callable[[Tensor, Outcome, Tensor], None]
BLOCK_BYTES, FP32 = 1 << 25, 4  # images of a block, at most, unless one call has more; an attack holds some ten copies
CHECKS = "checks"  # the stage that examines the model, in `Progress`


@dataclass(frozen=True)
class Progress:
    """The progress of an evaluation.

    Attributes:
        stage: the stage that runs.
        standing: number of examples that no stage has broken.
        n: number of examples.
        done, total: forward and backward passes; an estimate over all stages of the attack, or those of CHECKS.
        ended: whether the stage has ended.
        sample: number of examples that the stage meets, if these are not all standing ones.
        notice: a line for the user; the other fields are then meaningless.
    """

    stage: str
    standing: int
    n: int
    done: int
    total: int
    ended: bool = False
    sample: int | None = None
    notice: str = ""


def judge(
    model: nn.Module,
    examples: Examples,
    attack: Attack,
    *,
    eps: float,
    seed: int,
    batch_size: int,
    device: torch.device,
    known: Sequence[Block] = (),
    share: Share = WHOLE,
    compiled: Compiled | None = None,
    grow: Callable[[Block], None] | None = None,
    keep: Keep | None = None,
    before: Before | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Ledger:
    """Attack every example, and return the verdicts; each stage meets the examples that still stand.

    The model is in eval mode and the verdict is computed in fp32. It depends on the seed, the stage and the index of
    the example in the data alone: not on the batch size, the order, the limit, the number of processes, or on results
    `known` from an earlier run. That is so to the bit on a CPU; a GPU's kernels may round batches of other sizes
    differently, which can turn the verdict on an image at the boundary.

    Random numbers that a model draws itself, from torch's global generators, depend on the seed, the stage and the
    index of the first example in the block: they repeat for the same batch size and number of processes.

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits.
        examples: images and labels.
        attack: its stages run in order.
        eps: radius for pixels in [0, 1].
        seed: of the random numbers.
        batch_size: rows of a model call.
        device: where the model is.
        known: blocks of an earlier run.
        share: the part of the examples that this process takes.
        compiled: compiled passes for the search of an attack; the model itself, uncompiled, gives the verdict, because
            the last bits of compiled passes differ.
        grow: called with each new block.
        keep: called for each block of each stage with rows (K,), the outcome, and predictions (K,).
        before: verdicts at other radii; examples that these decide are not attacked again.
        watch: called with the progress as a stage begins, within its blocks and after each.

    Raises:
        InputError: the model returns NaN or infinity; the message names the example.
    """
    ledger, calls = Ledger(len(examples.labels), attack.whole), compiled.calls if compiled else 0
    if before is not None:
        ledger.carry(before.ledger, before.decided(eps), len(attack.stages))
    keeping = compiling() if compiled else contextlib.nullcontext()
    with keeping, exact(model), shared_threads(device, fixed=compiled is not None):
        for number in rounds(attack, ledger, known, examples.index, seed):
            stage = attack.stages[number]
            run = _Runner(model, examples, number, stage, eps, seed, batch_size, device, keep, compiled)
            found = StageResult(len(examples.labels))
            report = _Reporter(ledger, found, attack, number, share.world, watch)
            report()
            for block in _blocks(run, ledger, share, report):
                if grow is not None:
                    grow(block)
                found.add(block)
                report()
            ledger.add(found.together(number, share))
            if len(ledger.due(number)):
                raise InputError(f"{stage.name}: no process attacked {len(ledger.due(number))} examples")
            _Reporter(ledger, StageResult(0), attack, number, 1, watch)(ended=True)
    if compiled is not None:
        mine = torch.tensor([compiled.calls - calls, ledger.compile_seconds])
        calls, ledger.compile_seconds = sum_over_processes(mine, share).tolist()
        ledger.compiled = calls > 0
    return ledger


def _blocks(run: _Runner, ledger: Ledger, share: Share, report: Callable[[int], None]) -> Iterator[Block]:
    """Yield the results of this process's blocks of one stage, without the time of compilation."""
    due = ledger.due(run.number)
    blocks = [rows for rows in due.split(run.examples_of_a_block(len(due), share.world)) if len(rows)]
    for rows in blocks[share.rank :: share.world]:
        with own_randomness(run.device, run.seed, run.stage.name, int(run.examples.index[rows[0]])):
            block = run(rows, report)
        if run.compiled is not None:
            ledger.compile_seconds += (spent := run.compiled.spent())
            block = replace(block, seconds=block.seconds - spent)
        yield block


@dataclass(frozen=True)
class _Runner:
    """Runs one stage on blocks of examples."""

    model: nn.Module
    examples: Examples
    number: int
    stage: Stage
    eps: float
    seed: int
    batch_size: int
    device: torch.device
    keep: Keep | None
    compiled: Compiled | None

    @property
    def rows(self) -> int:
        """The rows of a call; twice as many in half precision, for the same memory."""
        return self.batch_size * (2 if self.stage.search != "fp32" and self.batch_size >= LEAST else 1)

    def examples_of_a_block(self, due: int, world: int) -> int:
        """Return the block size: the examples of one call, or of several if images are small."""
        most = max(self.rows, BLOCK_BYTES // (FP32 * math.prod(self.examples.shape)))
        calls = rows_within(self.rows) // self.stage.rows * self.stage.calls
        return max(1, min(calls, most, -(-due // world)))

    def __call__(self, rows: Tensor, tell: Callable[[int], None]) -> Block:
        start = time.perf_counter()
        x, outcome = self._attack(rows, lambda passes: tell(min(passes, len(rows) * self.stage.passes)))
        distance = outcome.distance
        if distance is None:
            norm = str(self.stage.parameters.get("norm", "linf"))
            away = length(outcome.x_adv - x, norm)
            distance = torch.where(outcome.fooled, away, torch.full_like(away, NOWHERE))
        if self.keep is not None:
            with torch.no_grad():
                predictions = steady(self.model, self.batch_size)(outcome.x_adv).argmax(dim=1)
            self.keep(rows, outcome, predictions.cpu())
        passes, seconds = (outcome.forward.cpu(), outcome.backward.cpu()), time.perf_counter() - start
        return Block(self.number, rows, outcome.fooled.cpu(), distance.float().cpu(), *passes, seconds)

    def _attack(self, rows: Tensor, tell: Callable[[int], None]) -> tuple[Tensor, Outcome]:
        """Attack some rows; if a logit is not finite, find the example by bisection."""
        x, y = to_unit(self.examples.take(rows).to(self.device)), self.examples.labels[rows].to(self.device)
        index: list[int] = self.examples.index[rows].tolist()
        draws = example_draws(self.seed, self.stage.name, index, self.device)
        checked = Checked(self.model)
        model: Model = counted(steady(checked, self.batch_size), tell)
        whole = (
            rows_within(self.rows) >= self.stage.rows
        )  # else the next part of a call would free the last one's graph
        compiled = self.compiled if self.stage.searches and whole else None
        if compiled or self.stage.search != "fp32":
            low = rough(compiled.frozen if compiled else self.model, self.stage.search)
            model = Search(counted(steady(low, self.rows, SIZES if compiled else None), tell), exact=model)
        try:
            outcome = self.stage(model, x, y, draws, self.eps, rows_within(self.rows), index)
            checked.settle()
            return x, outcome
        except NotFiniteError as error:
            if len(rows) == 1:
                raise InputError(
                    f"example {int(rows[0])} (index {index[0]}): the model returns NaN or infinity under "
                    f"{self.stage.name}; check the model and its input range"
                ) from error
            for half in rows.tensor_split(2):
                self._attack(half, tell)
            raise InputError(
                "the model returns NaN or infinity for some batches but for no single image; check the model"
            ) from error


@dataclass(frozen=True)
class _Reporter:
    """Reports the progress within one stage; an example that falls needs no further passes.

    Each process knows only its own blocks of this stage. Passes done and left assume that the others are equally far;
    `standing` counts only the examples known to have fallen.
    """

    ledger: Ledger
    found: StageResult
    attack: Attack
    number: int
    world: int
    watch: Callable[[Progress], None]

    def __call__(self, amid: int = 0, ended: bool = False) -> None:
        """Report passes done and left, `amid` passes into a block."""
        costs, due = [stage.passes for stage in self.attack.stages], len(self.ledger.due(self.number))
        cost, standing, fallen = costs[self.number], int(self.ledger.standing.sum()), int(self.found.fooled.sum())
        later = int((self.ledger.broken_by > self.number).sum())  # known to fall in a later stage
        met = min(due * cost, self.world * (int(self.found.met.sum()) * cost + amid))
        left = 0 if ended else due * cost - met
        left += sum(self._later(k, standing, fallen) * costs[k] for k in range(self.number + 1, len(costs)))
        done = met + sum(int((self.ledger.done > k).sum()) * each for k, each in enumerate(costs))
        name, n = self.attack.stages[self.number].name, len(self.ledger.done)
        sample = int(self.ledger.sample.sum()) if self.number >= self.attack.whole else None
        self.watch(Progress(name, standing + later - fallen, n, done, done + left, ended, sample))

    def _later(self, stage: int, standing: int, fallen: int) -> int:
        """Return how many examples a later stage will meet if no more fall before it."""
        if self.number >= self.attack.whole:
            standing = int((self.ledger.standing & self.ledger.sample).sum())
        rest = max(0, standing - self.world * fallen)
        if self.number < self.attack.whole <= stage:
            return begun(self.attack, len(self.ledger.done), rest).audited
        return rest
