"""The lengths of pages and their sentences: `python -m documentation.words`."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GENERATED = ("cli.md", "records.md", "results.md")


@dataclass(frozen=True)
class Length:
    """Lines and words of a page, and the words in its median and longest sentence."""

    lines: int
    words: int
    median: float
    longest: int


def length_of(path: Path) -> Length:
    """Return the length of a page; its sentences are those of `sentences`."""
    text = path.read_text(encoding="utf-8")
    words = [len(each.split()) for each in sentences(text)]
    return Length(text.count("\n"), len(text.split()), statistics.median(words or [0]), max(words, default=0))


def sentences(text: str) -> list[str]:
    """Return the sentences in paragraphs and list items of a Markdown text, without code, tables and headings."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    kept = [line for line in text.split("\n") if not re.match(r"    |\||#|!\[|:::", line)]
    blocks = re.split(r"\n\s*\n|\n(?=- |\d+\. )", "\n".join(kept))
    plain = [" ".join(re.sub(r"\]\([^)]*\)", "]", block).split()) for block in blocks]
    found = [each for block in plain for each in re.split(r"(?<=[.:?!;])\s+(?=[A-Z`*\[\d])", block)]
    return [each for each in found if len(each.split()) > 1]


def main() -> None:
    """Print the lengths of the README and all pages."""
    print("page\tlines\twords\tmedian sentence\tlongest")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        found = length_of(path)
        print(path.name, found.lines, found.words, f"{found.median:g}", found.longest, sep="\t")


if __name__ == "__main__":
    main()
