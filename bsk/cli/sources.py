"""Where a command's records come from: JSONL files, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from bsk.errors import UsageError

if TYPE_CHECKING:
    from bsk.records.located import Located

STDIN = Path("-")


def records_of(command: str, files: Sequence[Path] | None) -> Iterator[Located]:
    """Return the records of the files, or of stdin if there are none or one of them is `-`, read as they are taken.

    Raises:
        UsageError: no file is named and stdin is a terminal.
        InputError: a file cannot be read, or a line is no record; when it is taken.
    """
    from bsk.records.located import located, stream

    if not files and sys.stdin.isatty():
        raise UsageError(f"{command}: no records; name JSONL files, or pipe in what bsk evaluate prints")
    return chain.from_iterable(
        located(sys.stdin.buffer, "stdin") if path == STDIN else stream(path) for path in files or [STDIN]
    )
