"""Memory of the CPU: what a network frees is kept for its next layer."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_BLOCK, _ALL = 1 << 30, (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 1 GiB instead of handing them back to the system each time.

    A network frees and asks for the same large blocks in every layer; each new one comes as empty pages, which
    cost a fault apiece. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK)
        mallopt(_TRIM_THRESHOLD, _ALL)
