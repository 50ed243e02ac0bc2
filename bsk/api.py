"""What `import bsk` offers: the commands as functions, for any model and any images, with no file unless asked for.

    import bsk

    data = bsk.prepare("digits")
    model = bsk.load("runs/bs.safetensors")
    result = bsk.evaluate(model, data=data, attack="autoattack")
    print(result, result.correct.float().mean())

Images are (N, C, H, W), in [0, 1] or uint8; labels (N,) are whole numbers; radii are in pixels of [0, 1]. A model is a
`torch.nn.Module`, or anything that can be called, from images in [0, 1] to logits (N, classes). Verdicts and records
are those of the command line, to the bit. Errors are `bsk.errors.UsageError` and `InputError`, each one line.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import check_unit
from bsk.comparison import compare as comparison
from bsk.comparison.published import published
from bsk.comparison.tables import render
from bsk.comparison.views import VIEWS, View
from bsk.data import sources
from bsk.data.arrays import Array, Pair, arranged, examples
from bsk.data.splits import Request as Source
from bsk.data.store import DataFile, open_data, write
from bsk.devices import chosen_device
from bsk.errors import InputError, UsageError
from bsk.evaluation import run as evaluations
from bsk.evaluation.flags import EvaluationFlags
from bsk.evaluation.settings import Request, Work
from bsk.evaluation.subjects import Subject, foreign_subject, live_subject, load_subject, recalled, remembered
from bsk.models.registry import device_of
from bsk.progress import EvaluationProgress, audit_line, remarks
from bsk.records import jsonl
from bsk.records.bits import decode_correct
from bsk.records.located import Located, located, read
from bsk.records.locks import only_writer
from bsk.records.words import percent, plain
from bsk.terminal import Bar, note
from bsk.values import one_of

Model = nn.Module | Callable[[Tensor], Tensor]
Record = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How many examples survive an attack; `record` is what `bsk evaluate` prints.

    Of an audit of AutoAttack the accuracy is an estimate, and `record["audit"]` has the interval of what it estimates.
    """

    record: Record

    @property
    def accuracy(self) -> float:
        """The share of examples that survive, 0 to 1."""
        return float(self.record["accuracy"])

    @property
    def low(self) -> float:
        """The lower end of the accuracy's 95 % interval."""
        return float(self.record["low"])

    @property
    def high(self) -> float:
        """The upper end of the accuracy's 95 % interval."""
        return float(self.record["high"])

    @property
    def n(self) -> int:
        """How many examples were attacked."""
        return int(self.record["n"])

    @property
    def doubts(self) -> list[str]:
        """Signs that the number cannot be believed, each a line."""
        return list(self.record["doubts"])

    @cached_property
    def correct(self) -> Tensor:
        """Which examples survive, (N,) bool, in the order of the images given or of the data's split.

        Raises:
            UsageError: of an audit, where it is known of some only.
        """
        if "audit" in self.record:
            raise UsageError("correct: an audit has verdicts on a sample only; evaluate without audit and within")
        return torch.from_numpy(decode_correct(self.record["correct"], self.n))

    def __repr__(self) -> str:
        """Return the number with its interval, a line for each doubt and one for what the checks left out."""
        interval = f"{percent(self.accuracy)} % [{percent(self.low)}, {percent(self.high)}] of {self.n}"
        said = audit_line(self.record) if "audit" in self.record else interval
        text = f"{self.record['attack']} at eps {plain(self.record['eps'])}: {said}"
        return "\n".join([text, *remarks(self.record)])


class Rows(list[comparison.Row]):
    """A table's rows, each a dict of its columns; shown as the table that `bsk compare` prints."""

    view: View | None = None

    def __repr__(self) -> str:
        """Return the table for people."""
        return self.view.printed("table") if self.view is not None else render(self, "table")


def load(
    path: str | Path,
    *,
    model: str | None = None,
    data: str | Path | DataFile | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weights_key: str | None = None,
    class_order: Sequence[str] | None = None,
    device: str = "auto",
) -> nn.Module:
    """Return the model of a checkpoint, in eval mode, from images (N, C, H, W) in [0, 1] to logits (N, classes).

    Args:
        path: what `bsk train` wrote; with `data`, weights of somebody else.
        model: `module:function`, for a checkpoint whose network is code from outside; with `data`, the network of
            the weights: a name or `module:function`.
        data: what somebody else's weights were trained for: prepared data by name, by path or opened.
        mean: of somebody else's weights: a number a channel; default: what the weights hold.
        std: the same.
        weights_key: of somebody else's file with several sets of weights: which one, as ema.
        class_order: of somebody else's weights: the data's class names in the order of their outputs.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UsageError: there is no such model or device.
        InputError: a file is missing, corrupt or does not fit.
    """
    where = chosen_device(device)
    if data is None:
        if any(each is not None for each in (mean, std, weights_key, class_order)):
            said = "mean, std, weights_key, class_order: a checkpoint of bsk has its own; they go with data"
            raise UsageError(said)
        subject = load_subject(Path(path), where, model)
    elif model is None:
        raise UsageError(f"{path}: weights of somebody else need model, a name or module:function")
    else:
        opened = sources.opened(data)
        subject = foreign_subject(model, Path(path), opened, mean, std, where, weights_key, class_order)
    for notice in subject.notices:
        note(notice)
    subject.model.register_forward_pre_hook(_check_range)
    return remembered(subject)


def _check_range(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Raise an InputError for images far from [0, 1]; starts of an attack may be a little beyond it."""
    for x in inputs:
        if x.is_floating_point() and len(x):
            check_unit(x, edge=0.75)


@overload
def evaluate(
    model: str | Path | Model,
    x: Array | None = ...,
    y: Array | None = ...,
    *,
    attack: str = ...,
    eps: float | None = ...,
    **flags: Any,
) -> Evaluation: ...


@overload
def evaluate(
    model: str | Path | Model,
    x: Array | None = ...,
    y: Array | None = ...,
    *,
    attack: str | Sequence[str] = ...,
    eps: float | Sequence[float] | None = ...,
    **flags: Any,
) -> list[Evaluation]: ...


def evaluate(
    model: str | Path | Model,
    x: Array | None = None,
    y: Array | None = None,
    *,
    data: str | Path | DataFile | None = None,
    split: str = "test",
    limit: int | None = None,
    attack: str | Sequence[str] = "autoattack",
    eps: float | Sequence[float] | None = None,
    norm: str = "linf",
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    checks: bool = True,
    compile: str = "auto",
    progress: bool = True,
    out: str | Path | None = None,
    **flags: Any,
) -> Evaluation | list[Evaluation]:
    """Measure how many examples survive an attack, in fp32, with the model in eval mode; it is left as it was.

    Args:
        model: a module, a callable, or a checkpoint's path.
        x: images (N, C, H, W), an array or a tensor, uint8 or float in [0, 1]; None takes them from `data`.
        y: their labels (N,).
        data: prepared data by name, by path or opened; default: what a checkpoint was trained on.
        split: of `data`: "test", "val" or "train".
        limit: only the first so many examples.
        attack: a name of `bsk evaluate --attack` or `module:function`; of several the evaluations are a list.
        eps: the radius in `norm`, in pixels of [0, 1]; default: that of the checkpoint or of `data`. Of several,
            ascending, the evaluations are a list, radius by radius; what falls at one is not asked again.
        norm: "linf", "l2" or "l1".
        seed: of the attack's random numbers.
        batch_size: rows of a model call; default: what suits the device.
        device: where; "auto" is where the model is.
        checks: whether the model is examined for signs that the number cannot be believed.
        compile: whether attacks search through torch.compile: "on", "off", or "auto", where that pays.
        progress: whether a bar is drawn on a terminal.
        out: F.jsonl to append the records to. What it has already of a checkpoint is not computed again; a model that
            is in memory alone is always measured.
        **flags: `step`, `start`, `last_iterate`, `early_stop`, `queries`, `stop_at_eps`, `audit`, `within`, `engine` as
            the command line has them, and `settings`, a dict of arguments of an attack from outside.

    Raises:
        UsageError: an unknown name, or a value out of range.
        InputError: images, labels, model or a file are not what they must be.
    """
    names = _names(attack)
    wanted = EvaluationFlags(split, limit, eps, batch_size, checks, compile, seed)
    how = _attack_flags(norm, flags)
    how.check_untargeted()
    works = _works(model, x, y, data, names, how, wanted, device)
    path = None if out is None else Path(out)
    if path is not None:
        evaluations.check_no_log(path)
    subject = works[0].subject
    live = subject.header["kind"] == "live"  # nobody knows if it is the same as the one of that key
    with EvaluationProgress(subject.path.name, progress) as shown:
        shown.notices(works[0].notices)
        kept = None if live else path
        found = []
        for record in evaluations.sweep(works, kept, shown.show):
            found.append(Evaluation(record))
            if live and path is not None:
                jsonl.append(path, record)
    return found[0] if isinstance(attack, str) and not isinstance(eps, Iterable) else found


def attack(
    model: str | Path | Model,
    x: Array,
    y: Array,
    *,
    attack: str = "pgd-100",
    eps: float | None = None,
    norm: str = "linf",
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    compile: str = "auto",
    progress: bool = True,
    **flags: Any,
) -> Tensor:
    """Return the adversarial images of an attack, (N, C, H, W) fp32 in [0, 1], where x is.

    An image that the model gets wrong as it is comes back as it is. Arguments and errors are those of `evaluate`; and
    `target` makes FGSM, PGD and CW go towards a class: its name or number, "random" (one of the others for each image)
    or "least-likely" (by the logits of the image as it is).
    """
    wanted = EvaluationFlags(eps=eps, batch_size=batch_size, checks=False, compile=compile, seed=seed)
    how = _attack_flags(norm, flags)
    how.check_whole()
    wanted.check_one()
    (work,) = _works(model, x, y, None, _names(attack), how, wanted, device)
    with EvaluationProgress(work.subject.path.name, progress) as shown:
        images = evaluations.perturbed(work.subject, work.attacks[0], work.settings, shown.show)
    return images.to(x.device) if isinstance(x, Tensor) else images


def compare(
    *records: Evaluation | Record | str | Path | Iterable[Evaluation | Record | str | Path],
    paper: str | None = None,
    title: str | None = None,
    pareto: bool = False,
    by: str | None = None,
) -> Rows:
    """Return one row per method and attack: seeds pooled, intervals of 95 %, differences to the first row.

    Args:
        *records: evaluations, records, paths of JSONL files of `bsk evaluate` and `bsk train`, or lists of these.
        paper: the paper's numbers beside: "2", "6/cifar100", "section54".
        title: of the table.
        pareto: whether rows that no other beats in robust accuracy and passes are marked.
        by: "class", "corruption", or "matrix" for saved images on other networks; goes with none of the above.

    Raises:
        InputError: a file cannot be read, a field is not what it must be, or there is no evaluation.
        UsageError: there is no such table in the paper.
    """
    items = [item for record in _flat(records) for item in _located(record)]
    view = None if by is None else _view(by, items)
    if view is not None:
        if paper or title or pareto:
            raise UsageError(f"compare by {by}: paper, title and pareto are for other tables; leave them out")
        found, notices = Rows(dict(row) for row in view.rows), view.notices
        found.view = view
    else:
        rows, notices = comparison.compare(items, None if paper is None else published(paper), title, pareto)
        if not rows:
            raise InputError(f"compare: no evaluation or log records among {len(items)}; run bsk.evaluate")
        found = Rows(rows)
    for notice in notices:
        note(notice)
    return found


def _view(by: str, items: Sequence[Located]) -> View:
    make, nothing = VIEWS[one_of("by", by, list(VIEWS))]
    found = make(items)
    if found is None:
        raise InputError(f"compare by {by}: {nothing}")
    return found


def prepare(
    name: str | Mapping[str, Pair],
    *,
    source: str | None = None,
    out: str | Path | None = None,
    val: int | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    size: int | None = None,
    labels: Sequence[str] = (),
    test_split: str = "test",
    drop_leaks: bool = False,
    downloads: str | Path = "data",
    progress: bool = True,
) -> DataFile:
    """Return a data set, with `split("test")` and so on; the same as `bsk prepare-data` makes, in memory or as a file.

    Args:
        name: digits, cifar10, cifar100, tiny-imagenet, cifar10.1, folder, `module:function`, or images and labels
            themselves: `{"train": (x, y), "test": (x, y)}`, see `bsk.data.arrays`.
        source: an archive, a folder, a file of parquet or numpy, or a URL; None is the official archive.
        out: F.safetensors to write it to; None keeps it in memory.
        val: images held out of train to select models.
        train_limit: training images left, class-balanced.
        test_limit: test images left, class-balanced.
        size: of `folder`: resize images to this side.
        labels: CSV files of the labels of images that have no class folders; or which column or array has the labels.
        test_split: "val" to take the val split of the source as the test split; "none" holds nothing out, for extra.
        drop_leaks: whether training images that are test or val images too are left out.
        downloads: the folder where official archives are kept.
        progress: whether a bar is drawn on a terminal.

    Raises:
        UsageError: an unknown name, or a number that cannot be.
        InputError: the source is missing, torn or not what it must be; `out` cannot be written.
    """
    if isinstance(name, str):
        with closing(Bar("prepare", progress)) as bar:
            where, tables = Path(downloads), tuple(labels)
            request = Source(name, source, where, size, bar.show, note, tables, test_split, drop_leaks)
            found = sources.read(request, val=val, train_limit=train_limit, test_limit=test_limit)
    else:
        label = Path(out).stem if out else "arrays"
        found = arranged(name, label, val, in_bytes=out is not None, drop_leaks=drop_leaks, notice=note)
    if out is None:
        return found
    with only_writer(Path(out)):
        write(Path(out), found.parts, found)
        return open_data(Path(out))


def _names(attack: str | Sequence[str]) -> list[str]:
    names = [attack] if isinstance(attack, str) else list(attack)
    for name in names:
        if "," in name:
            raise UsageError(f"attack {name!r}: several attacks are a list, {name.split(',')}")
    return names


def _attack_flags(norm: str, flags: Mapping[str, Any]) -> AttackFlags:
    try:
        return AttackFlags(norm=norm, **flags)
    except TypeError as error:
        raise UsageError(f"evaluate: {str(error).partition(' ')[2]}") from error


def _works(
    model: str | Path | Model,
    x: Array | None,
    y: Array | None,
    data: str | Path | DataFile | None,
    names: Sequence[str],
    flags: AttackFlags,
    wanted: EvaluationFlags,
    device: str,
) -> list[Work]:
    """Return what there is to do at each radius, everything checked."""
    if (x is None) != (y is None) or (x is not None and data is not None):
        raise UsageError("give x and y, or data; not both, and not one of x and y alone")
    request = Request(names, flags, wanted, _device(model, x, device))
    request.check()
    opened = None if data is None else sources.opened(data)
    known = load_subject(Path(model), request.device) if isinstance(model, (str, Path)) else recalled(model)
    if known is not None:
        given = x is not None and examples(x, y, known.header["classes"], known.header["dataset"], known.header["eps"])
        return request.of(known, given or opened or sources.open_dataset(known.header["dataset"]))
    assert callable(model)
    if x is not None and wanted.eps is None and any(name != "natural" for name in names):
        raise UsageError("eps: the model has no customary radius; pass eps, as 8/255")
    subject, mine = _live(model, x, y, opened, wanted.split, request.device)
    return request.of(subject, mine)


def _live(
    model: Model, x: Array | None, y: Array | None, data: DataFile | None, split: str, device: torch.device
) -> tuple[Subject, DataFile]:
    """Return a model that is in memory alone, and the data."""
    if x is not None:
        given = examples(x, y)
        subject = live_subject(model, None, given.stream("test", 1).shape, given.name, given.eps, device)
        return subject, examples(x, y, subject.header["classes"])
    if data is None:
        raise UsageError("evaluate: no images; pass x and y, or data")
    return live_subject(model, data.classes, data.stream(split, 1).shape, data.name, data.eps, device), data


def _device(model: str | Path | Model, x: Array | None, name: str) -> torch.device:
    place = device_of(model) if isinstance(model, nn.Module) else None
    if place is None and isinstance(x, Tensor) and not isinstance(model, (str, Path)):
        place = x.device
    if name == "auto":
        return chosen_device("auto" if isinstance(model, (str, Path)) else str(place or "cpu"))
    device = chosen_device(name)
    if isinstance(model, nn.Module) and place is not None and place.type != device.type:
        raise UsageError(f"device {name}: the model is on {place}; move it there first, or leave device out")
    return device


def _flat(records: Iterable[Any]) -> Iterable[Evaluation | Record | str | Path]:
    for each in records:
        if isinstance(each, (Evaluation, Mapping, str, Path)):
            yield each  # type: ignore[misc]
        else:
            yield from _flat(each)


def _located(record: Evaluation | Record | str | Path) -> list[Located]:
    if isinstance(record, (str, Path)):
        return read(Path(record))
    line = jsonl.dumps(record.record if isinstance(record, Evaluation) else record)
    return list(located(io.BytesIO(line.rstrip("\n").encode() + b"\n"), "records"))
