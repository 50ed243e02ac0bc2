"""Which examples survive which attack: stage by stage, block by block, each example for itself."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
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
from bsk.evaluation.rounds import begun, rounds
from bsk.evaluation.threads import shared_threads
from bsk.models.compiled import Compiled
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length
from bsk.perturb.draws import example_draws, own_randomness

Examples = Split | Stream
Keep = Callable[[Tensor, Outcome, Tensor], None]
BLOCK_BYTES, FP32 = 1 << 25, 4  # of a block's images, where that is more than a call's; some ten copies come of it
CHECKS = "checks"  # the name of the stage that examines the model


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: the stage that runs, and how many examples stand.

    `done` and `total` count passes, forward and backward: of all stages of an attack, as far as can be told, or those
    of the stage CHECKS. `sample` is how many examples the stage is for, where it is not for all that stand.
    `notice` is a line that the user should hear, with nothing of how far it is.
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
    smaller: Ledger | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Ledger:
    """Attack every example, with the model in eval mode, and judge it in fp32; each stage meets what still stands.

    The verdict on an example depends on (seed, stage, its index in the data) and on nothing beside it: not on the
    batch size, the order, the limit, the number of processes, or on what was `known` from an earlier run.
    `batch_size` is in rows of a model call. What a model draws itself, from torch's global generators, depends on
    (seed, stage, index of the block's first example): it is the same again for the same batch size and processes.

    Where the passes are `compiled`, attacks search through these, and the model judges each claim as it is: the last
    bits of compiled passes are their own, as those of another device.

    Examples that have fallen to the same attack at a `smaller` radius are not asked again.

    `grow` is given every block as it is known, `keep` rows (K,), what was found and predictions (K,) of each block of
    each stage, and `watch` is told how far it is: as a stage begins, amid its blocks and after each.

    Raises:
        InputError: the model returns a number that is not finite; the example is named.
    """
    ledger, calls = Ledger(len(examples.labels), attack.whole), compiled.calls if compiled else 0
    if smaller is not None:
        ledger.carry(smaller, len(attack.stages))
    keeping = compiling() if compiled else contextlib.nullcontext()
    with keeping, exact(model), shared_threads(device, fixed=compiled is not None):
        for number in rounds(attack, ledger, known, examples.index, seed):
            stage = attack.stages[number]
            run = _Runner(model, examples, number, stage, eps, seed, batch_size, device, keep, compiled)
            due = ledger.due(number)
            blocks = [rows for rows in due.split(run.examples_of_a_block(len(due), share.world)) if len(rows)]
            found = StageResult(len(examples.labels))
            tell = _Teller(ledger, found, attack, number, share.world, watch)
            tell()
            for rows in blocks[share.rank :: share.world]:
                with own_randomness(device, seed, stage.name, int(examples.index[rows[0]])):
                    block = run(rows, tell)
                if compiled is not None:
                    ledger.compile_seconds += (spent := compiled.spent())
                    block = replace(block, seconds=block.seconds - spent)
                if grow is not None:
                    grow(block)
                found.add(block)
                tell()
            ledger.add(found.together(number, share, device))
            if len(ledger.due(number)):
                raise InputError(f"{stage.name}: {len(ledger.due(number))} examples were attacked by no process")
            _Teller(ledger, StageResult(0), attack, number, 1, watch)(ended=True)
    if compiled is not None:
        mine = torch.tensor([compiled.calls - calls, ledger.compile_seconds], device=device)
        calls, ledger.compile_seconds = sum_over_processes(mine, share).tolist()
        ledger.compiled = calls > 0
    return ledger


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
        """The rows of a call: in half precision twice as many, in the same memory."""
        return self.batch_size * (2 if self.stage.search != "fp32" and self.batch_size >= LEAST else 1)

    def examples_of_a_block(self, due: int, world: int) -> int:
        """Return how many of the examples due are attacked at a time: a call's, or several's if images are small."""
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
        """Attack some rows; if the model returns NaN for one of them, find out for which."""
        x, y = to_unit(self.examples.take(rows).to(self.device)), self.examples.labels[rows].to(self.device)
        index: list[int] = self.examples.index[rows].tolist()
        draws = example_draws(self.seed, self.stage.name, index, self.device)
        checked = Checked(self.model)
        model: Model = counted(steady(checked, self.batch_size), tell)
        compiled = self.compiled if self.stage.searches else None
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
                    f"{self.stage.name}; no attack can judge that"
                ) from error
            for half in rows.tensor_split(2):
                self._attack(half, tell)
            raise InputError("the model returns NaN or infinity for some images, only in company") from error


@dataclass(frozen=True)
class _Teller:
    """Tells how far an evaluation is in one stage; an example that falls leaves nothing more to do.

    Of several processes each knows its own blocks of this stage: what is done and left takes the others to be as far,
    `standing` counts nobody as fallen who may stand.
    """

    ledger: Ledger
    found: StageResult
    attack: Attack
    number: int
    world: int
    watch: Callable[[Progress], None]

    def __call__(self, amid: int = 0, ended: bool = False) -> None:
        """Count what is done and what is left, `amid` passes into a block."""
        costs, due = [stage.passes for stage in self.attack.stages], len(self.ledger.due(self.number))
        cost, standing, fallen = costs[self.number], int(self.ledger.standing.sum()), int(self.found.fooled.sum())
        met = min(due * cost, self.world * (int(self.found.met.sum()) * cost + amid))
        left = 0 if ended else due * cost - met
        left += sum(self._later(k, standing, fallen) * costs[k] for k in range(self.number + 1, len(costs)))
        done = met + sum(int((self.ledger.done > k).sum()) * each for k, each in enumerate(costs))
        name, n = self.attack.stages[self.number].name, len(self.ledger.done)
        sample = int(self.ledger.sample.sum()) if self.number >= self.attack.whole else None
        self.watch(Progress(name, standing - fallen, n, done, done + left, ended, sample))

    def _later(self, stage: int, standing: int, fallen: int) -> int:
        """Return how many examples a later stage will meet, if nobody falls before it."""
        if self.number >= self.attack.whole:
            standing = int((self.ledger.standing & self.ledger.sample).sum())
        rest = max(0, standing - self.world * fallen)
        if self.number < self.attack.whole <= stage:
            return begun(self.attack, len(self.ledger.done), rest).audited
        return rest
