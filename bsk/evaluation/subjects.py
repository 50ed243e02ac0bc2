"""What is evaluated: a model out of a checkpoint, with what its header says of it."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bsk.attacks.outside import Called
from bsk.data.store import SPLITS, DataFile
from bsk.errors import InputError, UsageError, nearest
from bsk.models import registry
from bsk.models.files import SAFETENSORS, kind
from bsk.models.foreign import Foreign, foreign_model, takes_pixels
from bsk.models.registry import Normalised, check_logits
from bsk.models.weights import shown
from bsk.plugins import is_plugin, load
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE, model_tensors
from bsk.records.headers import load_header

_ORIGIN = "_bsk_subject"  # the attribute of a model that was loaded
NEEDED = ("dataset", "eps", "flags")  # of a header, by those who use the model, beside what it is built of


@dataclass(frozen=True)
class Subject:
    """A model in eval mode on its device, its file, its header, and what its user should hear of it."""

    model: nn.Module
    path: Path
    sha256: str
    header: dict[str, Any]
    notices: tuple[str, ...] = ()


def load_subject(path: Path, device: torch.device, model: str | None = None) -> Subject:
    """Return the model of F.safetensors or of F.last.safetensors; the file says all that is needed.

    Nothing is imported that a file names: for a network from outside the user names it again, as `model`.

    Raises:
        UsageError: the network is one from outside and `model` is None, or the other way round; or the file is
            one of torch.
        InputError: the file is missing, corrupt, replaced meanwhile, or its tensors do not fit its header.
    """
    _check_own(path)
    load_header(path, (MODEL, STATE))  # it says best what is wrong with a file
    sha256 = records.sha256(path)
    tensors, header = checkpoints.load(path, (MODEL, STATE))
    if records.sha256(path) != sha256:  # each of these opens the path anew
        raise InputError(f"{path}: changed while it was read; run the command again")
    try:
        if lacking := [name for name in NEEDED if name not in header]:
            raise ValueError(f"the header lacks {', '.join(lacking)}")
        weights = model_tensors(tensors) if header["kind"] == STATE else tensors
        header, notices = _with_code(path, header, model)
        if model is None:
            with torch.device("meta"):  # names and shapes first: a few bytes of header can name a network of any size
                _built(header, header["model"]).load_state_dict(weights, assign=True)
        built = _built(header, model or header["model"]).to(device)
        built.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()[:120]
        raise InputError(f"{path}: header and tensors do not fit ({reason}); train it again") from error
    return Subject(built.eval(), path, sha256, header, notices)


def _check_own(path: Path) -> None:
    """Raise a UsageError if a file is one of torch, whose weights need a network."""
    with contextlib.suppress(OSError, zipfile.BadZipFile):  # the reader of headers says it better
        if (found := kind(path)) not in (SAFETENSORS, None):
            raise UsageError(f"{path}: is {found}, no checkpoint of bsk train; use --model and --weights {path}")


def _with_code(path: Path, header: dict[str, Any], model: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the header with the code that runs now, and what its user should hear of it."""
    trained = header["model"]
    if model is None and is_plugin(trained):
        raise UsageError(f"{path}: its network is code from outside; add --model {trained} if you trust that code")
    if model is None:
        return header, ()
    if not is_plugin(trained):
        raise UsageError(f"--model {model}: {path} is of bsk's own {trained}; leave --model out")
    code = load(model, "--model").sha256
    other = f"{path}: the code of {model} is not what it was trained with; the number is that of the code as it is"
    return {**header, "code": code}, (other,) if header.get("code") != code else ()


def _built(header: dict[str, Any], model: str) -> Normalised:
    """Return the network that a header describes, with weights of its own."""
    channels, height, width = header["shape"]
    return registry.build(
        model,
        classes=len(header["classes"]),
        channels=channels,
        size=(height, width),
        mean=header["mean"],
        std=header["std"],
    )


def foreign_subject(
    model: str,
    weights: Path | None,
    data: DataFile,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: torch.device,
    key: str | None = None,
    class_order: Sequence[str] | None = None,
) -> Subject:
    """Return a model that bsk did not train, taken to be for the data's classes and images.

    Its SHA-256 is that of the file, or, of weights that only a key takes, that of the tensors. Without `weights` the
    network comes with its own. It is known by its code, parameters and buffers then. `class_order` has the names of
    the data's classes in the order of its outputs, if that is not the data's.

    Raises:
        UsageError: there is no such model or set of weights, or mean and std do not fit.
        InputError: the weights are missing, refused or do not fit.
    """
    channels, height, width = data.stream(_there(data), 1).shape
    before = records.sha256(weights) if weights is not None and weights.is_file() else ""
    order = None if class_order is None else _outputs(class_order, data)
    found = foreign_model(
        model,
        weights,
        classes=len(data.classes),
        channels=channels,
        size=(height, width),
        mean=mean,
        std=std,
        device=device,
        key=key,
        order=order,
    )
    header: dict[str, Any] = {
        "kind": "foreign",
        "model": model,
        "flags": {},
        "classes": data.classes,
        "shape": [channels, height, width],
        "dataset": data.name,
        "eps": data.eps,
        "mean": found.mean,
        "std": found.std,
        "normalisation": found.normalisation,
        "code": load(model, "--model").sha256 if is_plugin(model) else None,
        **({} if order is None else {"class_order": order}),
    }
    place = Path(model.replace(":", ".")) if weights is None else weights
    return Subject(
        found.model, place, _identity(model, weights, found, before), header, _notices(place, found, data, key)
    )


def _there(data: DataFile) -> str:
    """Return a split that has images."""
    return next((name for name in SPLITS if data.counts[name]), SPLITS[0])


def _outputs(names: Sequence[str], data: DataFile) -> list[int]:
    """Return the output of each of the data's classes, of their names in the order of the outputs."""
    unknown = [name for name in names if name not in data.classes]
    start = f"--class-order: {len(names)} names for the {len(data.classes)} classes of {data.path.name}"
    if unknown:
        raise InputError(f"{start}, and {unknown[0]!r} is none; {nearest(unknown[0], data.classes)}")
    if sorted(names) != sorted(data.classes):
        raise InputError(f"{start}; give each of them once, in the order of the outputs")
    return [list(names).index(name) for name in data.classes]


def _identity(model: str, weights: Path | None, found: Foreign, before: str) -> str:
    """Return the SHA-256 of what was loaded: of the file, which had one before, or of the tensors of one set in it."""
    if weights is None:
        return state_sha256(found.model, model)
    if records.sha256(weights) != before:
        raise InputError(f"{weights}: changed while it was read; run the command again")
    return before if found.weights is None or found.weights.first else state_sha256(found.model)


def _notices(weights: Path, found: Foreign, data: DataFile, key: str | None) -> tuple[str, ...]:
    said = []
    if found.weights is not None and found.weights.others and key is None:
        others, taken = ", ".join(found.weights.others), shown(found.weights.key)
        said.append(f"{weights}: has several sets of weights; takes {taken}, and by --weights-key also {others}")
    if found.normalisation == "none" and takes_pixels(found.model, data.stream(_there(data), 1).shape):
        usual = " ".join(f"--{name} {','.join(map(str, getattr(data, name)))}" for name in ("mean", "std"))
        said.append(f"{weights}: holds no mean and std, so images are not normalised; usual for {data.name} is {usual}")
    if found.dropped:
        more = f" and {len(found.dropped) - 1} more" if len(found.dropped) > 1 else ""
        said.append(f"{weights}: {found.dropped[0]}{more} not used")
    return tuple(said)


def live_subject(
    model: nn.Module | Callable[[Tensor], Tensor],
    classes: Sequence[str] | None,
    shape: tuple[int, ...],
    dataset: str,
    eps: float,
    device: torch.device,
) -> Subject:
    """Return a model that is in memory alone.

    Args:
        model: from images (N, C, H, W) in [0, 1], on the device, to logits (N, classes).
        classes: their names, or None for as many as the model has logits.
        shape: (C, H, W) of the images.
        dataset: what the images are called.
        eps: the customary radius.
        device: where the model is.

    Raises:
        InputError: the model does not return logits.
    """
    name = getattr(model, "__name__", type(model).__name__)
    module = model if isinstance(model, nn.Module) else Called(model)
    count = check_logits(module, shape, len(classes) if classes else None, f"model {name}", device=device)
    header: dict[str, Any] = {
        "kind": "live",
        "model": name,
        "flags": {},
        "classes": list(classes or map(str, range(count))),
        "shape": list(shape),
        "dataset": dataset,
        "eps": eps,
    }
    return Subject(module, Path(name), state_sha256(module, name), header)


def state_sha256(model: nn.Module, name: str = "") -> str:
    """Return the SHA-256 of a model's parameters and buffers, and of a name."""
    digest = hashlib.sha256(name.encode())
    for key, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def remembered(subject: Subject) -> nn.Module:
    """Return the model of a subject; `recalled` gives the subject for it, as long as its weights are the same."""
    vars(subject.model)[_ORIGIN] = (subject, state_sha256(subject.model))
    return subject.model


def recalled(model: object) -> Subject | None:
    """Return where a model was loaded from, or None if it was not, or was changed since."""
    origin: tuple[Subject, str] | None = getattr(model, _ORIGIN, None)
    if origin is None:
        return None
    subject, sha256 = origin
    if not isinstance(model, nn.Module) or state_sha256(model) != sha256:
        return None
    return replace(subject, model=model)


def check_fit(subject: Subject, data: DataFile, shape: tuple[int, ...]) -> None:
    """Raise an InputError if the model was trained for other classes or images than the data has."""
    header = subject.header
    if len(header["classes"]) != len(data.classes):
        raise InputError(
            f"{subject.path}: trained for {len(header['classes'])} classes, {data.path.name} has "
            f"{len(data.classes)}; pass --data"
        )
    trained, judged = list(header["classes"]), list(data.classes)
    if trained != judged:
        place = next(i for i, pair in enumerate(zip(trained, judged, strict=True)) if pair[0] != pair[1])
        order = "the same classes in another order" if sorted(trained) == sorted(judged) else "other classes"
        found = f"class {place} is {trained[place]!r} there and {judged[place]!r} in {data.path.name}"
        raise InputError(f"{subject.path}: trained for {order}: {found}; pass --data")
    if tuple(header["shape"]) != shape:
        raise InputError(
            f"{subject.path}: trained on {header['dataset']} images {tuple(header['shape'])}, {data.path.name} has "
            f"{data.name} images {shape}; pass --data"
        )
