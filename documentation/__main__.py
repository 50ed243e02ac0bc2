"""Write what is generated, docs/ and a table of README.md, or with --check say what is not as it would be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from documentation import commands, records, results

ROOT = Path(__file__).parent.parent
PAGES: dict[str, Callable[[str], str]] = {  # what a file is to be, of what it is
    "docs/cli.md": lambda _: commands.page(),
    "docs/records.md": lambda _: records.page(),
    "docs/results.md": lambda _: results.page(),
    "README.md": results.readme,
}


def stale() -> dict[str, str]:
    """Return the files that are not what they would be, and what that is."""
    found = {name: (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else "" for name in PAGES}
    return {name: text for name, page in PAGES.items() if (text := page(found[name])) != found[name]}


def main(words: list[str]) -> int:
    """Return the exit status: 1 where a file is not as it would be and is only to be checked."""
    for name, text in stale().items():
        if "--check" not in words:
            (ROOT / name).write_text(text, encoding="utf-8")
        print(
            f"{name}: {'not what' if '--check' in words else 'now what'} python -m documentation makes", file=sys.stderr
        )
    return int("--check" in words and bool(stale()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
