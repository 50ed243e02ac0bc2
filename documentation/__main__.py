"""Write the generated pages of docs/ and the table in README.md, or with --check report which are out of date.

With --picture draw docs/pictures/cost.png from the same records as that table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from documentation import commands, records, results

ROOT = Path(__file__).parent.parent
PAGES: dict[str, Callable[[str], str]] = {  # file -> function from its present to its generated content
    "docs/cli.md": lambda _: commands.page(),
    "docs/records.md": lambda _: records.page(),
    "docs/results.md": lambda _: results.page(),
    "README.md": results.readme,
}


def stale() -> dict[str, str]:
    """Return the files that are out of date, with their generated content."""
    found = {name: (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else "" for name in PAGES}
    return {name: text for name, page in PAGES.items() if (text := page(found[name])) != found[name]}


def main(words: list[str]) -> int:
    """Write or check the pages; return the exit status, 1 if --check finds a page out of date."""
    if "--picture" in words:
        results.picture(ROOT / "docs" / "pictures" / "cost.png")
    check, found = "--check" in words, stale()
    for name, text in found.items():
        if not check:
            (ROOT / name).write_text(text, encoding="utf-8")
        print(f"{name}: {'out of date; run python -m documentation' if check else 'written'}", file=sys.stderr)
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
