"""The settings of an evaluation, and how flags become settings, a model and attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import Attack, attacks_named
from bsk.attacks.saved import Saved, saved_images
from bsk.attacks.targets import named_target
from bsk.data.batches import WHOLE, Share
from bsk.data.sources import open_dataset
from bsk.data.store import DataFile, data_path, open_data
from bsk.devices import fast_precision, rows_of_a_call
from bsk.errors import InputError, UsageError
from bsk.evaluation.flags import EvaluationFlags, ModelFlags
from bsk.evaluation.subjects import OF_OTHERS, Subject, check_own, code_needed, foreign_subject, load_subject
from bsk.plugins import is_plugin
from bsk.records.checkpoints import MODEL, STATE
from bsk.records.headers import load_header


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings that all attacks on one model share.

    Attributes:
        data, split, limit: the examples; limit is their number, None for all.
        eps: radius for pixels in [0, 1].
        seed: random seed of the attacks.
        batch_size: rows of a model call; it changes no result.
        device: where the model is.
        share: the part of the examples that this process takes.
        checks: whether the model is examined for masked gradients and the like.
        compile: "on", "off" or "auto": whether attacks use torch.compile.
    """

    data: DataFile
    split: str
    limit: int | None
    eps: float
    seed: int
    batch_size: int
    device: torch.device
    share: Share = WHOLE
    checks: bool = True
    compile: str = "off"


@dataclass(frozen=True)
class Work:
    """A model, the attacks on it, the settings, and notices for the user."""

    subject: Subject
    attacks: list[Attack]
    settings: EvaluationSettings
    notices: list[str]


@dataclass(frozen=True)
class Request:
    """A requested evaluation: attacks by name with their flags, or saved images instead, and the examples."""

    names: Sequence[str]
    attack: AttackFlags
    evaluation: EvaluationFlags
    device: torch.device
    share: Share = WHOLE
    saved: Saved | None = None

    def check(self) -> None:
        """Raise a UsageError for an unknown name or an invalid value, before a model is loaded."""
        self.evaluation.check(self.attack.norm)
        attacks_named(self.names, 1.0, self.attack)

    @classmethod
    def shown(cls, images: Path, evaluation: EvaluationFlags, device: torch.device, share: Share = WHOLE) -> Request:
        """Return the request to evaluate on saved images; number and radius are by default those of their file.

        Raises:
            UsageError: another split than theirs is requested, or several radii.
            InputError: the file is missing or is not one of adversarial images.
        """
        evaluation.check_one()
        saved = saved_images(images)
        split = str(saved.header["split"])
        if evaluation.split not in (split, EvaluationFlags.split):
            raise UsageError(f"--split {evaluation.split}: {images} has images of {split}; leave --split out")
        eps = saved.header["eps"] if evaluation.eps is None else evaluation.eps
        limit = len(saved.images) if evaluation.limit is None else evaluation.limit
        wanted = replace(evaluation, split=split, eps=eps, limit=limit, compile="off")
        return cls((), AttackFlags(norm=saved.norm), wanted, device, share, saved)

    def of(self, subject: Subject, data: DataFile) -> list[Work]:
        """Return the work on a model at each radius, in order; without a requested radius, at that of the model.

        Raises:
            UsageError: an attack needs more classes, or there is no such target.
        """
        radii = self.evaluation.radii or [subject.header["eps"]]
        return [self._at(eps, subject, data) for eps in sorted(radii, reverse=self.evaluation.largest_first)]

    def _at(self, eps: float, subject: Subject, data: DataFile) -> Work:
        wanted = self.evaluation
        search, fast = self.attack.search, fast_precision(self.device)
        target = None if self.attack.target is None else named_target(self.attack.target, data.classes)
        flags = replace(self.attack, classes=len(data.classes), fast=fast, target=target)
        attacks = attacks_named(self.names, eps, flags)
        attacks = attacks if self.saved is None else [self.saved.attack()]
        shape = data.stream(wanted.split, wanted.limit).shape
        size = wanted.batch_size or rows_of_a_call(self.device, shape)
        settings = EvaluationSettings(
            data,
            wanted.split,
            wanted.limit,
            eps,
            wanted.seed,
            size,
            self.device,
            self.share,
            wanted.checks,
            wanted.compile,
        )
        slow = (
            [f"--search {search}: slow on this device; auto uses {fast}"]
            if search not in ("fp32", "auto", fast)
            else []
        )
        notices = [*subject.notices, *(line for attack in attacks for line in attack.notices), *slow]
        return Work(subject, attacks, settings, list(dict.fromkeys(notices)))


def subject_and_data(path: Path | None, flags: ModelFlags, device: torch.device) -> tuple[Subject, DataFile]:
    """Return the model of a checkpoint, or of weights where `path` is None, and the data.

    Raises:
        UsageError: an unknown name, or the network is a user's own code and --model does not name it.
        InputError: a file is missing or does not fit.
    """
    if path is not None:
        subject = load_subject(path, device, flags.model)
        dataset = flags.dataset or subject.header["dataset"]
        return subject, open_dataset(dataset, flags.data or trained_on(subject, flags))
    opened = open_dataset(flags.dataset or "cifar10", flags.data)
    assert flags.model is not None
    pair, key = (flags.mean, flags.std), flags.weights_key
    return foreign_subject(flags.model, flags.weights, opened, *pair, device, key, flags.class_order), opened


def code_of_each(paths: Sequence[Path], flags: ModelFlags) -> list[ModelFlags]:
    """Return the flags for each checkpoint: without `model` for bsk's own networks beside those of a user's code.

    All headers are read before anything is evaluated.

    Raises:
        UsageError: some are a user's own code and --model does not name it.
        InputError: a file is missing or is no checkpoint.
    """
    for path in paths:
        check_own(path)
    models = [str(load_header(path, (MODEL, STATE), OF_OTHERS).get("model")) for path in paths]
    own = sorted({model for model in models if is_plugin(model)})
    for path, model in zip(paths, models, strict=True):
        if model in own and flags.model is None:
            raise code_needed(path, model)
        if model in own and not is_plugin(str(flags.model)):
            raise UsageError(f"--model {flags.model}: {path} has your own {model}; name that")
    if len(own) > 1:
        raise UsageError(f"--model {flags.model}: networks of {', '.join(own)}; evaluate each in its own command")
    return [replace(flags, model=flags.model if model in own or not own else None) for model in models]


def each_data(flags: ModelFlags) -> list[ModelFlags]:
    """Return the flags once per data file if they name a folder; otherwise the flags as they are.

    Raises:
        InputError: the folder has no data files.
    """
    named = None if flags.dataset is None else data_path(flags.dataset)
    folder = named.with_suffix("") if named and flags.data is None and not named.exists() else flags.data
    if folder is None or not folder.is_dir():
        return [flags]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: the folder has no data files; check --data, or run bsk prepare-data")
    return [replace(flags, data=file) for file in files]


def trained_on(subject: Subject, flags: ModelFlags) -> Path | None:
    """Return the data file that a checkpoint was trained on, if it still exists unchanged."""
    header = subject.header
    path = Path(str(header.get("data_path", "")))
    if flags.dataset is not None or path in (Path(), data_path(header["dataset"])) or not path.is_file():
        return None
    try:
        return path if open_data(path).sha256 == header.get("data_sha256") else None
    except InputError:
        return None
