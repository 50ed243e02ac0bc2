"""The page of results: a template whose placeholders are filled with numbers from the committed records.

The placeholders are

- `{{SOURCE | ROW}}`: robust accuracy in percent; `{{SOURCE | ROW []}}`: with its 95 % interval;
- `{{SOURCE | ROW natural}}`: natural accuracy in percent;
- `{{SOURCE | ROW sd}}`: standard deviation of robust accuracy over seeds, with its interval;
- `{{SOURCE | ROW best}}`: robust accuracy of the best seed; `{{SOURCE | ROW passes}}`: the cost of training;
- `{{SOURCE | ROW audited}}`: the interval of AutoAttack's accuracy on these images;
- `{{SOURCE | ROW - OTHER}}`: difference of robust accuracies, with its interval;
- `{{SOURCE | table}}`, `{{SOURCE | matrix}}`, `{{SOURCE | losses}}`: a whole table;
- `{{SOURCE | beside fastat}}`: the same beside a published table; `{{SOURCE | count}}`: its number of rows;
- `{{SOURCE | records}}`: a link to the files;
- `{{SOURCE | METHOD kl_start}}`: the range of a logged field over epochs and seeds, in nats;
- `{{SOURCE | METHOD val_robust@36}}`: percent of each seed after an epoch (`@last`: the last one);
- `{{SOURCE | METHOD alarm fgsm}}`: a field of the first alarm of each training that has one;
- `{{SOURCE | alarms}}`: in how many trainings there was one; `{{SOURCE | METHOD epochs}}`: their number of epochs.

SOURCE is a key of SOURCES, and ROW the name that `bsk compare` gives a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from bsk.comparison.compare import Row, as_float, compare
from bsk.comparison.evidence import trainings
from bsk.comparison.matrix import CAPTION, TEXT_COLUMNS, grid, transfers
from bsk.comparison.published import published
from bsk.comparison.statistics import quarter_means
from bsk.comparison.tables import markdown, markdown_of
from bsk.figures.plots import accuracy_against_cost
from bsk.records.located import Located, read
from bsk.records.words import estimate, many

ROOT = Path(__file__).parent.parent
TEXT = Path(__file__).with_name("results.md")
SMALL, SMOKE = "results/small/runs/cifar10", "results/smoke"
_SIX = ("bs", "fast-at", "fast-trades", "fast-trades-2", "trades", "at")
SOURCES: dict[str, tuple[str, ...]] = {  # name -> file patterns, in the order of the table's rows
    "8/255": ("results/readme8/*.jsonl",),
    "16/255": tuple(f"{SMALL}/{name}_seed-[123].eval.jsonl" for name in _SIX),
    "four": tuple(
        f"{SMALL}/{name}_seed-?.eval.jsonl" for name in ("bs", "fast-at", "fast-trades", "fast-trades-2", "at")
    ),
    "plus": tuple(f"{SMALL}/{name}_seed-1.eval.jsonl" for name in ("fast-at", "fast-at-plus", "bs")),
    "figure1": tuple(
        f"{SMALL}/fast-at_{name}seed-1.eval.jsonl"
        for name in ("", *(f"step-{eighths}of127.5_" for eighths in (6, 7, 8, 9)))
    ),
    "cw": ("results/small/cw-100.jsonl",),
    "gamma": tuple(f"{SMALL}/{name}_seed-[12].eval.jsonl" for name in ("bs", "bs_gamma-*")),
    "beta": tuple(f"{SMALL}/{name}_seed-[12].eval.jsonl" for name in ("bs", "bs_beta-*")),
    "steps": tuple(f"{SMALL}/{name}_seed-[12].eval.jsonl" for name in ("bs", "bs_step-*")),
    "alone": tuple(f"{SMALL}/{name}_seed-[12].eval.jsonl" for name in ("bs", "bs-alone", "fast-at", "fast-trades")),
    "cifar100": ("results/small/runs/cifar100/*.eval.jsonl",),
    "frontier": (f"{SMALL}/*.frontier.eval.jsonl",),
    "budget": (f"{SMALL}/*.budget.eval.jsonl",),
    "fastat": (f"{SMALL}/bs_*.fastat.eval.jsonl", f"{SMALL}/*.fastat.eval.jsonl"),
    "digits fastat": (f"{SMOKE}/fastat/fastat.jsonl",),
    "digits fastat logs": (f"{SMOKE}/fastat/fastat-logs.jsonl",),
    "divergence": tuple(f"{SMALL}/{name}_seed-?.jsonl" for name in ("bs", "fast-trades")),
    "160 passes": tuple(
        f"{SMALL}/{name}_ema-0.999_seed-?.jsonl"
        for name in ("fast-at_epochs-40", "bs_epochs-20", "n-fgsm_epochs-40", "liet_epochs-32")
    ),
    "start zero": ("results/small/runs/cifar10-collapse/fast-at_start-zero_seed-1.jsonl",),
    "digits start zero": (f"{SMOKE}/collapse-eps-0.3.jsonl",),
    "digits divergence": (f"{SMOKE}/figure3-logs.jsonl",),
    "transfer": ("results/more/transfer.jsonl",),
    "more": tuple(f"results/more/{name}-*.eval.jsonl" for name in ("all", "preact", "extra", "few", "init")),
    "logs": tuple(f"results/more/{name}-?.jsonl" for name in ("all", "extra", "few", "even-all", "even-extra")),
    **{f"digits {name}": (f"{SMOKE}/{name}.jsonl",) for name in ("table2", "table6", "table7", "table9", "table10")},
    **{f"digits {name}": (f"{SMOKE}/{name}.jsonl",) for name in ("figure1", "figure2", "figure5", "section54")},
}
SOURCES["fastat logs"] = tuple(
    f"{SMALL}/{path.name.replace('.fastat.eval', '')}" for path in sorted((ROOT / SMALL).glob("*.fastat.eval.jsonl"))
)
BENCHMARKS = ("results/bench-amd.txt", "results/bench-intel.txt")
PLACE = re.compile(r"\{\{([^|{}]+?) \| ([^{}]+?)\}\}")
COLUMNS = {"natural": "natural", "sd": "robust_sd", "[]": "robust", "best": "robust_best"}
LOGGED = re.compile(r"(\S+) (kl_start|kl_ascent|val_robust)(?:@(\d+|last))?")


def page() -> str:
    """Return the page in Markdown."""
    return PLACE.sub(lambda found: filled(found[1], found[2]), TEXT.read_text(encoding="utf-8"))


def filled(source: str, wanted: str) -> str:
    """Return the text for a placeholder.

    Raises:
        KeyError: there is no such source or row.
    """
    if source == "bench":
        return _benchmark(wanted)
    if wanted == "table":
        return markdown(compare(_items(source))[0]).rstrip()
    if wanted.startswith("beside "):
        return markdown(compare(_items(source), published(wanted.removeprefix("beside ")))[0]).rstrip()
    if wanted == "count":
        return str(len(_rows(source, None)))
    if wanted == "matrix":
        rows = transfers(_items(source))
        return markdown_of(grid(rows), TEXT_COLUMNS, CAPTION).rstrip()
    if wanted == "losses":
        return _losses(_items(source))
    if wanted == "records":
        return _link(source)
    if logged := LOGGED.fullmatch(wanted):
        return _logged(source, *logged.groups())
    if wanted == "alarms":
        return str(len(list(_first_alarms(source))))
    if wanted.endswith(" epochs"):
        return _epochs(source, wanted.removesuffix(" epochs"))
    if " alarm " in wanted:
        return _alarms(source, *wanted.split(" alarm "))
    if " - " in wanted:
        row, _, base = wanted.partition(" - ")
        return _cell(_rows(source, base)[row], "difference", "+", interval=True)
    row, _, column = wanted.rpartition(" ")
    if column == "audited":
        low, high = (100 * (as_float(_rows(source, None)[row][f"audit_{end}"]) or 0) for end in ("low", "high"))
        return f"{low:.1f} to {high:.1f}"
    if column == "passes":
        return _passes(_rows(source, None)[row])
    if column in COLUMNS:
        return _cell(_rows(source, None)[row], COLUMNS[column], "", interval=column in ("sd", "[]"))
    return _cell(_rows(source, None)[wanted], "robust", "", interval=False)


def _benchmark(wanted: str) -> str:
    """Return the range over machines of a median in results/bench-*.txt, by the beginning of its line, or 1 over it."""
    row, inverse = wanted.removeprefix("1 / "), wanted.startswith("1 / ")
    lines = [line for path in BENCHMARKS for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]
    medians = [
        float(found[1]) for line in lines if line.startswith(row) if (found := re.search(r" {2,}([\d.]+) ", line))
    ]
    if len(medians) != len(BENCHMARKS):
        raise KeyError(f"{wanted}: {len(medians)} lines")
    shown = [f"{1 / each:.2f}" if inverse else f"{each:.1f}" for each in sorted(medians, reverse=inverse)]
    return " to ".join(dict.fromkeys(shown))


def _link(source: str) -> str:
    """Return an HTML link to the files of a source, which mkdocs does not check, since they are outside the site."""
    first = Path(SOURCES[source][0])
    place = first.parent if "*" in first.name or "?" in first.name or len(SOURCES[source]) > 1 else first
    return f'<a href="../{place}">{place.name if place == first else place.relative_to("results")}</a>'


def _logs(source: str, method: str) -> list[Mapping[int, Located]]:
    logs = [each.log for each in trainings(_items(source)) if each.run.method == method]
    if not logs:
        raise KeyError(f"{source}: no log of {method}")
    return logs


def _epochs(source: str, method: str) -> str:
    """Return the number of epochs of a method's trainings, which must be the same for all seeds."""
    (last,) = {max(log) for log in _logs(source, method)}
    return str(last)


def _logged(source: str, method: str, field: str, epoch: str | None) -> str:
    """Return the range of a field over epochs and seeds, or its percent after one epoch for each seed."""
    logs = _logs(source, method)
    if epoch is None:
        values = [float(item.record[field]) for log in logs for item in log.values()]
        return f"{_significant(min(values))} to {_significant(max(values))}"
    chosen = [log[max(log) if epoch == "last" else int(epoch)] for log in logs]
    return _listed([f"{100 * float(item.record[field]):.1f}" for item in chosen])


def _alarms(source: str, method: str, field: str) -> str:
    """Return a field of the first alarm of each training that has one, accuracies in percent."""
    found = [float(item.record[field]) for name, item in _first_alarms(source) if name == method]
    if not found:
        raise KeyError(f"{source}: no alarm of {method}")
    shown = {"cosine": "{:.2f}".format, "epoch": "{:.0f}".format}
    return _listed([shown.get(field, "{:.0%}".format)(each).rstrip("%") for each in found])


def _first_alarms(source: str) -> Iterator[tuple[str, Located]]:
    """Yield the method and the first alarm of each training that has one."""
    method, waiting = "", False
    for item in _items(source):
        kind = item.record.get("kind")
        if kind == "start":
            method, waiting = str(item.record["method"]), True
        elif kind == "alarm" and waiting:
            yield method, item
            waiting = False


def _significant(value: float) -> str:
    return str(np.format_float_positional(value, precision=2, fractional=False, trim="-"))


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _losses(items: Iterable[Located]) -> str:
    """Return a table of the mean loss in each quarter of training, by the name of the checkpoint without its seed."""
    found: dict[str, list[list[float]]] = {}
    for training in trainings(items):
        quarters = quarter_means([float(item.record["loss"]) for _, item in sorted(training.log.items())])
        found.setdefault(Path(training.run.checkpoint).stem.rpartition("-")[0], []).append(list(quarters))
    lines = ["| training | seeds | first quarter | second | third | last |", "|---|--:|--:|--:|--:|--:|"]
    for name, seeds in found.items():
        cells = [f"{np.mean(each):.3f} (sd {np.std(each, ddof=1):.3f})" for each in zip(*seeds, strict=True)]
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row, column: str, sign: str, interval: bool) -> str:
    ends = ("_low", "_high") if interval else ()
    found = estimate(*(as_float(row.get(column + end)) for end in ("", *ends)), sign=sign)
    if not found:
        raise KeyError(f"{row['name']} has no {column}")
    return found


def _passes(row: Row) -> str:
    return many((as_float(row["train_forward_passes"]) or 0) + (as_float(row["train_backward_passes"]) or 0))


@cache
def _rows(source: str, base: str | None) -> dict[str, Row]:
    """Return the rows of a source by name, with differences from the row `base`, or else from the first."""
    items: Sequence[Located] = _items(source)
    if base is not None:
        plain = base.partition(" ")[0]
        items = sorted(items, key=lambda item: item.record.get("method") != plain or not _is(item, base))
    rows, _ = compare(items)
    found = {str(row["name"]): row for row in rows}
    if base is not None and next(iter(found)) != base:
        raise KeyError(f"{source}: no row {base} among {', '.join(found)}")
    return found


def _is(item: Located, name: str) -> bool:
    """Return whether a record has the flags in a row's name such as "bs beta=10"."""
    flags = item.record.get("flags") or {}
    wanted = dict(word.split("=") for word in name.split()[1:])
    return all(abs(float(flags.get(flag, "nan")) - _number(value)) < 1e-9 for flag, value in wanted.items())


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


@cache
def _items(source: str) -> tuple[Located, ...]:
    files: Iterable[Path] = (path for pattern in SOURCES[source] for path in sorted(ROOT.glob(pattern)))
    found = dict.fromkeys(files)
    if not found:
        raise KeyError(f"{source}: no records")
    return tuple(item for path in found for item in read(path))


def picture(path: Path) -> None:
    """Draw the README's picture from the records of its table."""
    accuracy_against_cost(compare(_items("16/255"))[0], path)


def readme(text: str) -> str:
    """Return the README with the table of results between its two comments."""
    rows = _rows("16/255", None).values()
    lines = ["| method | natural | robust | passes per training |", "|---|--:|--:|--:|"]
    for row in rows:
        natural, robust = (estimate(as_float(row[column])) for column in ("natural", "robust"))
        lines.append(f"| `{str(row['name']).partition(' ')[0]}` | {natural} | {robust} | {_passes(row)} |")
    start, end = "<!-- results -->", "<!-- /results -->"
    before, _, rest = text.partition(start)
    return before + start + "\n" + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
