"""The model under evaluation, with its header: from a checkpoint, from weights of another source, or from memory."""

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
from bsk.compat import number_of_hooks
from bsk.data.store import SPLITS, DataFile
from bsk.errors import InputError, UsageError, nearest
from bsk.models import registry
from bsk.models.files import SAFETENSORS, kind
from bsk.models.foreign import Foreign, foreign_model, takes_pixels
from bsk.models.modes import eval_mode
from bsk.models.registry import Normalised, check_logits
from bsk.models.weights import shown
from bsk.perturb.draws import own_randomness
from bsk.plugins import is_plugin, load
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE, model_tensors
from bsk.records.headers import AGAIN, load_header

_ORIGIN = "_bsk_subject"  # the attribute of a loaded model that holds its Subject
OF_OTHERS = f"{AGAIN}, or weights of others by --model and --weights"
TRIED = 10  # logits of an image in the identity of a model in memory
NEEDED = ("dataset", "eps", "flags")  # header fields that evaluations need, besides those that build the model


@dataclass(frozen=True)
class Subject:
    """A model in eval mode on its device, with its file, its header and notices for the user."""

    model: nn.Module
    path: Path
    sha256: str
    header: dict[str, Any]
    notices: tuple[str, ...] = ()


def load_subject(path: Path, device: torch.device, model: str | None = None) -> Subject:
    """Return the model of F.safetensors or F.last.safetensors.

    Code that a file names is never imported on its word: for a user's own network, pass its `module:function` again
    as `model`.

    Raises:
        UsageError: the network is a user's own and `model` is None, or the other way round; or the file was written by
            torch.
        InputError: the file is missing, corrupt, replaced while it was read, or its tensors do not fit its header.
    """
    check_own(path)
    load_header(path, (MODEL, STATE), OF_OTHERS)  # the clearest errors
    sha256 = records.sha256(path)
    tensors, header = checkpoints.load(path, (MODEL, STATE))
    if records.sha256(path) != sha256:  # each of these opens the path again
        raise InputError(f"{path}: changed while it was read; run the command again")
    try:
        if lacking := [name for name in NEEDED if name not in header]:
            raise ValueError(f"the header lacks {', '.join(lacking)}")
        weights = model_tensors(tensors) if header["kind"] == STATE else tensors
        header, notices = _with_code(path, header, model)
        if model is None:
            with torch.device(
                "meta"
            ):  # check names and shapes without allocating: a small header can name a network of any size
                _built(header, header["model"]).load_state_dict(weights, assign=True)
        built = _built(header, model or header["model"]).to(device)
        built.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()[:120]
        raise InputError(f"{path}: header and tensors do not fit ({reason}); train it again") from error
    return Subject(built.eval(), path, sha256, header, notices)


def check_own(path: Path) -> None:
    """Raise a UsageError for a file of torch, whose weights need --model."""
    with contextlib.suppress(OSError, zipfile.BadZipFile):  # load_header has the better message
        if (found := kind(path)) not in (SAFETENSORS, None):
            raise UsageError(f"{path}: is {found}, not a checkpoint of bsk train; use --model and --weights {path}")


def code_needed(path: Path, trained: str) -> UsageError:
    """Return the error of a checkpoint whose network is a user's own code, which --model has to name."""
    return UsageError(f"{path}: its network is your own code; add --model {trained} if you trust that code")


def _with_code(path: Path, header: dict[str, Any], model: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the header with the hash of the code that runs now, and notices for the user."""
    trained = header["model"]
    if model is None and is_plugin(trained):
        raise code_needed(path, trained)
    if model is None:
        return header, ()
    if not is_plugin(trained):
        raise UsageError(f"--model {model}: {path} has bsk's own {trained}; leave --model out")
    code = load(model, "--model").sha256
    other = f"{path}: the code of {model} has changed since training; the result is for the current code"
    return {**header, "code": code}, (other,) if header.get("code") != code else ()


def _built(header: dict[str, Any], model: str) -> Normalised:
    """Return the network that a header describes, with initial weights."""
    channels, height, width = header["shape"]
    return registry.build(
        model,
        classes=len(header["classes"]),
        channels=channels,
        size=(height, width),
        mean=header["mean"],
        std=header["std"],
        seed=header.get("seed") or 0,  # a user's network may draw constants that no state dict has
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
    """Return a model that bsk did not train, for the classes and image size of the data.

    Its SHA-256 is that of the file, or that of the tensors if `key` selects another set than the first. Without
    `weights` the network loads its own, and is identified by its code, parameters and buffers.

    Args:
        model: name of a network, or `module:function`.
        weights: a .pt, .pth or .safetensors file, or None.
        data: the data to evaluate on.
        mean: normalisation, one number per channel; None for what the weights hold.
        std: likewise.
        device: where the model goes.
        key: which set of weights in the file.
        class_order: names of the classes in the order of the outputs; None for the order of the data.

    Raises:
        UsageError: there is no such model or set of weights, or mean and std do not fit.
        InputError: the weights are missing, refused or do not fit.
    """
    channels, height, width = data.stream(_nonempty_split(data), 1).shape
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


def _nonempty_split(data: DataFile) -> str:
    """Return the name of a split that has images."""
    return next((name for name in SPLITS if data.counts[name]), SPLITS[0])


def _outputs(names: Sequence[str], data: DataFile) -> list[int]:
    """Return the output of each class of the data, given the class names in the order of the outputs."""
    unknown = [name for name in names if name not in data.classes]
    start = f"--class-order: {len(names)} names for the {len(data.classes)} classes of {data.path.name}"
    if unknown:
        raise InputError(f"{start}, and {unknown[0]!r} is not one of them; {nearest(unknown[0], data.classes)}")
    if sorted(names) != sorted(data.classes):
        raise InputError(f"{start}; give each class once, in the order of the outputs")
    return [list(names).index(name) for name in data.classes]


def _identity(model: str, weights: Path | None, found: Foreign, before: str) -> str:
    """Return the SHA-256 of what was loaded: the file, whose hash was `before`, or the tensors of one set in it."""
    if weights is None:
        return state_sha256(found.model, model)
    if records.sha256(weights) != before:
        raise InputError(f"{weights}: changed while it was read; run the command again")
    return before if found.weights is None or found.weights.first else state_sha256(found.model)


def _notices(weights: Path, found: Foreign, data: DataFile, key: str | None) -> tuple[str, ...]:
    said = []
    if found.weights is not None and found.weights.others and key is None:
        others, taken = ", ".join(found.weights.others), shown(found.weights.key)
        said.append(f"{weights}: has several sets of weights; using {taken}; --weights-key selects another of {others}")
    if found.normalisation == "none" and takes_pixels(found.model, data.stream(_nonempty_split(data), 1).shape):
        usual = " ".join(f"--{name} {','.join(map(str, getattr(data, name)))}" for name in ("mean", "std"))
        common = f"; common for {data.name}: {usual}" if data.counts["train"] else ""
        said.append(f"{weights}: has no mean and std, so images are not normalised{common}")
    if found.normalisation == "weights" and found.weights is not None:
        numbers = ", ".join(
            f"{name} {','.join(f'{each:.4g}' for each in its)}" for name, its in found.weights.fit.pair.items()
        )
        said.append(f"{weights}: images are normalised by what the file has: {numbers}")
    if found.changes:
        twice = "the network changes images before its first layer, so they may be normalised twice"
        said.append(f"{weights}: {twice}; if so, give --mean 0,... and --std 1,...")
    if found.absent:
        said.append(f"{weights}: has no {' and '.join(found.absent[:2])}; the network's own are used")
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
    """Return a model that exists in memory only.

    Args:
        model: from images (N, C, H, W) in [0, 1], on the device, to logits (N, classes).
        classes: class names, or None for one per logit.
        shape: (C, H, W) of the images.
        dataset: name of the data.
        eps: default radius.
        device: where the model is.

    Raises:
        InputError: the output of the model is not (N, classes).
    """
    name = getattr(model, "__name__", type(model).__name__)
    module, tensors = _as_module(model)
    advice = "check its forward and the images"
    count = check_logits(
        module, shape, len(classes) if classes else None, f"model {name}", device=device, advice=advice
    )
    header: dict[str, Any] = {
        "kind": "live",
        "model": name,
        "flags": {},
        "classes": list(classes or map(str, range(count))),
        "shape": list(shape),
        "dataset": dataset,
        "eps": eps,
    }
    return Subject(module, Path(name), state_sha256(tensors, f"{name} {_tried(module, shape, device)}"), header)


def _as_module(model: nn.Module | Callable[[Tensor], Tensor]) -> tuple[nn.Module, nn.Module]:
    """Return a model as a module that can be put in eval mode, and the module that has its tensors.

    A program of `torch.export` has no eval mode, so that it is only called.
    """
    if not isinstance(model, nn.Module):
        return (called := Called(model)), called
    try:
        with eval_mode(model):
            return model, model
    except NotImplementedError:
        return Called(model.__call__), model
    except Exception:  # of its own code, which `check_logits` reports
        return model, model


def _tried(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> list[float]:
    """Return the first logits of two random images, in hundredths of the largest one, or nothing if they vary.

    They tell functions apart that have the same name and tensors. They are few and coarse, so that rounding in fp32
    hardly ever changes them.
    """
    with own_randomness(device, "images"):
        images = torch.rand(2, *shape).to(device)

    def logits() -> Tensor:
        with own_randomness(device, "outputs"), eval_mode(model), torch.no_grad():
            try:
                rows = [model(image[None].clone()).reshape(1, -1) for image in images]
            except Exception:  # some networks take no single image
                rows = [model(images.clone())]
        found = torch.cat(rows)[:, :TRIED].cpu().double()
        return (found / found.abs().max().clamp(min=1e-30) * 100).round().add(0.0).flatten()

    found = logits()
    return found.tolist() if torch.equal(found, logits()) else []


def state_sha256(model: nn.Module, name: str = "") -> str:
    """Return the SHA-256 of a name and a model's parameters and buffers, in hexadecimal."""
    digest = hashlib.sha256(name.encode())
    for key, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def remembered(subject: Subject) -> nn.Module:
    """Return the model of a subject, marked so that `recalled` finds the subject while it is unchanged."""
    vars(subject.model)[_ORIGIN] = (subject, state_sha256(subject.model, _structure(subject.model)))
    return subject.model


def _structure(model: nn.Module) -> str:
    """Return what computes the outputs besides the tensors: the layers, hooks on them, and replaced functions."""
    parts = [
        f"{name} {type(each).__qualname__} {'forward' in vars(each)} {number_of_hooks(each)}"
        for name, each in model.named_modules()
    ]
    return "\n".join([repr(model), *parts])


def recalled(model: object) -> Subject | None:
    """Return the subject that a model was loaded as; None if it was not loaded, or changed since."""
    origin: tuple[Subject, str] | None = getattr(model, _ORIGIN, None)
    if origin is None:
        return None
    subject, sha256 = origin
    if not isinstance(model, nn.Module) or state_sha256(model, _structure(model)) != sha256:
        return None
    return replace(subject, model=model)


def check_fit(subject: Subject, data: DataFile, shape: tuple[int, ...]) -> None:
    """Raise an InputError if the model was trained for other classes or another image shape than the data has."""
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
