"""Ctrl-C, SIGTERM and what schedulers send: the first one stops, or asks to save; a later one stops at once."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

ECHO = 3.0  # seconds in which a signal that comes again is an echo: torchrun and schedulers send theirs twice
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # the last three warn of a limit
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Signalled(BaseException):
    """A signal stops the work now; no `except Exception` on the way out holds it up."""

    def __init__(self, number: int) -> None:
        """Keep the exit code of the signal: 128 and its number, 130 for Ctrl-C."""
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number


class _Ear:
    """Tells a signal from the echoes of the one before."""

    def __init__(self) -> None:
        self._heard = -math.inf

    def hears_echo(self) -> bool:
        now = time.monotonic()
        if now - self._heard < ECHO:
            return True
        self._heard = now
        return False


def stop_on_signals() -> None:
    """Let these signals raise `Signalled` from now on."""
    ear = _Ear()

    def stop(number: int, frame: FrameType | None) -> None:
        if not ear.hears_echo():
            raise Signalled(number)

    for number in _heard():
        signal.signal(number, stop)


def _heard() -> list[signal.Signals]:
    """Return the signals that are not ignored, as nohup and shells have it for processes in the background."""
    return [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]


def ignore_signals() -> None:
    """Let these signals do nothing from now on, also while Python ends.

    Python complains of one that came just before it was ignored. So none may come meanwhile, and what has come is first
    given to a function that does nothing.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        for handler in (lambda *_: None, signal.SIG_IGN):
            for number in STOPPING:
                signal.signal(number, handler)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def stop_requests(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Yield a function that returns 0, or the exit code once Ctrl-C or SIGTERM came.

    A second one, if it is no echo, raises `Signalled`. After a stop that was asked for signals do nothing any more.
    """
    code, ear = 0, _Ear()

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal code
        if ear.hears_echo():
            return
        if code:
            raise Signalled(number)
        code = 128 + number
        say("finishing the step and saving; once more, later, to stop at once")

    before = {number: signal.signal(number, ask) for number in _heard()}
    try:
        yield lambda: code
    finally:
        if code:
            ignore_signals()
        else:
            for number, handler in before.items():
                signal.signal(number, handler)
