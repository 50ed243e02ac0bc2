"""Where a command's records come from: JSONL files, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bsk.errors import UsageError

if TYPE_CHECKING:
    from bsk.records.located import Located

STDIN = Path("-")


def records_of(command: str, files: Sequence[Path] | None) -> list[Located]:
    """Return the records of the files, or of stdin if there are none or one of them is `-`.

    Raises:
        UsageError: no file is named and stdin is a terminal.
        InputError: a file cannot be read, or a line is no record.
    """
    from bsk.records.located import located, read

    if not files and sys.stdin.isatty():
        raise UsageError(f"{command}: no records; name JSONL files, or pipe in what bsk evaluate prints")
    items: list[Located] = []
    for path in files or [STDIN]:
        items += located(sys.stdin.buffer, "stdin") if path == STDIN else read(path)
    return items
