"""Ctrl-C, SIGTERM and the signals of schedulers: the first stops, or saves and stops; a later one stops at once."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

ECHO = 3.0  # seconds in which a repeated signal is ignored: torchrun and schedulers send theirs twice
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # the last three announce a limit
STOPPING = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Signalled(BaseException):
    """A signal stops the work now; not an Exception, so that no `except Exception` catches it."""

    def __init__(self, number: int) -> None:
        """Set the exit code: 128 plus the number of the signal, which is 130 for Ctrl-C."""
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number


class _EchoFilter:
    """Recognises a signal that repeats an earlier one within ECHO seconds."""

    def __init__(self) -> None:
        self._last = -math.inf

    def is_echo(self) -> bool:
        now = time.monotonic()
        if now - self._last < ECHO:
            return True
        self._last = now
        return False


def stop_on_signals() -> None:
    """Make the stopping signals raise `Signalled` from now on."""
    echoes = _EchoFilter()

    def stop(number: int, frame: FrameType | None) -> None:
        if not echoes.is_echo():
            raise Signalled(number)

    for number in _handled():
        signal.signal(number, stop)


def _handled() -> list[signal.Signals]:
    """Return the signals that are not ignored; nohup, and shells for background processes, set some to be ignored."""
    return [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]


def ignore_signals() -> None:
    """Ignore the stopping signals from now on, also while Python exits.

    Python complains about a signal that arrives just before it is ignored. So signals are blocked meanwhile, and one
    that is pending goes to a handler that does nothing.
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
    """Yield a function that returns 0, or the exit code once a stopping signal has arrived.

    A second signal that is not an echo raises `Signalled`. After the block, signals are ignored if one had arrived.
    """
    code, echoes = 0, _EchoFilter()

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal code
        if echoes.is_echo():
            return
        if code:
            raise Signalled(number)
        code = 128 + number
        say("finishing this step and saving; send the signal again in a few seconds to stop at once")

    before = {number: signal.signal(number, ask) for number in _handled()}
    try:
        yield lambda: code
    finally:
        if code:
            ignore_signals()
        else:
            for number, handler in before.items():
                signal.signal(number, handler)
