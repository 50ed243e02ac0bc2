"""The number of CPU threads of an evaluation: all of torch's, or fewer while other processes need the cores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from bsk.devices import threads_chosen

WINDOW, CALLS = 0.02, 2  # least seconds and calls over which a number of threads is measured
CROWDED, CALM = 0.8, 0.95  # CPU time of the first thread per wall time: below, cores are contended; above, free
QUIET = 10  # uncontended windows before more threads are tried
HOLD, LONGEST = 0.5, 30.0  # seconds from a failed try to the next; doubled each time, up to the longest


class Threads:
    """Adapts the number of threads: halved under contention, doubled without it, and kept if passes get faster.

    The threads of a pass synchronise after each operation. If other processes use the cores too, one thread has to
    wait for a core and all others wait for it: up to a hundred times slower than one thread has been seen. Without
    contention nothing is tried. The bits of a row do not depend on the number of threads (see `steady` and
    `bsk.models.products`), so verdicts do not depend on it.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.perf_counter,
        busy: Callable[[], float] = time.thread_time,
        use: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        """Start with `most` threads; `clock` is wall time and `busy` CPU time of this thread, in seconds."""
        self.most, self.now = most, most
        self._clock, self._busy, self._use = clock, busy, use
        self._before: tuple[int, float] | None = (
            None  # number of threads before the current try, and its passes per second
        )
        self._hold, self._again, self._calm = HOLD, -1.0, 0
        self._calls, self._passes, self._start = -1, 0, (0.0, 0.0)  # -1: the next call is not part of a window

    def begins(self, passes: int) -> None:
        """Record that a call of so many passes begins; the time since the last call is for `now` threads."""
        now, busy = self._clock(), self._busy()
        seconds = now - self._start[0]
        if self._calls >= CALLS and seconds >= WINDOW:
            changed = self._judge(now, (busy - self._start[1]) / seconds, self._passes / seconds)
            self._calls = -1 if changed else 0  # the first call after a change has set-up costs
        if self._calls <= 0:
            self._start, self._passes = (now, busy), 0
        self._calls, self._passes = self._calls + 1, self._passes + passes

    def _judge(self, now: float, share: float, rate: float) -> bool:
        """Judge a window by its CPU share and passes per second; return whether the number of threads changed."""
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
        """Set the number of threads found so far, which may have been changed elsewhere meanwhile."""
        if self._before is not None:  # a try that was cut off
            (self.now, _), self._before = self._before, None
        self._use(self.now)
        self._calls = -1


_found: Threads | None = None  # shared by all evaluations of this process
_tries = False


@contextlib.contextmanager
def shared_threads(device: torch.device, fixed: bool = False) -> Iterator[None]:
    """Adapt the number of torch's threads within the block; afterwards it is as before.

    `fixed` keeps the number that an earlier evaluation has found. Nothing is changed if the user has chosen a number,
    if there is one thread only, or if the device is not a CPU.
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
    """Record, within `shared_threads`, that a model call of so many passes begins."""
    if _tries and _found is not None:
        _found.begins(passes)
