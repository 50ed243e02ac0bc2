"""Conditions on a table, for scripts: `bs.robust - fast-at.robust > 0`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bsk.comparison.compare import COLUMNS, Row, as_float
from bsk.comparison.tables import FACTS
from bsk.errors import UsageError, nearest
from bsk.evaluation.intervals import Interval
from bsk.records.words import plain

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
DIGITS = 12
_SIGNS = re.compile(r"\s([+-])\s")
_RELATIVE = re.compile(r"(natural_)?difference|p$|p_holm$|detectable$")
HELP = "write ROW.COLUMN, COLUMN or a number, joined by ' + ' or ' - ', on both sides of > >= < or <="


@dataclass(frozen=True)
class Requirement:
    """A condition: sums of signed terms on both sides of a comparison."""

    text: str
    left: Sequence[tuple[int, str]]
    sign: str
    right: Sequence[tuple[int, str]]


def parse(text: str) -> Requirement:
    """Return the parsed condition; raise a UsageError if the text is not one."""
    parts = re.split(r"\s*(>=|<=|>|<)\s*", text.strip())
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise UsageError(f"--require {text!r}: {HELP}")
    return Requirement(text, _terms(parts[0]), parts[1], _terms(parts[2]))


def failures(requirement: Requirement, rows: Sequence[Row]) -> list[str]:
    """Return one line for each row that violates the condition; an empty list means that it holds.

    A condition with a term without a row must hold for every row of the table. If such a term is relative to another
    row, as `difference` is, it must hold for every row that is not its own baseline. Rows with the same name are told
    apart by their facts, in any order: NAME@ATTACK.COLUMN or NAME@ATTACK@SELECTED.COLUMN.

    `robust` of an audit is an estimate, for which the condition must hold everywhere in its interval.

    Raises:
        UsageError: a row or column is unknown, ambiguous or empty.
    """
    free = [term for _, term in (*requirement.left, *requirement.right) if _number(term) is None and "." not in term]
    relative = any(_RELATIVE.match(term) for term in free)
    others = [row for row in rows if not row["baseline"]] if relative else []
    found = []
    for row in (others or rows) if free else rows[:1]:
        sides = (requirement.left, requirement.right)
        left, right = (_sum([(sign, _value(term, row, rows, requirement)) for sign, term in side]) for side in sides)
        worst = (left[0], right[1]) if requirement.sign in (">", ">=") else (left[1], right[0])
        # 0.7 - 0.6 is not 0.1 in floating point
        if not OPERATORS[requirement.sign](*(round(each, DIGITS) for each in worst)):
            where = f"{row['name']}: " if free else ""
            said = f"{_shown(left)} {requirement.sign} {_shown(right)}"
            found.append(f"--require {requirement.text!r}: {where}{said} does not hold")
    return found


def _sum(terms: Sequence[tuple[int, Interval]]) -> Interval:
    ends = [(low, high) if sign > 0 else (-high, -low) for sign, (low, high) in terms]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def _shown(value: Interval) -> str:
    low, high = value
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _terms(side: str) -> list[tuple[int, str]]:
    first, *rest = _SIGNS.split(side.strip())
    signed = zip(rest[::2], rest[1::2], strict=True)
    return [(1, first), *((1 if sign == "+" else -1, term.strip()) for sign, term in signed)]


def _number(term: str) -> float | None:
    try:
        return float(term)
    except ValueError:
        return None


def _value(term: str, row: Row, rows: Sequence[Row], requirement: Requirement) -> Interval:
    number = _number(term)
    if number is not None:
        return number, number
    name, _, column = term.rpartition(".")
    said = f"--require {requirement.text!r}: {term}"
    if column not in COLUMNS:
        raise UsageError(f"{said}: no such column; {nearest(column, list(COLUMNS))}")
    chosen = _row(name, rows, said) if name else row
    ends = ("audit_low", "audit_high") if column == "robust" and chosen["audit_low"] is not None else (column, column)
    low, high = (as_float(chosen[end]) for end in ends)
    if low is None or high is None:
        base = chosen["baseline"] and "difference" in column
        why = "is what others are compared with" if base else "has no number there"
        raise UsageError(f"{said}: {chosen['name']} {why}; bsk compare --format jsonl shows what it has")
    return low, high


def _row(name: str, rows: Sequence[Row], said: str) -> Row:
    named = [row for row in rows if _is_named(row, name)]
    if not named:
        raise UsageError(f"{said}: no such row; {nearest(name, list(dict.fromkeys(str(row['name']) for row in rows)))}")
    if len(named) > 1:
        telling = [fact for fact in FACTS if len({plain(row[fact]) for row in named}) > 1]
        longer = ["@".join([str(row["name"]), *(plain(row[fact]) for fact in telling)]) for row in named]
        different = len({*longer}) == len(longer)
        way = f"write one of {', '.join(longer)}" if different else "some differ in other settings alone; compare one"
        raise UsageError(f"{said}: matches {len(named)} rows; {way}")
    return named[0]


def _is_named(row: Row, name: str) -> bool:
    """Return whether the name is the row's, with any of its facts appended."""
    own = str(row["name"])
    facts = name.removeprefix(own).split("@")
    return name.startswith(own) and not facts[0] and {*facts[1:]} <= {plain(row[fact]) for fact in FACTS}
