"""The Python interface, `import bsk`: the commands as functions, for any model and images; no file is needed.

    import bsk

    data = bsk.prepare("digits")
    model = bsk.load("runs/bs.safetensors")
    result = bsk.evaluate(model, data=data, attack="autoattack")
    print(result, result.correct.float().mean())

Images are (N, C, H, W), floats in [0, 1] or uint8; labels (N,) are integers; radii are for pixels in [0, 1]. A model
is a `torch.nn.Module` or another callable, from images in [0, 1] to logits (N, classes). Results are bit-identical to
those of the command line. Errors are `bsk.errors.UsageError` and `InputError`, one line each.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from functools import cached_property
from inspect import Parameter, signature
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
from bsk.data.store import DataFile, open_data
from bsk.devices import chosen_device
from bsk.errors import InputError, UsageError, kind_of, nearest
from bsk.evaluation import run as evaluations
from bsk.evaluation.flags import EvaluationFlags, ModelFlags
from bsk.evaluation.settings import Request, Work, trained_on
from bsk.evaluation.subjects import Subject, foreign_subject, live_subject, load_subject, recalled, remembered
from bsk.models.registry import device_of
from bsk.progress import EvaluationProgress, audit_line, remarks
from bsk.records import jsonl
from bsk.records.bits import decode_correct
from bsk.records.header_schema import DATA
from bsk.records.headers import check_replaceable
from bsk.records.located import Located, located, read
from bsk.records.locks import only_writer
from bsk.records.words import percent, plain
from bsk.surroundings import usual_torch
from bsk.terminal import Bar, note
from bsk.training.api import Run
from bsk.values import checked_suffix, one_of

Model = nn.Module | Callable[[Tensor], Tensor]
Record = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of one attack on one model; `record` is the record that `bsk evaluate` prints.

    For an audit of AutoAttack, the accuracy is an estimate, and `record["audit"]` has its exact interval.
    """

    record: Record

    @property
    def accuracy(self) -> float:
        """The fraction of examples classified correctly under the attack, 0 to 1."""
        return float(self.record["accuracy"])

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval of the accuracy."""
        return float(self.record["low"])

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval of the accuracy."""
        return float(self.record["high"])

    @property
    def n(self) -> int:
        """The number of examples."""
        return int(self.record["n"])

    @property
    def doubts(self) -> list[str]:
        """Signs that the accuracy cannot be trusted, one line each."""
        return list(self.record["doubts"])

    @cached_property
    def correct(self) -> Tensor:
        """Which examples survive, (N,) bool, in the order of the given images or of the split.

        Raises:
            UsageError: the evaluation is an audit, which knows this for a sample only.
        """
        if "audit" in self.record:
            raise UsageError("correct: an audit has verdicts on a sample only; evaluate without audit or within")
        return torch.from_numpy(decode_correct(self.record["correct"], self.n))

    def __repr__(self) -> str:
        """Return the accuracy with its interval, one line per doubt, and one for skipped checks."""
        interval = f"{percent(self.accuracy)} % [{percent(self.low)}, {percent(self.high)}] of {self.n}"
        said = audit_line(self.record) if "audit" in self.record else interval
        text = f"{self.record['attack']} at eps {plain(self.record['eps'])}: {said}"
        return "\n".join([text, *remarks(self.record)])


class Rows(list[comparison.Row]):
    """The rows of a table, each a dict by column; displayed as `bsk compare` prints the table."""

    view: View | None = None

    def __repr__(self) -> str:
        """Return the formatted table."""
        return self.view.printed("table") if self.view is not None else render(self, "table")


@usual_torch()
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
        path: a checkpoint of `bsk train`; with `data`, a file of weights that bsk did not train.
        model: `module:function`, for a checkpoint of a user's own network; with `data`, the network of the weights, a
            name or `module:function`.
        data: the data that weights from elsewhere were trained for: prepared data by name, by path, or opened.
        mean: with `data`: normalisation, one number per channel; default: what the weights hold.
        std: likewise.
        weights_key: with `data`: which set of weights in the file, e.g. "ema".
        class_order: with `data`: class names in the order of the outputs; default: the order of the data.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UsageError: there is no such model or device.
        InputError: a file is missing, corrupt or does not fit.
    """
    if not isinstance(path, str | Path):
        raise UsageError(f"load: {kind_of(path)}, expected the path of a checkpoint or of weights")
    where = chosen_device(device)
    if data is None:
        if any(each is not None for each in (mean, std, weights_key, class_order)):
            said = "mean, std, weights_key, class_order: a bsk checkpoint has its own; use them with data"
            raise UsageError(said)
        subject = load_subject(Path(path), where, model)
    elif model is None:
        raise UsageError(f"{path}: weights not trained by bsk need model, a name or module:function")
    else:
        opened = sources.opened(data)
        subject = foreign_subject(model, Path(path), opened, mean, std, where, weights_key, class_order)
    for notice in subject.notices:
        note(notice)
    subject.model.register_forward_pre_hook(_check_range)
    return remembered(subject)


def _check_range(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Raise an InputError for images far outside [0, 1]; iterates of an attack may be slightly outside.

    A compiled search is not checked, since the network itself judges its images.
    """
    for x in () if torch.compiler.is_compiling() else inputs:
        if not x.is_floating_point():
            raise InputError(f"images: {str(x.dtype).removeprefix('torch.')}, expected floats in [0, 1]; divide by 255")
        if len(x):
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


@usual_torch()
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
    largest_first: bool = False,
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
    """Measure accuracy under an attack, in fp32 and eval mode; the model is left unchanged.

    Args:
        model: a module, a callable, or the path of a checkpoint.
        x: images (N, C, H, W), an array or a tensor, uint8 or float in [0, 1]; None takes them from `data`.
        y: labels (N,).
        data: prepared data by name, by path, or opened; default: the training data of a checkpoint.
        split: of `data`: "test", "val" or "train".
        limit: number of examples, the first in the order of the split.
        attack: a name as in `bsk evaluate --attack`, or `module:function`; a list of attacks gives a list of results.
        eps: radius in `norm` for pixels in [0, 1]; default: that of the checkpoint or of `data`. Several radii in
            ascending order give a list; an example that falls at one radius is not attacked at larger ones.
        largest_first: whether several radii are taken from the largest on. An example that stands at one is then
            assumed to stand at smaller ones, which is faster.
        norm: "linf", "l2" or "l1".
        seed: random seed of the attack.
        batch_size: rows of a model call; default: 512; 128 on a CPU with images larger than
            16 x 16; on a GPU fewer for images larger than 64 x 64.
        device: "auto" (where the model is), "cpu", "cuda", "cuda:1" or "mps".
        checks: whether to check for masked gradients and other signs that the accuracy is too high.
        compile: "on", "off" or "auto": whether attacks use torch.compile; auto uses it where it saves time.
        progress: whether to draw a progress bar on a terminal.
        out: F.jsonl to append the records to. Results of a checkpoint that it already has are reused; a model that
            exists in memory only is always evaluated.
        **flags: `step`, `start`, `last_iterate`, `early_stop`, `search`, `queries`, `stop_at_eps`, `audit`, `within`,
            `engine` as on the command line, and `settings`, a dict of arguments for an attack `module:function`.

    Raises:
        UsageError: an unknown name, or a value out of range.
        InputError: images, labels, the model or a file are invalid.
    """
    names = _names(attack)
    wanted = EvaluationFlags(split, limit, eps, largest_first, batch_size, checks, compile, seed)
    how = _attack_flags("evaluate", norm, flags)
    how.check_untargeted()
    works = _works(model, x, y, data, names, how, wanted, device)
    path = None if out is None else Path(out)
    if path is not None:
        evaluations.check_no_log(path)
    subject = works[0].subject
    live = subject.header["kind"] == "live"  # its weights may have changed, so the cache is not used
    with EvaluationProgress(subject.path.name, progress) as shown:
        shown.notices(works[0].notices)
        kept = None if live else path
        found = []
        for record in evaluations.sweep(works, kept, shown.show):
            found.append(Evaluation(record))
            if live and path is not None:
                jsonl.append(path, record)
    return found[0] if isinstance(attack, str) and not isinstance(eps, Iterable) else found


@usual_torch()
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
    """Return the adversarial images of an attack, (N, C, H, W) fp32 in [0, 1], on the device of x.

    An image that is misclassified without a perturbation is returned unchanged. Arguments and errors are those of
    `evaluate`. In addition, `target` makes FGSM, PGD and CW targeted: the name or number of a class, "random" (another
    class for each image) or "least-likely" (by the logits of the clean image).
    """
    if not isinstance(attack, str):
        raise UsageError(f"attack {_brief(attack)}: give the name of one attack, since it returns one set of images")
    wanted = EvaluationFlags(eps=eps, batch_size=batch_size, checks=False, compile=compile, seed=seed)
    how = _attack_flags("attack", norm, flags)
    how.check_whole()
    wanted.check_one()
    (work,) = _works(model, x, y, None, _names(attack), how, wanted, device)
    with EvaluationProgress(work.subject.path.name, progress) as shown:
        images = evaluations.perturbed(work.subject, work.attacks[0], work.settings, shown.show)
    return images.to(x.device) if isinstance(x, Tensor) else images


def compare(
    *records: Evaluation | Run | Record | str | Path | Iterable[Evaluation | Run | Record | str | Path],
    paper: str | None = None,
    title: str | None = None,
    pareto: bool = False,
    by: str | None = None,
) -> Rows:
    """Return one row per method and attack: seeds pooled, 95 % intervals, and differences to the first row.

    Args:
        *records: evaluations, trainings, records, paths of JSONL files of `bsk evaluate` and `bsk train`, or lists of
            these.
        paper: a table of the paper to add: "2", "6/cifar100", "section54".
        title: title of the table.
        pareto: whether to mark rows that no other dominates in robust accuracy and passes.
        by: "class", "corruption", or "matrix" for saved images on other networks; excludes the arguments above.

    Raises:
        InputError: a file cannot be read, a field is invalid, or there is no evaluation.
        UsageError: there is no such table in the paper.
    """
    items = [item for record in _flat(records) for item in _located(record)]
    view = None if by is None else _view(by, items)
    if view is not None:
        if paper or title or pareto:
            raise UsageError(f"compare by {by}: cannot be combined with paper, title or pareto; leave them out")
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


@usual_torch()
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
    force: bool = False,
    progress: bool = True,
) -> DataFile:
    """Return a dataset, in memory or written to a file, as `bsk prepare-data` prepares it.

    Args:
        name: digits, cifar10, cifar100, tiny-imagenet, cifar10.1, folder, `module:function`, or the images and labels
            themselves: `{"train": (x, y), "test": (x, y)}`, see `bsk.data.arrays`.
        source: an archive, a folder, a parquet or numpy file, or a URL; None is the official archive.
        out: F.safetensors to write; None keeps the dataset in memory.
        val: number of training images held out to select models.
        train_limit: number of training images to keep, class-balanced.
        test_limit: number of test images to keep, class-balanced.
        size: for `folder`: resize images to size x size pixels.
        labels: CSV files of labels for images without class folders; or the name of the label column or array.
        test_split: "test", "val" to test on the val split of the source, or "none" to make all images train.
        drop_leaks: whether to remove training images that are also test or val images.
        downloads: folder of official archives.
        force: whether `out` may replace a file of other data, or another file.
        progress: whether to draw a progress bar on a terminal.

    Raises:
        UsageError: an unknown name, or a number out of range.
        InputError: the source is missing, corrupt or of another format; `out` cannot be written, or has other data.
    """
    path = None if out is None else checked_suffix(Path(out))
    if path is not None:
        check_replaceable(path, DATA, force)
    if isinstance(name, str):
        with closing(Bar("prepare", progress)) as bar:
            where, tables = Path(downloads), tuple(labels)
            request = Source(name, source, where, size, bar.show, note, tables, test_split, drop_leaks)
            found = sources.read(request, val=val, train_limit=train_limit, test_limit=test_limit)
    elif not isinstance(name, Mapping):
        raise UsageError(
            f"prepare: {kind_of(name)}, expected the name of a source, module:function or a mapping of splits"
        )
    else:
        others: dict[str, Any] = {"source": source, "train_limit": train_limit, "test_limit": test_limit, "size": size}
        others |= {"labels": labels or None, "test_split": None if test_split == "test" else test_split}
        if unused := [flag for flag, value in others.items() if value is not None]:
            raise UsageError(f"prepare: {', '.join(unused)}: for sources, not for arrays; slice or resize the arrays")
        label = Path(out).stem if out else "arrays"
        found = arranged(name, label, val, in_bytes=out is not None, drop_leaks=drop_leaks, notice=note)
    if path is None:
        return found
    with only_writer(path):
        sources.keep(found, path, force)
        return open_data(path)


def _names(attack: str | Sequence[str]) -> list[str]:
    names = [attack] if isinstance(attack, str) else [*attack] if isinstance(attack, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"attack {_brief(attack)}: expected the name of an attack, or a list of names")
    for name in names:
        if "," in name:
            raise UsageError(f"attack {name!r}: pass several attacks as a list, {name.split(',')}")
    return names


def _brief(value: object) -> str:
    return repr(value).partition("\n")[0][:40]


def _attack_flags(function: str, norm: str, flags: Mapping[str, Any]) -> AttackFlags:
    known = [each.name for each in fields(AttackFlags) if not each.metadata]
    for name in flags:
        if name not in known:
            own = signature(globals()[function]).parameters.values()
            every = list(dict.fromkeys([each.name for each in own if each.kind is not Parameter.VAR_KEYWORD] + known))
            raise UsageError(f"{function}: unexpected keyword argument '{name}'; {nearest(name, every)}")
    return AttackFlags(norm=norm, **flags)


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
    """Return the checked work at each radius."""
    if (x is None) != (y is None) or (x is not None and data is not None):
        raise UsageError("x, y, data: give either both x and y, or data")
    request = Request(names, flags, wanted, _device(model, x, device))
    request.check()
    opened = None if data is None else sources.opened(data)
    known = load_subject(Path(model), request.device) if isinstance(model, (str, Path)) else recalled(model)
    if known is not None:
        given = x is not None and examples(x, y, known.header["classes"], eps=known.header["eps"])
        mine = given or opened or sources.open_dataset(known.header["dataset"], trained_on(known, ModelFlags()))
        return request.of(known, mine)
    if not callable(model):
        advice = "; pass its .model" if callable(getattr(model, "model", None)) else ""
        expected = f"expected a module, a callable, or the path of a checkpoint{advice}"
        raise UsageError(f"model: {kind_of(model)}, {expected}")
    if x is not None and wanted.eps is None and any(name != "natural" for name in names):
        raise UsageError("eps: the model has no default radius; pass eps, as 8/255")
    subject, mine = _live(model, x, y, opened, wanted.split, request.device)
    return request.of(subject, mine)


def _live(
    model: Model, x: Array | None, y: Array | None, data: DataFile | None, split: str, device: torch.device
) -> tuple[Subject, DataFile]:
    """Return a model that exists in memory only, and the data."""
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
    if isinstance(model, nn.Module) and place is not None:
        if device in (place, torch.device(place.type)):
            return place
        raise UsageError(f"device {name}: the model is on {place}; move it there first, or leave device out")
    return device


def _flat(records: Iterable[Any]) -> Iterable[Evaluation | Run | Record | str | Path]:
    for each in records:
        if isinstance(each, Evaluation | Run | Mapping | str | Path):
            yield each  # type: ignore[misc]
        elif isinstance(each, Iterable):
            yield from _flat(each)
        else:
            wanted = "evaluations, trainings, records, paths, or lists of these"
            raise UsageError(f"compare: {kind_of(each)}, expected {wanted}")


def _located(record: Evaluation | Run | Record | str | Path) -> list[Located]:
    if isinstance(record, (str, Path)):
        return read(Path(record), notice=note)
    told = [record.record] if isinstance(record, Evaluation) else record.log if isinstance(record, Run) else [record]
    lines = [jsonl.dumps(each).rstrip("\n").encode() + b"\n" for each in told]
    return list(located(io.BytesIO(b"".join(lines)), "records"))
