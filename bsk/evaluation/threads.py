"""How many threads an evaluation's passes have: all of torch's, fewer while others want the machine too."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from bsk.devices import threads_chosen

WINDOW, CALLS = 0.02, 2  # seconds and calls, at least, by which a number of threads is judged
CROWDED, CALM = 0.8, 0.95  # of its time the first thread has a core: below others want it too, above nobody does
QUIET = 10  # windows of calm before more threads are tried
HOLD, LONGEST = 0.5, 30.0  # seconds from a try in vain to the next, twice as long each time


class Threads:
    """Halves the number of threads while the first waits for a core, doubles it when it does not: where that is faster.

    The threads of a pass wait for each other after each operation. Where others use the cores too, one of them has none
    for a while, and all wait: seen up to a hundred times as long as by one thread. Nothing is tried where nobody
    disturbs. The bits of a row do not depend on the number of threads (see `steady` and `bsk.models.products`), so that
    no verdict depends on what is found here.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.perf_counter,
        busy: Callable[[], float] = time.thread_time,
        use: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        """Begin with all of `most`; `clock` and `busy` are the seconds that pass, and those that this thread runs."""
        self.most, self.now = most, most
        self._clock, self._busy, self._use = clock, busy, use
        self._before: tuple[int, float] | None = None  # the number that was left for a try, and its passes a second
        self._hold, self._again, self._calm = HOLD, -1.0, 0
        self._calls, self._passes, self._start = -1, 0, (0.0, 0.0)  # -1: the next call is not a part of a window

    def begins(self, passes: int) -> None:
        """Hear that a call of so many passes begins; what came since the call before was done by `now` threads."""
        now, busy = self._clock(), self._busy()
        seconds = now - self._start[0]
        if self._calls >= CALLS and seconds >= WINDOW:
            changed = self._judge(now, (busy - self._start[1]) / seconds, self._passes / seconds)
            self._calls = -1 if changed else 0  # the first call after a change builds what is kept for the next ones
        if self._calls <= 0:
            self._start, self._passes = (now, busy), 0
        self._calls, self._passes = self._calls + 1, self._passes + passes

    def _judge(self, now: float, share: float, rate: float) -> bool:
        """Take a window's share of a core and passes a second; return whether the number of threads changed."""
        if self._before is not None:
            (number, before), self._before = self._before, None
            if rate > before:
                self._hold = HOLD
                return False
            self._again, self._hold = now + self._hold, min(2 * self._hold, LONGEST)
            return self._change(number)
        self._calm = self._calm + 1 if share > CALM else 0
        crowded, calm = share < CROWDED and self.now > 1, self._calm >= QUIET and self.now < self.most
        if now < self._again or not (crowded or calm):
            return False
        self._before = self.now, rate
        return self._change(self.now // 2 if crowded else min(2 * self.now, self.most))

    def _change(self, number: int) -> bool:
        self.now, self._calm = number, 0
        self._use(number)
        return True

    def resume(self) -> None:
        """Let torch have as many threads as were found, after a while in which it may have had others."""
        if self._before is not None:  # a try that did not come to its end
            (self.now, _), self._before = self._before, None
        self._use(self.now)
        self._calls = -1


_found: Threads | None = None  # as the last evaluation of this process left it
_tries = False


@contextlib.contextmanager
def shared_threads(device: torch.device, fixed: bool = False) -> Iterator[None]:
    """Let torch have as many threads within the block as are good here and now; afterwards as many as before.

    `fixed` keeps the number that an evaluation before has found. Nothing is changed where the user has chosen a number,
    where there is one thread, or on another device than a CPU.
    """
    global _found, _tries
    most = torch.get_num_threads()
    if device.type != "cpu" or most == 1 or threads_chosen():
        yield
        return
    if _found is None or _found.most != most:
        _found = Threads(most)
    _found.resume()
    _tries = not fixed
    try:
        yield
    finally:
        _tries = False
        torch.set_num_threads(most)


def pass_begins(passes: int) -> None:
    """Hear, within `shared_threads`, that a model call of so many passes begins."""
    if _tries and _found is not None:
        _found.begins(passes)
